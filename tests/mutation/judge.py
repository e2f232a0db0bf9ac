"""Runs the tests of mutants: `python -m tests.mutation.judge JOBS`, in a copy of the repository.

The tests are collected once. For each mutant a process is forked where the changed function takes
the place of the original, and the file of the copy is changed too, so that the processes that tests
start, `python -m phases`, are mutants as well. A mutant of what an import runs gets a fresh Python.

The repositories that tests of the whole session share are made once, by the original.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation import plugin
from tests.mutation.mutants import Mutant
from tests.mutation.replacement import replace_function

_TEMPORARY = plugin.ROOT.parent / "tmp"
_CANNOT_REPLACE = 71
_LATE = 124
_TIMEOUTS = (_LATE, -signal.SIGXCPU, -signal.SIGKILL)
"""Exit codes of tests that were ended: by this program, or by the limit of processor time."""


@dataclass(frozen=True)
class Job:
    """A mutant and its tests, in the order in which they are run."""

    mutant: Mutant
    tests: tuple[str, ...]
    seconds: float
    """What they take on the original, fixtures included."""

    @property
    def limit(self) -> float:
        """Seconds after which its tests count as hanging, also on a busy machine."""
        return 60 + 10 * self.seconds

    @property
    def processor_limit(self) -> int:
        """Seconds of processor time that they may take."""
        return 10 + int(2 * self.seconds)


class Judge:
    """The plugin of pytest that tests mutants in the place of the tests that were collected."""

    def __init__(self, jobs: Sequence[Job], verdicts: Path):
        self._jobs = jobs
        self._verdicts = verdicts
        self._killers: dict[str, list[str]] = {}
        """File -> the tests that killed mutants of it, the latest first."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Judge every mutant; a forked process goes on with its tests."""
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        _make_shared_fixtures(session)
        folders = set(_TEMPORARY.iterdir())
        for job in self._jobs:
            mutant = job.mutant
            killers = self._killers.setdefault(mutant.path, [])
            first = [test for test in killers if test in job.tests]
            tests = [*first, *(test for test in job.tests if test not in first)]
            failed = plugin.ROOT / plugin.FAILED
            failed.unlink(missing_ok=True)
            code = 0
            with _changed_file(mutant):
                if tests and mutant.function is not None:
                    pid = os.fork()
                    if pid == 0:
                        # A loop without an end costs the time that it takes on a quiet machine.
                        resource.setrlimit(resource.RLIMIT_CPU, (job.processor_limit,) * 2)
                        if not replace_function(mutant):
                            os._exit(_CANNOT_REPLACE)
                        plugin.choose(session.items, tests)
                        return None
                    code = _wait(pid, job.limit)
                if tests and (mutant.function is None or code == _CANNOT_REPLACE):
                    code = _test_in_fresh_python(tests, job.limit)
            killer = failed.read_text() if failed.exists() else ""
            if killer:
                killers[:] = [killer, *(test for test in killers if test != killer)]
            self._note(job, code, killer)
            for folder in set(_TEMPORARY.iterdir()) - folders:
                shutil.rmtree(folder, ignore_errors=True)
        return True

    def _note(self, job: Job, code: int, killer: str) -> None:
        state = "killed"
        if code == 0:
            state = "survived"
        elif code in _TIMEOUTS:
            state = "timeout"
        mutant = job.mutant
        verdict = {"path": mutant.path, "number": mutant.number, "state": state, "killer": killer}
        with self._verdicts.open("a") as file:
            file.write(json.dumps({**verdict, "exit": code, "tests": len(job.tests)}) + "\n")


class _NoItem:
    """Stands for the test after one: what is of the whole session stays set up."""

    def __init__(self, session: pytest.Session):
        self._session = session

    def listchain(self) -> list[pytest.Session]:
        return [self._session]


def _make_shared_fixtures(session: pytest.Session) -> None:
    """Run one test for each fixture of the whole session, on the original: forks share them."""
    made = set()
    for item in session.items:
        assert isinstance(item, pytest.Function)
        fixtures = item._fixtureinfo.name2fixturedefs
        shared = {name for name, found in fixtures.items() if found[-1].scope == "session"}
        if not shared <= made:
            made |= shared
            runtestprotocol(item, nextitem=cast("pytest.Item", _NoItem(session)), log=False)


@contextmanager
def _changed_file(mutant: Mutant) -> Iterator[None]:
    path = plugin.ROOT / mutant.path
    original = path.read_text("utf-8")
    path.write_text(mutant.code, "utf-8")
    # Two mutants of one size and one second look alike to Python: no compiled file may stay.
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()
    try:
        yield
    finally:
        path.write_text(original, "utf-8")


def _test_in_fresh_python(tests: Sequence[str], limit: float) -> int:
    (plugin.ROOT / plugin.CHOSEN).write_text(json.dumps(tests))
    files = sorted({test.partition("::")[0] for test in tests})
    options = ("-x", "-p", plugin.__name__, f"--basetemp={_TEMPORARY}-fresh")
    command = [sys.executable, "-m", "pytest", *plugin.OPTIONS, *options, *files]
    process = subprocess.Popen(command)
    code = _wait(process.pid, limit)
    process.returncode = code
    (plugin.ROOT / plugin.CHOSEN).unlink()
    return code


def _wait(pid: int, limit: float) -> int:
    """Return the exit code of a child; one that is late is killed with all that it started."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    child = psutil.Process(pid)
    for process in [*child.children(recursive=True), child]:
        process.kill()
    os.waitpid(pid, 0)
    return _LATE


def read_jobs(path: Path) -> list[Job]:
    """Return the jobs of a file."""
    jobs = []
    for document in json.loads(path.read_text()):
        mutant = Mutant(**document["mutant"])
        jobs.append(Job(mutant, tuple(document["tests"]), document["seconds"]))
    return jobs


def main() -> None:
    """Judge the mutants of a file of jobs."""
    jobs = read_jobs(Path(sys.argv[1]))
    tests = {test.partition("::")[0] for job in jobs for test in job.tests}
    options = ("-x", f"--basetemp={_TEMPORARY}")
    parent = os.getpid()
    judge = Judge(jobs, Path(sys.argv[2]))
    code = pytest.main([*plugin.OPTIONS, *options, *sorted(tests)], plugins=[plugin, judge])
    sys.stdout.flush()
    if os.getpid() != parent:
        os._exit(code)


if __name__ == "__main__":
    main()
