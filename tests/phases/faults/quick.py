"""A project whose phases take a second: shell workers and shell gates, for runs that are killed.

The worker writes one measurement and one artifact; the gate reads the number and kills the mutants.
The file NAME.mode beside the repository NAME makes the worker hang or take its time.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from toy import Toy

WORKER = r"""
set -e
mode=$(cat "${PWD%%.tmp/*}.mode" 2>/dev/null || echo good)
printf '{"done": 1, "total": 2, "note": "counting"}\n' >> "$PHASES_EVENTS"
case "$mode" in
hang) sleep 600 ;;
slow) sleep 0.4 ;;
esac
mkdir "$PHASES_OUT/artifacts"
printf '[14]\n' > "$PHASES_OUT/artifacts/numbers.json"
result='{"measurements": {"total": {"value": 14, "unit": "", "exact": true}}}'
printf '%s\n' "$result" > "$PHASES_OUT/result.json"
echo counted 14
"""

GATE = (
    "test \"$(cat artifacts/numbers.json)\" = '[14]' && grep -Eq '\"value\": ?14[,}]' result.json"
)


def feature(number: int, **changes: Any) -> dict[str, Any]:
    """Return one feature that takes a fifth of a second, with its shell gate."""
    document = {
        "id": f"Q-{number:03d}",
        "title": f"Count {number}",
        "command": "sh worker.sh",
        "outputs": ["result.json", "artifacts/**"],
        "expect": {"minutes": 0.1, "memory_gb": 0.1},
        "gate": {"shell": GATE},
    }
    return document | changes


def plan(phases: int = 1, features: int = 1, **defaults: Any) -> dict[str, Any]:
    """Return a plan of quick phases, each with so many features."""
    numbers = itertools.count(1)
    phase_documents = []
    for phase in range(1, phases + 1):
        phase_features = [feature(next(numbers)) for _ in range(features)]
        phase_documents.append({"id": phase, "name": f"Phase {phase}", "features": phase_features})
    return {
        "schema": 1,
        "project": "Quick",
        "results": "results",
        "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": 3, **defaults},
        "phases": phase_documents,
    }


class Quick(Toy):
    """A repository with a quick plan, and a folder of its own for temporary files."""

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
        """TMPDIR of every run here: it shows what a killed runner leaves."""
        return self.root.with_name(self.root.name + ".tmp")

    def set_mode(self, mode: str) -> None:
        """Say how the worker behaves, outside of the repository: no commit, no edit."""
        self.root.with_name(self.root.name + ".mode").write_text(mode)

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Do as Toy.run, with this repository's TMPDIR.

        Coverage is not measured: it would write files of its own to a disk that fails.
        """
        env = {"TMPDIR": str(self.temporary), "COVERAGE_PROCESS_START": "", **(env or {})}
        return super().run(*arguments, code=code, env=env, stdin=stdin)

    @property
    def progress_or_nothing(self) -> str:
        """The text of progress.txt; empty where there is none yet."""
        if not (self.root / "progress.txt").exists():
            return ""
        return self.progress

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a runner in the background."""
        source = str(Path(__file__).parents[3])
        return {
            **os.environ,
            "PYTHONPATH": source,
            "TMPDIR": str(self.temporary),
            **variables,
        }

    def wait_for_worker(self) -> int:
        """Wait until the worker hangs; return its pid."""
        for _ in range(300):
            for process in Path("/proc").iterdir():
                if process.name.isdecimal() and self._is_worker(process):
                    time.sleep(0.1)
                    return int(process.name)
            time.sleep(0.05)
        raise AssertionError("no worker")

    def _is_worker(self, process: Path) -> bool:
        """Return whether a folder of /proc is a worker of this repository."""
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            directory = (process / "cwd").readlink()
        except OSError:  # it has ended
            return False
        return words[:2] == [b"sh", b"worker.sh"] and self.temporary in directory.parents

    def copy(self, target: Path) -> Quick:
        """Return a copy of the whole repository, journal included."""
        return self.at(super().copy(target).root)

    def at(self, root: Path) -> Quick:
        """Return the repository of that folder, which exists."""
        other = Quick.__new__(Quick)
        other.root = root
        other.temporary.mkdir(exist_ok=True)
        return other
