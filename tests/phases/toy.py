"""A toy world: a real repository with a small PRD, experiments and gates that take milliseconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

EXPERIMENT = '''
"""Counts what it is told to count and keeps the numbers, so that a gate can count again."""
import hashlib, json, os, pathlib, sys
out = pathlib.Path(os.environ["PHASES_OUT"])
mode = pathlib.Path("MODE").read_text().strip() if pathlib.Path("MODE").exists() else "good"
with open(os.environ["PHASES_EVENTS"], "a") as events:
    events.write(json.dumps({"done": 1, "total": 2, "note": "counting"}) + "\\n")
if mode == "crash":
    sys.exit("no luck today")
if mode == "hang":
    import time
    time.sleep(600)
numbers = [3, 1, 4, 1, 5]
total = sum(numbers) + (1 if mode == "wrong" else 0)
(out / "artifacts").mkdir()
(out / "artifacts" / "numbers.json").write_text(json.dumps(numbers))
(out / "note.md").write_text("# Numbers\\n\\nfive of them\\n")
files = [path for path in sorted(out.rglob("*")) if path.is_file()]
digests = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
result = {"measurements": {"total": {"value": total, "unit": "", "exact": True},
                           "mean": {"value": total / 5, "unit": "", "stderr": 0.8, "n": 5, "values": numbers}},
          "files": digests}
(out / "result.json").write_text(json.dumps(result))
if mode == "stray":
    (out / "stray.txt").write_text("nobody declared me")
print("counted", total)
'''

GATE = '''
"""Counts again."""
import hashlib, json, os, pathlib
import pytest

def out():
    return pathlib.Path(os.environ["PHASES_OUT"])

def numbers():
    return json.loads((out() / "artifacts" / "numbers.json").read_text())

def measured(name):
    return json.loads((out() / "result.json").read_text())["measurements"][name]

def test_total():
    assert measured("total")["value"] == sum(numbers())

def test_mean():
    mean = measured("mean")
    assert abs(mean["value"] - sum(numbers()) / len(numbers())) < 1e-9
    assert mean["values"] == numbers() and abs(mean["stderr"] - 0.8) < 1e-9

@pytest.mark.integrity
def test_files():
    files = json.loads((out() / "result.json").read_text())["files"]
    assert files
    for name, digest in files.items():
        assert hashlib.sha256((out() / name).read_bytes()).hexdigest() == digest
'''

EXIT_GATE = '''
"""Every feature of the phase counted right."""
import json, os, pathlib

def test_all():
    folders = sorted(path for path in pathlib.Path(os.environ["PHASES_OUT"]).iterdir())
    assert folders
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())["measurements"]
        numbers = json.loads((folder / "artifacts" / "numbers.json").read_text())
        assert result["total"]["value"] == sum(numbers)
        assert abs(result["mean"]["value"] - sum(numbers) / 5) < 1e-9
'''


def feature(number: int, **changes: Any) -> dict[str, Any]:
    """One quick feature of the toy PRD."""
    return {
        "id": f"TOY-{number:03d}", "title": f"Count number {number}", "command": f"{sys.executable} experiment.py",
        "outputs": ["result.json", "note.md", "artifacts/**"], "expect": {"minutes": 0.1, "memory_gb": 0.1},
        "gate": {"pytest": "gates/test_count.py"},
        "predictions": [{"id": "fourteen", "claim": "the total is 14", "measurement": "total", "comparator": "==",
                         "value": 14},
                        {"id": "small", "claim": "the mean is below 0", "measurement": "mean", "comparator": "<",
                         "value": 0.0}],
    } | changes  # fmt: skip


def toy_plan(phases: int = 1, features: int = 2, **defaults: Any) -> dict[str, Any]:
    """A PRD of quick phases."""
    number = iter(range(1, 100))
    return {
        "schema": 1, "project": "Toy", "results": "results",
        "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": 3, **defaults},
        "phases": [
            {"id": index + 1, "name": f"Counting {index + 1}", "entry": [{"shell": "test -s experiment.py"}],
             "features": [feature(next(number)) for _ in range(features)],
             "exit": [{"pytest": "gates/test_exit.py"}]}
            for index in range(phases)
        ],
    }  # fmt: skip


class Toy:
    """A toy repository, and the runner started in it as a user starts it."""

    def __init__(self, root: Path, plan: dict[str, Any] | None = None):
        self.root = root
        root.mkdir()
        self.write("prd/plan.json", json.dumps(plan or toy_plan(), indent=1))
        self.write("experiment.py", EXPERIMENT)
        self.write("gates/test_count.py", GATE)
        self.write("gates/test_exit.py", EXIT_GATE)
        self.write(".gitignore", ".phases/\n__pycache__/\n")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Toy Person")
        self.git("config", "user.email", "toy@example.org")
        self.commit("the toy project")

    def write(self, path: str, text: str) -> None:
        """Writes a file of the repository."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def plan(self, **changes: Any) -> None:
        """Changes the PRD's first feature and commits it."""
        document = json.loads((self.root / "prd/plan.json").read_text())
        document["phases"][0]["features"][0].update(changes)
        self.write("prd/plan.json", json.dumps(document, indent=1))
        self.commit("the plan changes")

    def git(self, *arguments: str) -> str:
        """Runs git in the repository and returns what it printed."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> None:
        """Commits everything, as a user does."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> Any:
        """`python -m phases …` without a controlling terminal; checks the exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "phases", *arguments], cwd=self.root, capture_output=True, text=True, input=stdin,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})}, start_new_session=True,
            check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, (
                f"exit {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def status(self) -> Any:
        """`status --json`."""
        return json.loads(self.run("status", "--json").stdout)

    def states(self) -> dict[str, str]:
        """Feature id -> state."""
        return {
            item["id"]: item["state"]
            for phase in self.status()["phases"]
            for item in phase["features"]
        }

    @property
    def progress(self) -> str:
        """progress.txt."""
        return (self.root / "progress.txt").read_text()

    def snapshot(self) -> tuple[str, str, str]:
        """What a run must not change when it runs nothing: HEAD, progress.txt, the journal."""
        return (
            self.git("rev-parse", "HEAD"),
            self.progress,
            (self.root / ".git/phases/journal").read_text(),
        )

    def copy(self, target: Path) -> Toy:
        """The whole repository copied, journal and all."""
        shutil.copytree(self.root, target, symlinks=True)
        other = object.__new__(Toy)
        other.root = target
        return other
