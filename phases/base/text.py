"""Text that came from elsewhere, made safe to show, to log and to commit.

A worker's output may carry terminal escapes, line breaks that forge a ledger entry, or
bidirectional controls that make a line read differently than it is stored. Everything that
crosses from a worker into a view or the ledger passes through `printable`. What the plan names is
not escaped but refused: `line_problem` says why.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: controls, formats (bidi among them), surrogates, private use, unassigned,
separators."""

_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Fillers, joiners and variation selectors: letters and marks by category, and yet not seen."""
_CATEGORY_NAMES = {"Cc": "control character", "Co": "private use", "Cn": "unassigned"}
_BLANKS = re.compile("^ | $|  ")


def printable(text: str, limit: int = 300) -> str:
    """Return one printable line of at most `limit` characters.

    Controls become `\\xNN`; longer text ends in `…`.
    """
    # One character more than the limit shows whether the text is longer; a flood is not read.
    line = text[: limit + 1]
    # Most lines are: Python's `isprintable` is at least as strict, and fast.
    if not line.isprintable():
        line = "".join(map(_escape, line))
    if len(line) <= limit:
        return line
    return line[: limit - 1] + "…"


def is_printable(text: str) -> bool:
    """Return whether the text is one line that `printable` keeps as it is, whatever its length."""
    return text.isprintable() or all(unicodedata.category(char) not in _UNSAFE for char in text)


def line_problem(text: str) -> str:
    """Return why a text cannot be a name; empty if it can.

    A name is one printable line that a human can compare with another and type: without characters
    that are not seen, without blanks at its ends, without two in a row, in Unicode's form NFC.

    Returns:
        The character, its position from 1 on, and what is expected in its place:
        `U+200B ZERO WIDTH SPACE at position 4; expected no invisible character`.
    """
    # 1. What is not seen. A blank that is not U+0020 looks like one, and is not typed.
    for position, char in enumerate(text, start=1):
        if char == " " or (char.isascii() and char.isprintable()):
            continue
        category = unicodedata.category(char)
        if category in _UNSAFE or _INVISIBLE.match(char):
            return f"{_at(char, position)}; expected no invisible character"
        if category == "Zs":
            return f"{_at(char, position)}; expected no blank but U+0020"

    # 2. Blanks that a reader would overlook.
    blank = _BLANKS.search(text)
    if blank is not None:
        position = blank.end()
        return f"{_at(' ', position)}; expected no blank at the ends and no two in a row"
    if not text:
        return "expected one line of text"

    # 3. One spelling: what a keyboard gives must equal what is stored.
    if unicodedata.is_normalized("NFC", text):
        return ""
    position = next(
        end for end in range(1, len(text) + 1) if not unicodedata.is_normalized("NFC", text[:end])
    )
    return f"{_at(text[position - 1], position)}; expected the Unicode form NFC"


def _at(char: str, position: int) -> str:
    """Return `U+200B ZERO WIDTH SPACE at position 4`."""
    name = unicodedata.name(char, _CATEGORY_NAMES.get(unicodedata.category(char), "no name"))
    return f"U+{ord(char):04X} {name} at position {position}"


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Return `1 error`, `4 errors`; `plural` is needed where that is not noun + s."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {plural or f'{noun}s'}"


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
