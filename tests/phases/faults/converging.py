"""What every fault test asks at its end: the next run comes to the undisturbed end, and all invariants hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

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
# Stands before git on PATH: once, at a commit, does what the test wants.
case " $* " in
*" commit --only "*)
    if mkdir "{marker}" 2>/dev/null; then
        {action}
    fi ;;
esac
exec {git} "$@"
"""


def fault(place: str, how: str = "kill", count: int = 1) -> dict[str, str]:
    """The environment that lets the runner die or fail."""
    return {"PHASES_FAILPOINT": f"{place}:{how}:{count}"}


def git_shim(folder: Path, action: str) -> dict[str, str]:
    """A PATH whose git does `action` (shell) before the first commit; $PPID is the runner there."""
    import os
    import shutil

    folder.mkdir()
    shim = folder / "git"
    shim.write_text(SHIM.format(marker=folder / "done", action=action, git=shutil.which("git")))
    shim.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def strace(*injections: str) -> str:
    """The shell words that run git with these faults injected into its system calls."""
    calls = ",".join(sorted({item.split(":")[0] for item in injections}))
    words = " ".join(f"-e inject={item}" for item in injections)
    return f'exec strace -f -qq -o /dev/null -e trace={calls} {words} git "$@"'


def run_until_free(quick: Quick, seconds: float = 20) -> Any:
    """`run --next`, again while a git that the killed runner had started still holds its lock."""
    end = time.monotonic() + seconds
    while (
        done := quick.run("run", "--next", code=None)
    ).returncode == 6 and time.monotonic() < end:
        time.sleep(0.1)
    return done


def wait_for_rest(quick: Quick, seconds: float = 20) -> None:
    """Until no process is at work in the repository: what is read while a git still writes is neither old nor new."""
    end = time.monotonic() + seconds
    while (busy := list(processes(quick.root, None))) and time.monotonic() < end:
        time.sleep(0.05)
    assert not busy, busy


def converges(
    quick: Quick, end: dict[str, Any], before: bytes = b"", codes: tuple[int, ...] = (0, 4)
) -> None:
    """The next run ends as an undisturbed one, and every invariant holds before and after it."""
    mine = untouched(quick.root)
    assert violations(quick.root, before) == []
    done = run_until_free(quick)
    assert done.returncode in codes, done.stderr
    assert exit_violations(done) == []
    assert violations(quick.root, before) == []
    assert not (left := leftovers(quick.root, quick.temporary)), left
    assert user_violations(quick.root, mine) == []
    assert shape(quick.root) == end, shape(quick.root)
