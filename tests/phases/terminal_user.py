"""A person at a real pseudo-terminal, played by pexpect."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect

PROMPT = r"type exactly:  ([^\r\n]+)"


def at_terminal(root: Path, *arguments: str, answer: Callable[[str], str | None], early: str = "",
                env: dict[str, str] | None = None) -> tuple[int, str]:  # fmt: skip
    """Runs `python -m phases …` at a terminal of its own; `answer` gets the phrase asked for and gives what is typed.

    `early` is typed before the question; an answer of None sends end of input. Returns exit code and screen.
    """
    child = pexpect.spawn(
        sys.executable, ["-m", "phases", *arguments], cwd=str(root), encoding="utf-8", timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
    )  # fmt: skip
    screen = ""
    if early:
        child.send(early)
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
    """What a person types who agrees."""
    return phrase
