"""A toy project: a real repository with a small plan whose experiments take milliseconds."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest
from by_hand import AUDITED, assert_agreement
from reviewed_findings import MODULES, REPORTS

from phases import cli

ROOT = Path(__file__).resolve().parents[2]

EXPERIMENT = '''
"""Count, and keep the numbers, so that a gate can count again; the file MODE makes it fail."""
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
digests = {}
for path in sorted(out.rglob("*")):
    if path.is_file():
        name = str(path.relative_to(out))
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
measurements = {
    "total": {"value": total, "unit": "", "exact": True},
    "mean": {"value": total / 5, "unit": "", "stderr": 0.8, "n": 5, "values": numbers},
}
result = {"measurements": measurements, "files": digests}
(out / "result.json").write_text(json.dumps(result))
if mode == "stray":
    (out / "stray.txt").write_text("not declared in the plan")
print("counted", total)
'''

GATE = '''
"""Count again."""
import hashlib, json, os, pathlib
import pytest

def out():
    return pathlib.Path(os.environ["PHASES_OUT"])

def numbers():
    return json.loads((out() / "artifacts" / "numbers.json").read_text())

def measurement(name):
    return json.loads((out() / "result.json").read_text())["measurements"][name]

def test_total():
    assert measurement("total")["value"] == sum(numbers())

def test_mean():
    mean = measurement("mean")
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
"""Check that every feature of the phase counted right."""
import json, os, pathlib

def test_all():
    folders = sorted(pathlib.Path(os.environ["PHASES_OUT"]).iterdir())
    assert folders
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())["measurements"]
        numbers = json.loads((folder / "artifacts" / "numbers.json").read_text())
        assert result["total"]["value"] == sum(numbers)
        assert abs(result["mean"]["value"] - sum(numbers) / 5) < 1e-9
'''


MEAN = '"mean": {"value": 2.8, "unit": "", "stderr": 0.8, "n": 5, "values": [3, 1, 4, 1, 5]}'
SHELL_GATE = " && ".join(
    (
        "test \"$(cat artifacts/numbers.json)\" = '[3, 1, 4, 1, 5]'",
        "test \"$(tr '\\n' ' ' < note.md)\" = '# Numbers  five of them '",
        'grep -qF \'"total": {"value": 14, "unit": "", "exact": true}\' result.json',
        f"grep -qF '{MEAN}' result.json",
    )
)
SHELL_EXIT_GATE = f"for file in */result.json; do grep -qF '{MEAN}' $file || exit 1; done"


def feature(number: int, **changes: Any) -> dict[str, Any]:
    """Return one quick feature of the toy plan."""
    predictions = [
        {
            "id": "fourteen",
            "claim": "the total is 14",
            "measurement": "total",
            "comparator": "==",
            "value": 14,
        },
        {
            "id": "small",
            "claim": "the mean is below 0",
            "measurement": "mean",
            "comparator": "<",
            "value": 0.0,
        },
    ]
    document = {
        "id": f"TOY-{number:03d}",
        "title": f"Count number {number}",
        "command": f"{sys.executable} experiment.py",
        "outputs": ["result.json", "note.md", "artifacts/**"],
        "expect": {"minutes": 0.1, "memory_gb": 0.1},
        "gate": {"pytest": "gates/test_count.py"},
        "predictions": predictions,
    }
    return document | changes


def toy_plan(phases: int = 1, features: int = 2, **defaults: Any) -> dict[str, Any]:
    """Return a plan of quick phases, each with so many features."""
    numbers = itertools.count(1)
    phase_documents = []
    for phase in range(1, phases + 1):
        phase_documents.append(
            {
                "id": phase,
                "name": f"Counting {phase}",
                "entry": [{"shell": "test -s experiment.py"}],
                "features": [feature(next(numbers)) for _ in range(features)],
                "exit": [{"shell": SHELL_EXIT_GATE}],
            }
        )
    return {
        "schema": 1,
        "project": "Toy",
        "results": "results",
        "defaults": {"timeout_s": 60, "gate_timeout_s": 60, "attempts": 3, **defaults},
        "phases": phase_documents,
    }


def with_shell_gates(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the plan with shell gates of features: they judge the same in a tenth of the time."""
    for phase in plan["phases"]:
        for item in phase["features"]:
            item["gate"] = {"shell": SHELL_GATE}
    return plan


