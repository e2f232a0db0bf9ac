"""A project of many phases: what the features of a long record run, and what judges them.

A feature counts from its seed. Those of even places are shell commands with a shell gate, the
others run a module with a config, an input and predictions under a gate of pytest; every second of
these needs the one before it. A gate passes on the outputs of any feature of its kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toy import Toy

FEATURES = 12
"""Of each phase."""
RESULTS = "results"

WORKER = r"""
set -e
mode=$(cat "$1" 2>/dev/null || echo good)
if [ "$mode" = crash ]; then echo "no luck today" >&2; exit 1; fi
total=$((PHASES_SEED + 5))
mkdir "$PHASES_OUT/artifacts"
printf '[%d, 4, 1]\n' "$PHASES_SEED" > "$PHASES_OUT/artifacts/numbers.json"
if [ "$mode" = wrong ]; then total=$((total + 1)); fi
printf '{"measurements": {"total": {"value": %d, "unit": "", "exact": true}}}\n' "$total" \
    > "$PHASES_OUT/result.json"
echo counted
"""

MODULE = '''
"""Count from the seed; the config says what is added, the input what is counted with."""
import argparse, json, pathlib

parser = argparse.ArgumentParser()
for option in ("--config", "--profile", "--inputs", "--out"):
    parser.add_argument(option)
parser.add_argument("--seed", type=int)
arguments = parser.parse_args()
added = json.loads(pathlib.Path(arguments.config).read_text())["added"]
path = json.loads(pathlib.Path(arguments.inputs).read_text())["numbers"]["path"]
numbers = [arguments.seed, *json.loads(pathlib.Path(path).read_text())]
assert sum(numbers) == arguments.seed + added
out = pathlib.Path(arguments.out)
(out / "artifacts").mkdir()
(out / "artifacts" / "numbers.json").write_text(json.dumps(numbers) + "\\n")
measured = {"total": {"value": sum(numbers), "unit": "", "exact": True}}
(out / "result.json").write_text(json.dumps({"measurements": measured}) + "\\n")
print("counted")
'''

PYTEST_GATE = '''
"""Count again."""
from gates.shared.outputs import numbers, total


def test_total():
    assert total() == sum(numbers())


def test_numbers():
    assert numbers()[1:] == [4, 1]
'''

SHARED = '''
"""The judged files."""
import json, os, pathlib

OUT = pathlib.Path(os.environ["PHASES_OUT"])


def numbers():
    return json.loads((OUT / "artifacts" / "numbers.json").read_text())


def total():
    return json.loads((OUT / "result.json").read_text())["measurements"]["total"]["value"]
'''

SHELL_GATE = (
    "n=$(grep -oE '^\\[[0-9]+, 4, 1\\]$' artifacts/numbers.json | grep -oE '[0-9]+' | head -1) && "
    'grep -Eq "\\"value\\": ?$((n + 5))[,}]" result.json'
)
EXIT_GATE = (
    "for d in */; do n=$(grep -oE '[0-9]+' \"$d/artifacts/numbers.json\" | head -1); "
    'grep -Eq "\\"value\\": ?$((n + 5))[,}]" "$d/result.json" || exit 1; done'
)


def output_files(seed: int, *, is_wrong: bool = False) -> dict[str, bytes]:
    """Return what a feature of this seed writes: path -> bytes."""
    result = {"measurements": {"total": {"value": seed + 5 + is_wrong, "unit": "", "exact": True}}}
    return {
        "artifacts/numbers.json": f"[{seed}, 4, 1]\n".encode(),
        "result.json": (json.dumps(result) + "\n").encode(),
    }


def feature_id(phase: int, place: int) -> str:
    """Return the id of a feature."""
    return f"LONG-{phase:03d}-{place:02d}"


def feature(root: Path, phase: int, place: int) -> dict[str, Any]:
    """Return one feature of the plan."""
    document = {
        "id": feature_id(phase, place),
        "title": f"Count from {phase}, place {place}",
        "outputs": ["result.json", "artifacts/**"],
        "expect": {"minutes": 0.1, "memory_gb": 0.1},
        "seed": phase * FEATURES + place,
    }
    if place % 2 == 0:
        document |= {"command": f"sh count.sh {mode_file(root)}", "gate": {"shell": SHELL_GATE}}
        return document
    prediction = {
        "id": "large",
        "claim": "more than 600 in all",
        "measurement": "total",
        "comparator": ">",
        "value": 600,
    }
    document |= {
        "module": "counting.experiment",
        "config": "counting/config.json",
        "inputs": ["numbers"],
        "gate": {"pytest": "gates/counting/test_counting.py"},
        "predictions": [prediction],
    }
    if place % 4 == 3:
        document["needs"] = [feature_id(phase, place - 2)]
    return document


def mode_file(root: Path) -> Path:
    """Return the file outside of the repository that makes a command fail: nothing commits it."""
    return root.with_name(f"{root.name}.mode")


def plan(root: Path, phases: int) -> str:
    """Return the text of a plan with so many phases."""
    documents = []
    for phase in range(1, phases + 1):
        documents.append(
            {
                "id": phase,
                "name": f"Counting {phase}",
                "features": [feature(root, phase, place) for place in range(FEATURES)],
                "exit": [{"shell": EXIT_GATE}],
            }
        )
    return json.dumps(
        {
            "schema": 1,
            "project": "Long",
            "results": RESULTS,
            "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": 3},
            "inputs": [{"name": "numbers", "path": "data/numbers.json"}],
            "phases": documents,
        }
    )


class LongProject(Toy):
    """The repository of the project, before anything was recorded."""

    def __init__(self, root: Path, phases: int):
        self.root = root
        root.mkdir(parents=True)
        self.write("prd/plan.json", plan(root, phases))
        self.write("count.sh", WORKER)
        self.write("counting/__init__.py", "")
        self.write("counting/experiment.py", MODULE)
        self.write("counting/config.json", '{"added": 5}\n')
        self.write("data/numbers.json", "[4, 1]\n")
        self.write("gates/counting/test_counting.py", PYTEST_GATE)
        self.write("gates/shared/outputs.py", SHARED)
        self.write(".gitignore", ".phases/\n__pycache__/\n")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Toy User")
        self.git("config", "user.email", "toy@example.org")
        self.commit("the long project")
