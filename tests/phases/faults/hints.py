"""A user who does what the runner's hints say: the commands are copied into a shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from invariants import exit_violations, violations
from quick import Quick

REFUSALS = (2, 3, 7)
"""Exit codes after which a hint has to be followed."""


def command_of(stderr: str) -> str:
    """Return the command of the last hint: its first text in backticks, or all of it."""
    _, _, hint = stderr.rpartition("next: ")
    quoted = re.search(r"`([^`]+)`", hint)
    if quoted:
        return quoted[1]
    return hint.strip()


def follow(root: Path, stderr: str) -> Path:
    """Do what a hint says, in a shell without an editor; return the folder where the user is then.

    A hint may go to another folder.
    """
    command = command_of(stderr)
    process = subprocess.run(
        ["sh", "-c", f"{command}\nstatus=$?; pwd; exit $status"],
        cwd=root,
        env={**os.environ, "GIT_EDITOR": "false", "GIT_TERMINAL_PROMPT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = f"{stderr}\n$ {command}\n{process.stdout}{process.stderr}"
    assert process.returncode == 0, printed
    return Path(process.stdout.splitlines()[-1])


def go_on(quick: Quick, *, hints: int | None = 1, without_artifacts: bool = False) -> Quick:
    """Run, follow exactly so many hints (None: at most two), and check that the record is whole.

    Return the repository where the user is then.
    """
    process = quick.run("run", "--next", code=None)
    for number in range(2 if hints is None else hints):
        if hints is None and process.returncode not in REFUSALS:
            break
        assert process.returncode in REFUSALS, f"hint {number}: {process.stdout}{process.stderr}"
        assert exit_violations(process) == []
        quick = quick.at(follow(quick.root, process.stderr))
        process = quick.run("run", "--next", code=None)
    assert process.returncode in (0, 4), process.stderr
    problems = violations(quick.root)
    if without_artifacts:  # the user deleted them
        problems = [problem for problem in problems if ": artifacts/" not in problem]
    assert problems == []
    quick.assert_audit_is_clean()
    return quick
