"""Several runners at once: one proceeds, the others end at once and name it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from invariants import entries, leftovers, violations
from quick import Quick, plan

WITHIN_S = 1.0


def start(quick: Quick, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=folder,
        env=quick.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("count", [2, 8])
def test_of_several_runners_one_proceeds(count: int, quick: Quick) -> None:
    quick.set_mode("slow")
    children = [start(quick, quick.root) for _ in range(count)]
    errors = [child.communicate(timeout=120)[1] for child in children]
    codes = [child.returncode for child in children]
    # 4: it came when the phase already waited for its approval.
    assert codes.count(0) == 1, (codes, errors)
    assert set(codes) <= {0, 4, 6}
    assert [block.kind for block in entries(quick.root)] == [
        "GENESIS",
        "LOCKED",
        "STARTED",
        "VERIFIED",
        "HALTED",
    ]
    assert violations(quick.root) == []
    assert leftovers(quick.root, quick.temporary) == []


def test_the_others_name_the_runner_within_a_second(quick: Quick) -> None:
    quick.set_mode("hang")
    first = start(quick, quick.root)
    try:
        quick.wait_for_worker()
        quick.run("status")  # fills the file cache
        begin = time.monotonic()
        refused = quick.run("run", "--next", code=6)
        seconds = time.monotonic() - begin
        assert f"pid {first.pid} on {socket.gethostname()}" in refused.stderr
        assert "run --next" in refused.stderr
        assert "next: wait for it" in refused.stderr
        # Most of it is Python's own start, which takes longer on a busy machine.
        assert seconds < WITHIN_S or seconds < 3 * startup_seconds(quick)
    finally:
        first.terminate()
        assert first.communicate(timeout=60) and first.returncode == 130


def startup_seconds(quick: Quick) -> float:
    """Return how long a command that only reads takes on this machine now."""
    begin = time.monotonic()
    quick.run("status")
    return time.monotonic() - begin


def test_two_worktrees_of_one_repository_share_the_lock(quick: Quick, tmp_path: Path) -> None:
    other = tmp_path / "other"
    quick.git("worktree", "add", "-q", "-b", "side", str(other))
    quick.set_mode("hang")
    first = start(quick, quick.root)
    try:
        quick.wait_for_worker()
        second = start(quick, other)
        stderr = second.communicate(timeout=30)[1]
        assert second.returncode == 6, stderr
        assert f"pid {first.pid} on " in stderr
    finally:
        first.terminate()
        first.communicate(timeout=60)
    assert not (other / "progress.txt").exists()


@pytest.mark.soak
def test_two_hundred_races(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick", plan(features=1, attempts=3))
    for number in range(200):
        race = quick.copy(tmp_path / f"race-{number}")
        children = [start(race, race.root) for _ in range(2 + number % 7)]
        for child in children:
            child.communicate(timeout=120)
        assert [child.returncode for child in children].count(0) == 1
        assert [block.kind for block in entries(race.root)].count("VERIFIED") == 1
        assert violations(race.root) == []
