"""Ask the human at the controlling terminal, and nothing else.

Standard input is not read: a pipe, a here-document or a loop can answer there. `/dev/tty` is the
terminal of the session; what was typed ahead is discarded first, and the code to repeat is drawn
after that. What this does not prove: a process of the same user that makes a pseudo-terminal of its
own can answer too.
"""

from __future__ import annotations

import os
import secrets
import sys
import termios
import unicodedata

from phases.errors import WaitingForHumanError

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
WITHHOLD = "PHASES_UNATTENDED"
"""An environment variable that can only withhold: set to anything, no question is asked."""


def challenge(summary: str, phrase: str) -> str:
    """Show the summary, ask once for the phrase and a fresh code; return the terminal's name.

    Raises:
        WaitingForHumanError: no controlling terminal, end of input, or another answer.
    """
    if os.environ.get(WITHHOLD):
        raise WaitingForHumanError(
            f"{WITHHOLD} is set: no question is asked, nothing was recorded",
            hint="a human types this command at a terminal, without that variable",
        )
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise WaitingForHumanError(
            "no controlling terminal: a human has to type this; nothing was recorded",
            hint="type the command at a terminal; standard input is not read",
        ) from None
    try:
        # A background job would be stopped by its first read, or read what the shell should get.
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            raise WaitingForHumanError(
                "not in the terminal's foreground; nothing was recorded",
                hint="bring the command to the foreground (fg)",
            )
        termios.tcflush(descriptor, termios.TCIFLUSH)
        expected = f"{phrase} {draw_code()}"
        _write(descriptor, f"{summary}\n\nTo go on, type exactly:  {expected}\n> ")
        answer = _read_line(descriptor)
        if not _is_answer(answer, expected):
            raise WaitingForHumanError(
                f"the answer was not {expected!r}; nothing was recorded",
                hint="read the summary and type the command again",
            )
        return _terminal_name()
    finally:
        os.close(descriptor)


def draw_code() -> str:
    """Return four random characters that are not easily mistaken for each other."""
    return "".join(secrets.choice(_LETTERS) for _ in range(4))


def _terminal_name() -> str:
    """Return the terminal behind `/dev/tty`, such as `/dev/pts/3`."""
    import psutil

    name: str | None = psutil.Process().terminal()
    return name or "/dev/tty"


def _is_answer(answer: bytes, expected: str) -> bool:
    """Return whether an answer is what was asked for, as it is or as this terminal shows it."""
    encoding = _terminal_encoding()
    shown = expected.encode(encoding, "backslashreplace").decode(encoding)
    texts = [answer.decode(each, "replace") for each in ("utf-8", encoding)]
    # Some keyboards and most file managers of macOS give the parts of a composed character.
    words = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    return expected in words or shown in words


def _terminal_encoding() -> str:
    # stderr is what waits with the user; a terminal in UTF-8 mode still has its own encoding there.
    return sys.stderr.encoding or "utf-8"


def _write(descriptor: int, text: str) -> None:
    data = text.encode(_terminal_encoding(), "backslashreplace")
    while data:
        data = data[os.write(descriptor, data) :]


def _read_line(descriptor: int) -> bytes:
    """Return one line in the terminal's own line mode; empty at end of input."""
    data = b""
    while not data.endswith(b"\n") and len(data) < 4096:
        chunk = os.read(descriptor, 1024)
        if not chunk:
            break
        data += chunk
    return data