def environment() -> dict[str, str]:
    """Return the environment of a runner; its coverage counts where that of the tests does."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    if coverage.Coverage.current() is not None:
        variables["COVERAGE_PROCESS_START"] = str(ROOT / "pyproject.toml")
        variables["COVERAGE_FILE"] = str(ROOT / ".coverage")
    return variables


@dataclass(frozen=True)
class CommandResult:
    """How a command ended that this process ran itself."""

    code: int
    stdout: str
    stderr: str


def assert_exit(actual: int, expected: int | None, printed: str) -> None:
    """Check an exit code; None expects none."""
    assert expected in (None, actual), f"got exit {actual}; expected {expected}\n{printed}"


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
        self.git("config", "user.name", "Toy User")
        self.git("config", "user.email", "toy@example.org")
        self.commit("the toy project")

    #### what a user does in the repository

    def write(self, path: str, text: str) -> None:
        """Write a file of the repository."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def set_mode(self, mode: str) -> None:
        """Commit how the experiment behaves: what runs is the commit."""
        self.write("MODE", mode)
        self.git("add", "MODE")
        self.git("commit", "-q", "--allow-empty", "-m", f"mode {mode}", "MODE")

    def change_plan(self, **changes: Any) -> None:
        """Change the plan's first feature and commit it."""
        document = json.loads((self.root / "prd/plan.json").read_text())
        document["phases"][0]["features"][0].update(changes)
        self.write("prd/plan.json", json.dumps(document, indent=1))
        self.commit("the plan changes")

    def git(self, *arguments: str) -> str:
        """Run git in the repository and return what it printed."""
        process = subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True
        )
        return process.stdout.strip()

    def commit(self, message: str) -> None:
        """Commit everything, as a user does."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m phases …` without a controlling terminal; check its exit code.

        `code` is the expected exit code; None expects none.
        """
        process = subprocess.run(
            [sys.executable, "-m", "phases", *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            input=stdin,
            env={**environment(), **(env or {})},
            start_new_session=True,
            check=False,
        )
        assert_exit(process.returncode, code, process.stdout + process.stderr)
        self._verify_by_hand(arguments, process.returncode)
        return process

    def call(self, *arguments: str, code: int | None = 0) -> CommandResult:
        """Do as `run` in this process, which saves the start of another: for what runs no work."""
        result = self._call(*arguments)
        assert_exit(result.code, code, result.stdout + result.stderr)
        if arguments == ("audit", "--json") and result.stdout:
            REPORTS.append((self.root, json.loads(result.stdout)))
        self._verify_by_hand(arguments, result.code)
        return result

    def _call(self, *arguments: str) -> CommandResult:
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            patch.setattr(sys, "argv", ["phases", "--root", str(self.root), *arguments])
            with pytest.raises(SystemExit) as exit_info:
                cli.main()
        return CommandResult(int(exit_info.value.code or 0), stdout.getvalue(), stderr.getvalue())

    def _verify_by_hand(self, arguments: Sequence[str], code: int) -> None:
        """After an audit, check that the script of docs/verify-by-hand.md agrees with it."""
        is_audit = arguments[:1] == ("audit",) and "--help" not in arguments
        if is_audit and code in AUDITED:
            assert_agreement(self.root, code, self._audit_errors)
            if "MUTATION_TIMES" in os.environ:  # on the original: mutants meet it as a copy
                self._keep_audited(code, is_report=arguments == ("audit", "--json"))

    def _audit_errors(self) -> list[dict[str, Any]]:
        """Return the errors that `audit` lists; [] where it cannot begin."""
        stdout = self._call("audit", "--json").stdout
        findings = json.loads(stdout)["findings"] if stdout else []
        return [finding for finding in findings if finding["severity"] == "error"]

    def _keep_audited(self, code: int, *, is_report: bool) -> None:
        """Copy the repository, for `tests/mutation/kept_audits.py`, with what tests compare."""
        if not (self.root / ".git").is_dir():
            return  # a work tree or submodule of another one
        test = Path(os.environ["PYTEST_CURRENT_TEST"].partition("::")[0])
        is_reviewed = is_report and test.stem in MODULES
        report = json.loads(self._call("audit", "--json").stdout) if is_reviewed else None
        folder = Path(os.environ["KEPT_AUDITS"])
        kept = folder / f"{len(list(folder.iterdir())):04d}"
        kept.mkdir()
        subprocess.run(["cp", "-a", str(self.root), str(kept / "repository")], check=True)
        document = {"root": str(self.root), "code": code, "report": report}
        (kept / "audit.json").write_text(json.dumps(document))

    #### what there is afterwards

    def status(self) -> Any:
        """Return `status --json`."""
        return json.loads(self.call("status", "--json").stdout)

    def assert_audit_is_clean(self) -> None:
        """Check that `audit` finds no error."""
        self.call("audit", "--json")

    def states(self) -> dict[str, str]:
        """Return feature id -> state."""
        states = {}
        for phase in self.status()["phases"]:
            for item in phase["features"]:
                states[item["id"]] = item["state"]
        return states

    @property
    def progress(self) -> str:
        """The text of progress.txt."""
        return (self.root / "progress.txt").read_text()

    def record_contents(self) -> tuple[str, str, str]:
        """Return what a run must not change when it runs nothing: HEAD, progress.txt, journal."""
        head = self.git("rev-parse", "HEAD")
        return head, self.progress, (self.root / ".git/phases/journal").read_text()

    def copy(self, target: Path) -> Toy:
        """Return a copy of the whole repository, journal included."""
        shutil.copytree(self.root, target, symlinks=True)
        other = object.__new__(Toy)
        other.root = target
        return other
