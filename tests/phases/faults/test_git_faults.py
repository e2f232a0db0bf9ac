"""Faults inside git: killed at a system call, I/O errors, a full disk; runner alive or dead."""

from __future__ import annotations

import itertools
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

from tests.soak import mark_soak

needs_strace = pytest.mark.skipif(
    not shutil.which("strace")
    or subprocess.run(["strace", "-qq", "true"], capture_output=True, check=False).returncode,
    reason="strace is not here, or may not trace",
)
KILL_CASES = [
    *itertools.product(["link"], range(1, 4)),
    *itertools.product(["rename"], range(1, 6)),
    *itertools.product(["unlink"], range(1, 4)),
]
SHORT_KILL_CASES = {("link", 1), ("rename", 3)}


@needs_strace
@pytest.mark.parametrize(("call", "number"), mark_soak(KILL_CASES, short=SHORT_KILL_CASES))
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
    result = quick.run("run", "--next", code=7, env=env)
    assert "git commit failed" in result.stderr
    assert list((quick.root / ".git").rglob("*.lock")) == []
    converges(quick, undisturbed, progress(quick.root))


ERRORS = [
    ("write", "EIO"),
    ("write", "ENOSPC"),
    ("fsync", "EIO"),
    ("rename", "EIO"),
    ("rename", "ENOSPC"),
    ("openat", "EMFILE"),
    ("mkdir", "EROFS"),
]
SHORT_ERRORS = {("write", "ENOSPC")}


@needs_strace
@pytest.mark.parametrize(("call", "error"), mark_soak(ERRORS, short=SHORT_ERRORS))
def test_an_error_inside_git_moves_nothing(
    call: str, error: str, quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    head = quick.git("rev-parse", "HEAD")
    when = "1+"
    if call == "openat":
        when = "20+"  # git opens its own libraries first
    env = git_shim(tmp_path / "bin", strace(f"{call}:error={error}:when={when}"))
    result = quick.run("run", "--next", code=None, env=env)
    if call == "mkdir" and result.returncode == 0:
        return  # every folder that this commit needed existed
    assert result.returncode == 7, result.stderr
    assert "git commit failed" in result.stderr
    assert "next: " in result.stderr
    assert quick.git("rev-parse", "HEAD") == head
    converges(quick, undisturbed, progress(quick.root))


@needs_strace
def test_git_works_around_a_failing_link(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    quick.run("run", "--next", env=git_shim(tmp_path / "bin", strace("link:error=EIO:when=1+")))
    converges(quick, undisturbed, progress(quick.root), codes=(4,))


def test_a_git_process_that_outlives_its_runner_is_waited_for(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    env = quick.environment(**git_shim(tmp_path / "bin", "kill -9 $PPID; sleep 4"))
    killed = subprocess.run(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=quick.root,
        env=env,
        stdout=subprocess.DEVNULL,  # a pipe would wait for git too
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert killed.returncode == -9
    begin = time.monotonic()
    result = quick.run("run", "--next", code=6)
    assert time.monotonic() - begin < 3
    assert "another runner is at work here: pid" in result.stderr
    converges(quick, undisturbed, progress(quick.root))
    kinds = [block.kind for block in entries(quick.root)]
    assert kinds.count("VERIFIED") == 1


def test_a_lock_that_existed_before_is_not_the_runners(quick: Quick, tmp_path: Path) -> None:
    lock = quick.root / ".git/index.lock"
    lock.write_text("the user's")
    result = quick.run("run", "--next", code=7)
    assert "index.lock" in result.stderr
    quick.run("run", "--next", code=7)
    assert lock.read_text() == "the user's"


def test_a_killed_runners_lock_stays_while_a_git_process_runs(
    quick: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    action = "kill -9 $PPID; : > .git/index.lock; exit 1"
    quick.run("run", "--next", code=-9, env=git_shim(tmp_path / "bin", action))
    process = subprocess.Popen(
        ["git", "cat-file", "--batch"], cwd=quick.root, stdin=subprocess.PIPE
    )
    try:
        result = quick.run("run", "--next", code=7)
        assert f"pid {process.pid} (git cat-file --batch)" in result.stderr
        assert (quick.root / ".git/index.lock").exists()
    finally:
        process.communicate()
    converges(quick, undisturbed, progress(quick.root))
