"""Text that came from somewhere else, made safe to show, to log and to commit.

A worker's words may carry terminal escapes, line breaks that forge a ledger entry, or bidirectional controls that
make a line read differently than it is stored. Everything that crosses from a worker into a view or the ledger
passes through `printable`.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of controls, formats (bidi among them), surrogates, private use, unassigned, separators."""


def printable(text: str, limit: int = 300) -> str:
    """One printable line of at most `limit` characters: controls become `\\xNN`, longer text ends in `…`."""
    escaped = "".join(_escape(char) for char in text[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def is_printable(text: str) -> bool:
    """Whether the text is one line that `printable` would leave as it is, whatever its length."""
    return all(unicodedata.category(char) not in _UNSAFE for char in text)


def _escape(char: str) -> str:
    if unicodedata.category(char) not in _UNSAFE:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def utc_now() -> str:
    """The present moment as an entry states it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
