"""A user at a real pseudo-terminal, played by pexpect."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
from toy import environment

PROMPT = r"type exactly:  ([^\r\n]+)\r?\n> "


def at_terminal(
    root: Path,
    *arguments: str,
    answer: Callable[[str], str | None],
    early: str = "",
    env: dict[str, str] | None = None,
    encoding: str = "utf-8",
    timeout_s: float = 60,
) -> tuple[int | None, str]:
    """Run `python -m phases …` at a terminal of its own; return exit code and screen.

    The exit code is None where the command was killed.

    Args:
        root: the repository.
        arguments: the words after `python -m phases`.
        answer: gets the phrase that is asked for and returns what is typed; None sends end of
            input.
        early: typed before the question.
        env: further environment variables.
        encoding: what the terminal shows and sends.
        timeout_s: how long the question, and then the end, may take.
    """
    child = pexpect.spawn(
        sys.executable,
        ["-m", "phases", *arguments],
        cwd=str(root),
        encoding=encoding,
        timeout=timeout_s,
        env={**environment(), **(env or {})},
    )
    if early:
        child.send(early)
    screen = ""
    # An error ends the command before it asks.
    if child.expect([PROMPT, pexpect.EOF]) == 0:
        screen += child.before + child.after
        typed = answer(child.match[1])
        if typed is None:
            child.sendeof()
        else:
            child.sendline(typed)
        child.expect(pexpect.EOF)
    screen += child.before
    child.close()
    return child.exitstatus, screen


def as_asked(phrase: str) -> str:
    """Return what an approver types who agrees."""
    return phrase
