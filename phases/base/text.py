"""Text that came from elsewhere, made safe to show, to log and to commit.

A worker's output may carry terminal escapes, line breaks that forge a ledger entry, or
bidirectional controls that make a line read differently than it is stored. Everything that
crosses from a worker into a view or the ledger passes through `printable`.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: controls, formats (bidi among them), surrogates, private use, unassigned,
separators."""


def printable(text: str, limit: int = 300) -> str:
    """Return one printable line of at most `limit` characters.

    Controls become `\\xNN`; longer text ends in `…`.
    """
    # One character more than the limit shows whether the text is longer; a flood is not read.
    line = "".join(_escape(char) for char in text[: limit + 1])
    if len(line) <= limit:
        return line
    return line[: limit - 1] + "…"


def is_printable(text: str) -> bool:
    """Return whether the text is one line that `printable` keeps as it is, whatever its length."""
    return all(unicodedata.category(char) not in _UNSAFE for char in text)


def format_count(number: int, noun: str) -> str:
    """Return `1 error`, `4 errors`."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}s"


def utc_now() -> str:
    """Return the time as an entry of the ledger states it: UTC, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _UNSAFE:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"
