"""SIGKILL at every place of the runner's path, also during recovery: the next run comes to the undisturbed end."""

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
from converging import converges, fault
from invariants import entries, leftovers, progress, shape, violations
from quick import Quick
from terminal_user import as_asked, at_terminal

import phases
from phases.base.failpoint import FAILPOINTS

IN_RECORD = FAILPOINTS[FAILPOINTS.index("prepared") :]
IN_LEDGER = ("journalled", "entered")
OUTCOMES = ("VERIFIED", "HALTED")


def test_every_place_stands_in_the_code_once() -> None:
    found: list[str] = []
    for path in Path(phases.__file__).parent.rglob("*.py"):
        text = path.read_text()
        found += re.findall(r'fault\.point\("(\w+)"\)', text) + re.findall(
            r', "(journalled|entered)"\)', text
        )
    assert sorted(found) == sorted(FAILPOINTS)


def test_an_unknown_place_is_refused(quick: Quick) -> None:
    refused = quick.run("run", "--next", code=None, env={"PHASES_FAILPOINT": "nowhere:kill"})
    assert refused.returncode != 0
    assert "expected NAME:ACTION" in refused.stderr
    assert not (quick.root / "progress.txt").exists()


def test_killed_at_every_place_in_turn(quick: Quick, undisturbed: dict[str, Any]) -> None:
    """One repository, killed at each place; each run recovers from the kill before, and from `prepared` on the kills
    hit the recovery itself."""
    # `entered` cannot follow `journalled`: what the journal has is restored, not appended a second time. After
    # `withdrawn` nothing is left to record, so `recorded` would not come.
    for place in (
        place for place in FAILPOINTS if place not in ("decided", "entered", "withdrawn")
    ):
        before = progress(quick.root)
        quick.run("run", "--next", code=-signal.SIGKILL, env=fault(place))
        assert violations(quick.root, before) == [], place
    converges(quick, undisturbed, progress(quick.root))
    kinds = [block.kind for block in entries(quick.root)]
    assert kinds.count("STARTED") == kinds.count("INTERRUPTED") + 1
    quick.run("audit")


# Entries are appended in this order: GENESIS, LOCKED, STARTED, VERIFIED, HALTED; records are VERIFIED and HALTED.
ONCE = [
    *[(place, 1) for place in FAILPOINTS if place not in IN_RECORD and place != "decided"],
    *[(place, count) for place in IN_LEDGER for count in range(1, 6)],
    *[(place, count) for place in IN_RECORD if place not in IN_LEDGER for count in (1, 2)],
]
QUICKLY = {("lock_written", 1), ("started", 1), ("halt", 1), ("journalled", 1), ("journalled", 3), ("journalled", 4),
           ("journalled", 5), ("entered", 4), ("prepared", 1), ("files", 1), ("committed", 1), ("committed", 2),
           ("ref_moved", 1), ("withdrawn", 1), ("withdrawn", 2)}  # fmt: skip


def soaked(cases: list[Any], quickly: set[Any]) -> list[Any]:
    """All cases; those that are not to be run every day marked so."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in quickly else pytest.mark.soak,
        )
        for case in cases
    ]


@pytest.mark.parametrize(("place", "count"), soaked(ONCE, QUICKLY))
def test_killed_once_the_next_run_converges(
    place: str, count: int, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    quick.run("run", "--next", code=-signal.SIGKILL, env=fault(place, count=count))
    converges(quick, undisturbed, progress(quick.root))


ERRORS = [(place, how) for place in FAILPOINTS if place != "decided" for how in ("raise", "enospc")]


@pytest.mark.parametrize(
    ("place", "how"),
    soaked(
        ERRORS,
        {("started", "raise"), ("judged", "enospc"), ("files", "enospc"), ("committed", "raise")},
    ),
)
def test_an_error_at_a_place_is_the_environments(
    place: str, how: str, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    failed = quick.run("run", "--next", code=7, env=fault(place, how))
    assert f"(PHASES_FAILPOINT at {place})" in failed.stderr
    assert "next: " in failed.stderr
    assert "Traceback" not in failed.stderr
    converges(quick, undisturbed, progress(quick.root))


#### approvals


@pytest.mark.parametrize(
    "place", soaked(["decided", *IN_RECORD], {"decided", "journalled", "files", "committed"})
)
def test_killed_while_an_approval_is_recorded(place: str, waiting: Quick) -> None:
    before = progress(waiting.root)
    code, _screen = at_terminal(waiting.root, "approve", "1", answer=as_asked, env=fault(place))
    assert code is None  # a signal
    done = waiting.run("run", "--next", code=None)
    if place == "decided":  # nothing was recorded: a person has to say it again
        assert done.returncode == 4
        assert progress(waiting.root) == before
        assert at_terminal(waiting.root, "approve", "1", answer=as_asked)[0] == 0
    else:
        assert done.returncode == 0, done.stderr
        assert "Every phase is approved" in done.stderr
    assert [block.kind for block in entries(waiting.root)].count("APPROVED") == 1
    assert violations(waiting.root, before) == []
    assert leftovers(waiting.root, waiting.temporary) == []
    assert len(list((waiting.root / "prd/approvals").iterdir())) == 1
    assert waiting.git("rev-parse", "HEAD") == waiting.git("rev-parse", "refs/phases/log")


def test_an_approval_is_not_asked_for_over_a_half_recorded_checkpoint(quick: Quick) -> None:
    quick.run("run", "--next", code=-signal.SIGKILL, env=fault("entered", count=5))
    assert entries(quick.root)[-1].kind == "HALTED"
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 7
    assert "half recorded" in screen
    assert "run --next finishes it" in screen
    quick.run("run", "--next", code=4)
    assert at_terminal(quick.root, "approve", "1", answer=as_asked)[0] == 0
    assert violations(quick.root) == []


#### workers


def test_a_killed_runner_takes_its_worker_along(quick: Quick, undisturbed: dict[str, Any]) -> None:
    quick.write("MODE", "hang")
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"], cwd=quick.root, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=quick.environment(), start_new_session=True,
    )  # fmt: skip
    quick.wait_for_worker()
    child.kill()
    child.wait()
    for _ in range(100):
        if not [line for line in leftovers(quick.root) if line.startswith("I11")]:
            break
        time.sleep(0.05)
    else:
        raise AssertionError(leftovers(quick.root))
    (quick.root / "MODE").unlink()
    converges(quick, undisturbed, progress(quick.root))


def test_a_killed_worker_is_errored_and_never_judged(
    quick: Quick, undisturbed: dict[str, Any]
) -> None:
    quick.write("MODE", "hang")
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"], cwd=quick.root, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env=quick.environment(), start_new_session=True,
    )  # fmt: skip
    worker = quick.wait_for_worker()
    os.killpg(os.getpgid(worker), signal.SIGKILL)
    _out, told = child.communicate(timeout=30)
    assert child.returncode == 1
    assert "the experiment died by signal 9" in told
    last = entries(quick.root)[-1]
    assert (last.kind, last.attempt) == ("ERRORED", "1")
    assert not any(fact.startswith("gate ") for fact in last.facts)
    assert violations(quick.root) == []
    (quick.root / "MODE").unlink()
    quick.run("run", "--next")
    assert shape(quick.root)["results"] == undisturbed["results"]
