"""What every fault test checks at its end: the next run converges, no invariant is violated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from by_hand import verify_by_hand
from invariants import (
    exit_violations,
    leftovers,
    processes,
    shape,
    untouched,
    user_violations,
    violations,
)
from quick import Quick

SHIM = """#!/bin/sh
# Comes before git on PATH: once, at a commit, does what the test asks for.
case " $* " in
*" commit --only "*)
    if mkdir "{marker}" 2>/dev/null; then
        {action}
    fi ;;
esac
exec {git} "$@"
"""


def failpoint_env(name: str, action: str = "kill", count: int = 1) -> dict[str, str]:
    """Return the environment in which the runner dies or fails at a failpoint's N-th hit."""
    return {"PHASES_FAILPOINT": f"{name}:{action}:{count}"}


def git_shim(folder: Path, action: str) -> dict[str, str]:
    """Return a PATH whose git does `action` before the first commit.

    The action is shell code; its $PPID is the runner.
    """
    folder.mkdir()
    shim = folder / "git"
    shim.write_text(SHIM.format(marker=folder / "marker", action=action, git=shutil.which("git")))
    shim.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def strace(*injections: str) -> str:
    """Return the shell words that run git with these faults injected into its system calls."""
    calls = ",".join(sorted({item.split(":")[0] for item in injections}))
    words = " ".join(f"-e inject={item}" for item in injections)
    return f'exec strace -f -qq -o /dev/null -e trace={calls} {words} git "$@"'


def run_until_free(quick: Quick, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """Do `run --next`, again while a git process of the killed runner holds its lock."""
    end = time.monotonic() + seconds
    while True:
        process = quick.run("run", "--next", code=None)
        if process.returncode != 6 or time.monotonic() >= end:
            return process
        time.sleep(0.1)


def wait_for_rest(quick: Quick, seconds: float = 20) -> None:
    """Wait until no process runs in the repository: while git writes, no state is a final one."""
    end = time.monotonic() + seconds
    busy = list(processes(quick.root, None))
    while busy and time.monotonic() < end:
        time.sleep(0.05)
        busy = list(processes(quick.root, None))
    assert not busy, busy


def converges(
    quick: Quick, end: dict[str, Any], before: bytes = b"", codes: tuple[int, ...] = (0, 4)
) -> None:
    """Check that the next run ends as an undisturbed one, and the invariants before and after it.

    Args:
        quick: the repository after the fault.
        end: the shape of an undisturbed run.
        before: progress.txt as it was acknowledged before.
        codes: expected exit codes of the next run.
    """
    users = untouched(quick.root)
    assert violations(quick.root, before) == []
    process = run_until_free(quick)
    assert process.returncode in codes, process.stderr
    assert exit_violations(process) == []
    assert violations(quick.root, before) == []
    assert leftovers(quick.root, quick.temporary) == []
    assert user_violations(quick.root, users) == []
    assert verify_by_hand(quick.root).faults == ()
    assert shape(quick.root) == end


def run_traced(quick: Quick, injection: str) -> subprocess.CompletedProcess[str]:
    """Run with a fault in the runner's own system calls; its children are not traced."""
    call = injection.split(":", maxsplit=1)[0]
    strace = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={injection}",
    ]
    return run_behind(quick, [*strace, sys.executable, "-m", "phases", "run", "--next"])


def run_behind(quick: Quick, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that starts the runner, in a session of its own."""
    return subprocess.run(
        command,
        cwd=quick.root,
        env=quick.environment(),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
