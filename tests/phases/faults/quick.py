"""A world whose phases take a second: shell workers and shell gates, so that a thousand runs can be killed.

The worker writes one measurement and one artifact; the gate reads the number and refuses the negative copies.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from toy import Toy

WORKER = """
set -e
mode=$(cat MODE 2>/dev/null || echo good)
printf '{"done": 1, "total": 2, "note": "counting"}\\n' >> "$PHASES_EVENTS"
case "$mode" in
hang) sleep 600 ;;
slow) sleep 0.4 ;;
esac
mkdir "$PHASES_OUT/artifacts"
printf '[14]\\n' > "$PHASES_OUT/artifacts/numbers.json"
printf '{"measurements": {"total": {"value": 14, "unit": "", "exact": true}}}\\n' > "$PHASES_OUT/result.json"
echo counted 14
"""

GATE = (
    "test \"$(cat artifacts/numbers.json)\" = '[14]' && grep -Eq '\"value\": ?14[,}]' result.json"
)


def feature(number: int, **changes: Any) -> dict[str, Any]:
    """One feature that takes a fifth of a second, and its shell gate."""
    return {
        "id": f"Q-{number:03d}", "title": f"Count {number}", "command": "sh worker.sh",
        "outputs": ["result.json", "artifacts/**"], "expect": {"minutes": 0.1, "memory_gb": 0.1},
        "gate": {"shell": GATE},
    } | changes  # fmt: skip


def plan(phases: int = 1, features: int = 1, **defaults: Any) -> dict[str, Any]:
    """A plan of quick phases."""
    number = iter(range(1, 100))
    return {
        "schema": 1, "project": "Quick", "results": "results",
        "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": 3, **defaults},
        "phases": [
            {"id": index + 1, "name": f"Phase {index + 1}",
             "features": [feature(next(number)) for _ in range(features)]}
            for index in range(phases)
        ],
    }  # fmt: skip


class Quick(Toy):
    """A repository with a quick plan, and a folder for temporary files of its own."""

    def __init__(self, root: Path, document: dict[str, Any] | None = None):
        self.root = root
        root.mkdir(parents=True)
        self.temporary.mkdir()
        self.write("prd/plan.json", json.dumps(document or plan(), indent=1))
        self.write("worker.sh", WORKER)
        self.write(".gitignore", ".phases/\n")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Quick Person")
        self.git("config", "user.email", "quick@example.org")
        self.commit("the quick project")

    @property
    def temporary(self) -> Path:
        """TMPDIR of every run here: what a killed runner leaves can be seen in it."""
        return self.root.with_name(self.root.name + ".tmp")

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> Any:
        """As Toy.run, with this world's TMPDIR."""
        return super().run(
            *arguments, code=code, env={"TMPDIR": str(self.temporary), **(env or {})}, stdin=stdin
        )

    @property
    def progress_or_nothing(self) -> str:
        """progress.txt, empty where there is none yet."""
        return self.progress if (self.root / "progress.txt").exists() else ""

    def environment(self, **more: str) -> dict[str, str]:
        """What a runner in the background is started with."""
        path = {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(self.temporary)}
        return {**os.environ, **path, **more}

    def wait_for_worker(self) -> int:
        """Waits until the worker hangs; returns its pid."""
        for _ in range(300):
            for folder in Path("/proc").iterdir():
                if not folder.name.isdecimal():
                    continue
                try:
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    if words[:2] == [b"sh", b"-c"] or words[:2] != [b"sh", b"worker.sh"]:
                        continue
                    if (folder / "cwd").readlink() == self.root:
                        time.sleep(0.1)
                        return int(folder.name)
                except OSError:
                    continue
            time.sleep(0.05)
        raise AssertionError("no worker")

    def copy(self, target: Path) -> Quick:
        """The whole repository copied, journal and all."""
        other = Quick.__new__(Quick)
        other.root = super().copy(target).root
        other.temporary.mkdir()
        return other
