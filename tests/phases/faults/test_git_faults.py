"""Faults inside git: killed at a system call, an I/O error, a full disk; with the runner alive and dead."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from converging import converges, git_shim, strace, wait_for_rest
from invariants import entries, progress
from quick import Quick

needs_strace = pytest.mark.skipif(
    not shutil.which("strace")
    or subprocess.run(["strace", "-qq", "true"], capture_output=True, check=False).returncode,
    reason="strace is not here, or may not trace",
)
CALLS = {"link": range(1, 4), "rename": range(1, 6), "unlink": range(1, 4)}
KILLS = [(call, number) for call, numbers in CALLS.items() for number in numbers]
QUICKLY = {("link", 1), ("rename", 1), ("rename", 3)}


def soaked(cases: list[Any], quickly: set[Any]) -> list[Any]:
    return [
        pytest.param(*case, marks=() if case in quickly else pytest.mark.soak) for case in cases
    ]


@needs_strace
@pytest.mark.parametrize(("call", "number"), soaked(KILLS, QUICKLY))
def test_runner_and_git_killed_inside_a_commit(
    call: str, number: int, quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """A commit that makes fewer such calls ends by itself after its runner died."""
    action = f"kill -9 $PPID; {strace(f'{call}:signal=SIGKILL:when={number}')}"
    quick.run("run", "--next", code=-9, env=git_shim(tmp_path / "bin", action))
    wait_for_rest(quick)
    converges(quick, undisturbed, progress(quick.root))


@needs_strace
def test_git_alone_killed_leaves_no_lock(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    env = git_shim(tmp_path / "bin", strace("rename:signal=SIGKILL:when=2"))
    failed = quick.run("run", "--next", code=7, env=env)
    assert "git commit failed" in failed.stderr
    assert list((quick.root / ".git").rglob("*.lock")) == []
    converges(quick, undisturbed, progress(quick.root))


FAULTS = [("write", "EIO"), ("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "EIO"), ("rename", "ENOSPC"),
          ("openat", "EMFILE"), ("mkdir", "EROFS")]  # fmt: skip


@needs_strace
@pytest.mark.parametrize(("call", "error"), soaked(FAULTS, {("fsync", "EIO"), ("write", "ENOSPC")}))
def test_an_error_inside_git_moves_nothing(
    call: str, error: str, quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    head = quick.git("rev-parse", "HEAD")
    when = "20+" if call == "openat" else "1+"
    env = git_shim(tmp_path / "bin", strace(f"{call}:error={error}:when={when}"))
    failed = quick.run("run", "--next", code=None, env=env)
    if call == "mkdir" and failed.returncode == 0:
        return  # every folder that this commit needed was there
    assert failed.returncode == 7, failed.stderr
    assert "git commit failed" in failed.stderr
    assert "next: " in failed.stderr
    assert quick.git("rev-parse", "HEAD") == head
    converges(quick, undisturbed, progress(quick.root))


@needs_strace
def test_a_failing_link_is_gone_around_by_git(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    quick.run("run", "--next", env=git_shim(tmp_path / "bin", strace("link:error=EIO:when=1+")))
    converges(quick, undisturbed, progress(quick.root), codes=(4,))


def test_a_git_that_outlives_its_runner_is_waited_for(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    env = quick.environment(**git_shim(tmp_path / "bin", "kill -9 $PPID; sleep 4"))
    command = [sys.executable, "-m", "phases", "run", "--next"]
    nowhere = subprocess.DEVNULL  # a pipe would wait for git too
    assert (
        subprocess.run(
            command, cwd=quick.root, env=env, stdout=nowhere, stderr=nowhere, check=False
        ).returncode
        == -9
    )
    begin = time.monotonic()
    busy = quick.run("run", "--next", code=6)
    assert time.monotonic() - begin < 3
    assert "another runner is at work here: pid" in busy.stderr
    converges(quick, undisturbed, progress(quick.root))
    kinds = [block.kind for block in entries(quick.root)]
    assert kinds.count("VERIFIED") == 1


def test_a_lock_that_was_there_before_is_not_ours(quick: Quick, tmp_path: Path) -> None:
    lock = quick.root / ".git/index.lock"
    lock.write_text("of somebody else")
    failed = quick.run("run", "--next", code=7)
    assert "index.lock" in failed.stderr
    quick.run("run", "--next", code=7)
    assert lock.read_text() == "of somebody else"


def test_a_killed_runners_lock_stays_while_a_git_is_at_work(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    quick.run(
        "run",
        "--next",
        code=-9,
        env=git_shim(tmp_path / "bin", "kill -9 $PPID; : > .git/index.lock; exit 1"),
    )
    living = subprocess.Popen(["git", "cat-file", "--batch"], cwd=quick.root, stdin=subprocess.PIPE)
    try:
        refused = quick.run("run", "--next", code=7)
        assert f"pid {living.pid} (git cat-file --batch)" in refused.stderr
        assert (quick.root / ".git/index.lock").exists()
    finally:
        living.communicate()
    converges(quick, undisturbed, progress(quick.root))
