"""SIGKILL at every failpoint, also during recovery: the next run comes to the undisturbed end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from converging import converges, failpoint_env
from invariants import entries, leftovers, progress, shape, violations
from quick import Quick
from terminal_user import as_asked, at_terminal

import phases
from phases.base.failpoint import FAILPOINTS
from tests.soak import mark_soak

IN_RECORD = FAILPOINTS[FAILPOINTS.index("copied") :]
NOT_PREPARED = ("decided", "copied", "bound")
IN_LEDGER = ("journalled", "entered")
IN_RUN = [name for name in FAILPOINTS if name not in ("decided", "pulled")]


def test_every_failpoint_is_in_the_code_once() -> None:
    names: list[str] = []
    for path in Path(phases.__file__).parent.rglob("*.py"):
        text = path.read_text()
        names += re.findall(r'\bfailpoint\("(\w+)"\)', text)
        # Those of the two ledger files are passed by a loop: `(journal, "journalled")`.
        names += re.findall(r', "(journalled|entered)"\)', text)
    assert sorted(names) == sorted(FAILPOINTS)


def test_an_unknown_failpoint_is_refused(quick: Quick) -> None:
    env = {"PHASES_FAILPOINT": "nowhere:kill"}
    refused = quick.run("run", "--next", code=None, env=env)
    assert refused.returncode != 0
    assert "expected NAME:ACTION" in refused.stderr
    assert not (quick.root / "progress.txt").exists()


#### kills


def test_killed_at_every_failpoint_in_turn(quick: Quick, undisturbed: dict[str, Any]) -> None:
    """One repository is killed at each failpoint; each run recovers from the kill before.

    From `prepared` on the kills hit the recovery itself.
    """
    # `entered` cannot follow `journalled`: what the journal has is restored, not appended a second
    # time. After `withdrawn` or `removed` nothing is left to record, so `recorded` is not reached.
    for name in IN_RUN:
        if name in ("entered", "withdrawn", "removed"):
            continue
        before = progress(quick.root)
        quick.run("run", "--next", code=-signal.SIGKILL, env=failpoint_env(name))
        assert violations(quick.root, before) == [], name
    converges(quick, undisturbed, progress(quick.root))
    kinds = [block.kind for block in entries(quick.root)]
    assert kinds.count("STARTED") == kinds.count("INTERRUPTED") + 1
    quick.assert_audit_is_clean()


def kill_cases() -> list[tuple[str, int]]:
    """Return every failpoint of a run with each of its hits.

    Entries are appended in this order: GENESIS, LOCKED, STARTED, VERIFIED, HALTED. VERIFIED and
    HALTED are recorded.
    """
    cases = []
    for name in IN_RUN:
        hits = 1
        if name in IN_LEDGER:
            hits = 5
        elif name in IN_RECORD:
            hits = 2
        cases += [(name, count) for count in range(1, hits + 1)]
    return cases


# Those that the test of every failpoint in turn does not come to, and one that it does.
SHORT_KILLS = {
    ("started", 1),
    ("journalled", 3),
    ("journalled", 4),
    ("journalled", 5),
    ("entered", 4),
    ("committed", 2),
    ("withdrawn", 1),
    ("withdrawn", 2),
    ("removed", 1),
    ("removed", 2),
}


@pytest.mark.parametrize(("name", "count"), mark_soak(kill_cases(), short=SHORT_KILLS))
def test_killed_once_the_next_run_converges(
    name: str, count: int, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    env = failpoint_env(name, count=count)
    quick.run("run", "--next", code=-signal.SIGKILL, env=env)
    converges(quick, undisturbed, progress(quick.root))


#### errors

ERRORS = [(name, action) for name in IN_RUN for action in ("raise", "enospc")]
SHORT_ERRORS = {("started", "raise"), ("files", "enospc")}


@pytest.mark.parametrize(("name", "action"), mark_soak(ERRORS, short=SHORT_ERRORS))
def test_an_error_at_a_failpoint_is_the_environments(
    name: str, action: str, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    failed = quick.run("run", "--next", code=7, env=failpoint_env(name, action))
    assert f"(PHASES_FAILPOINT at {name})" in failed.stderr
    assert "next: " in failed.stderr
    assert "Traceback" not in failed.stderr
    converges(quick, undisturbed, progress(quick.root))


#### approvals

APPROVALS = ("decided", *IN_RECORD)
SHORT_APPROVALS = {"decided", "bound", "committed", "removed"}


@pytest.mark.parametrize("name", mark_soak(APPROVALS, short=SHORT_APPROVALS))
def test_killed_while_an_approval_is_recorded(name: str, waiting: Quick) -> None:
    before = progress(waiting.root)
    env = failpoint_env(name)
    code, _ = at_terminal(waiting.root, "approve", "1", answer=as_asked, env=env)
    assert code is None  # a signal

    # Before it was prepared nothing is recorded, and the approver has to type it again; after
    # that, the next run completes it.
    run = waiting.run("run", "--next", code=None)
    if name in NOT_PREPARED:
        assert run.returncode == 4
        assert progress(waiting.root) == before
        assert at_terminal(waiting.root, "approve", "1", answer=as_asked)[0] == 0
    else:
        assert run.returncode == 0, run.stderr
        assert "Every phase is approved" in run.stderr

    # Either way it is recorded once.
    assert [block.kind for block in entries(waiting.root)].count("APPROVED") == 1
    assert violations(waiting.root, before) == []
    assert leftovers(waiting.root, waiting.temporary) == []
    assert len(list((waiting.root / "prd/approvals").iterdir())) == 1
    assert waiting.git("rev-parse", "HEAD") == waiting.git("rev-parse", "refs/phases/log")


def test_an_approval_is_not_asked_for_over_a_half_recorded_checkpoint(quick: Quick) -> None:
    env = failpoint_env("entered", count=5)
    quick.run("run", "--next", code=-signal.SIGKILL, env=env)
    assert entries(quick.root)[-1].kind == "HALTED"
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 7
    assert "left a pending record" in screen
    assert "run --next completes it" in screen
    quick.run("run", "--next", code=4)
    assert at_terminal(quick.root, "approve", "1", answer=as_asked)[0] == 0
    assert violations(quick.root) == []


#### workers


def start_hanging_run(quick: Quick, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start a runner in the background whose worker hangs."""
    quick.set_mode("hang")
    return subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=quick.root,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        env=quick.environment(),
        start_new_session=True,
    )


