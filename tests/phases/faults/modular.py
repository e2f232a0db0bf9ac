"""A project whose feature is a module: a package, a helper package, data beside the code.

What it measures says which code and which data ran: 14 as committed first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quick import Quick

MAIN = """
import json, os, pathlib
from exp import helper
import tools.h

def run():
    out = pathlib.Path(os.environ["PHASES_OUT"])
    data = json.loads(pathlib.Path(__file__).with_name("numbers.json").read_text())
    total = helper.add(data) + tools.h.EXTRA
    (out / "artifacts").mkdir()
    (out / "artifacts/numbers.json").write_text(json.dumps([total]))
    measurements = {"total": {"value": total, "unit": "", "exact": True}}
    (out / "result.json").write_text(json.dumps({"measurements": measurements}))

if __name__ == "__main__":
    run()
"""
FILES = {
    "exp/__init__.py": "",
    "exp/main.py": MAIN,
    "exp/helper.py": "def add(numbers):\n    return sum(numbers)\n",
    "exp/numbers.json": "[3, 1, 4, 1, 5]",
    "exp/config.yaml": "rate: 1\n",
    "tools/__init__.py": "",
    "tools/h.py": "EXTRA = 0\n",
    "run.sh": 'python -c "import exp.main; exp.main.run()"\n',
    "data/words.txt": "three short words\n",
    "README.md": "a project\n",
}
GATE = (
    "test -s result.json && test \"$(tr -d '[] ' < artifacts/numbers.json)\" = "
    '"$(sed -E \'s/.*"value": ?([-0-9.]+)[,}].*/\\1/\' result.json)"'
)
MODULE = {"module": "exp.main", "config": "exp/config.yaml"}
COMMAND = {"command": "sh run.sh"}


def modular_feature(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return one feature; `changes` say what runs and by which gate."""
    document = {
        "id": f"M-{number:03d}",
        "title": f"Sum {number}",
        "outputs": ["result.json", "artifacts/**"],
        "expect": {"minutes": 0.1, "memory_gb": 0.1},
        "gate": {"shell": GATE},
    }
    return document | changes


def modular_plan(*features: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a plan with one phase."""
    phase = {"id": 1, "name": "Sums", "features": list(features)}
    document = {
        "schema": 1,
        "project": "Modular",
        "results": "results",
        "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": 3},
        "phases": [phase],
    }
    return document | changes


class Modular(Quick):
    """A repository with such a plan."""

    def __init__(
        self, root: Path, document: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        super().__init__(root, document)
        for path, text in (FILES | (files or {})).items():
            self.write(path, text)
        self.commit("the modular project")

    def total(self, feature: str = "M-001") -> int:
        """Return what the recorded result says."""
        path = self.root / f"results/{feature}/result.json"
        return int(json.loads(path.read_text())["measurements"]["total"]["value"])

    def receipt(self, feature: str = "M-001") -> dict[str, Any]:
        """Return what went into the recorded attempt: URI -> digest set."""
        document = json.loads((self.root / f"results/{feature}/receipt.json").read_text())
        items = document["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {item["uri"]: item["digest"] for item in items}