def process_leftovers(quick: Quick) -> list[str]:
    return [problem for problem in leftovers(quick.root) if problem.startswith("I11")]


def test_a_killed_runner_takes_its_worker_along(quick: Quick, undisturbed: dict[str, Any]) -> None:
    runner = start_hanging_run(quick)
    quick.wait_for_worker()
    runner.kill()
    runner.wait()
    for _ in range(100):
        if not process_leftovers(quick):
            break
        time.sleep(0.05)
    assert process_leftovers(quick) == []
    quick.set_mode("good")
    converges(quick, undisturbed, progress(quick.root))


def test_a_killed_worker_is_errored_and_never_judged(
    quick: Quick, undisturbed: dict[str, Any]
) -> None:
    runner = start_hanging_run(quick, stderr=subprocess.PIPE)
    worker = quick.wait_for_worker()
    os.killpg(os.getpgid(worker), signal.SIGKILL)
    _, stderr = runner.communicate(timeout=30)
    assert runner.returncode == 1
    assert "the experiment was killed by signal 9" in stderr

    last = entries(quick.root)[-1]
    assert (last.kind, last.attempt) == ("ERRORED", "1")
    assert [line for line in last.lines if line.startswith("gate ")] == []
    assert violations(quick.root) == []
    quick.set_mode("good")
    quick.run("run", "--next")
    assert shape(quick.root)["results"] == undisturbed["results"]
