"""Strict JSON: the one door through which a file written by somebody else becomes Python values.

Python's own `json` takes duplicate keys (the last wins, so that a reader and a checker can see two different
documents), NaN, 1e999 (as infinity), and nesting that ends in a RecursionError. All of that is refused here, with
the place in the document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 10_000_000
MAX_DEPTH = 64  # nested arrays and objects
MAX_INTEGER = 2**64 - 1  # absolute value; what other readers of JSON can still hold
MAX_PROBLEMS = 20  # listed in one error

# A string runs to its closing quote or, unterminated, to the end of the text: so every character is looked at once.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class StrictJsonError(ValueError):
    """The text is not strict JSON; `problems` are sentences that begin with the place in the document."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class _Refused:
    """Stands where a number was that cannot be taken; the walk over the document knows its place."""

    why: str


class _Members(list[tuple[str, Any]]):
    """An object's members in their order, duplicates included, until the walk makes a dict of them."""


def loads(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Decode one JSON document (UTF-8 without a byte order mark) into dict, list, str, int, float, bool, None.

    Raises:
        StrictJsonError: too large, not UTF-8, nested too deep, not JSON, or it holds a duplicate key, a number
            that is not finite, an integer beyond 64 bits or half a surrogate pair. Nothing else is raised.
    """
    if len(data) > max_bytes:
        raise StrictJsonError([f"(file): {len(data)} bytes; at most {max_bytes} are read"])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError([f"byte {error.start}: not UTF-8 ({error.reason})"]) from None
    _refuse_depth(text, max_depth)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_Members,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=lambda name: _Refused(f"{name} is not a number of JSON"),
        )
        problems: list[str] = []
        value = _settle(document, "", problems)
    except json.JSONDecodeError as error:
        raise StrictJsonError([f"line {error.lineno}, column {error.colno}: {error.msg}"]) from None
    except RecursionError:
        raise StrictJsonError(
            [f"(file): nested too deep for this process (limit asked for: {max_depth})"]
        ) from None
    if problems:
        more = (
            [f"… and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        )
        raise StrictJsonError(problems[:MAX_PROBLEMS] + more)
    return value


def _refuse_depth(text: str, max_depth: int) -> None:
    """Count open brackets outside strings, before a parser recurses into them."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                line = text.count("\n", 0, token.start()) + 1
                column = token.start() - text.rfind("\n", 0, token.start())
                raise StrictJsonError(
                    [f"line {line}, column {column}: nested deeper than {max_depth}"]
                )
        elif first in "]}":
            depth -= 1


def _integer(digits: str) -> int | _Refused:
    # The length is looked at first: int() of millions of digits is slow, and beyond 4300 it raises ValueError.
    if len(digits) <= 21 and abs(number := int(digits)) <= MAX_INTEGER:
        return number
    return _Refused(
        f"an integer of {len(digits.lstrip('-'))} digits ({digits[:12]}…); at most 64 bits are read"
    )


def _float(digits: str) -> float | _Refused:
    number = float(digits)
    return (
        number
        if math.isfinite(number)
        else _Refused(f"{digits[:24]} is too large for a 64-bit float")
    )


def _settle(node: Any, place: str, problems: list[str]) -> Any:
    """Turn members into dicts and collect every problem with its place."""
    if isinstance(node, _Members):
        return dict(_settle_members(node, place, problems))
    if isinstance(node, list):
        return [_settle(item, f"{place}[{index}]", problems) for index, item in enumerate(node)]
    if isinstance(node, _Refused):
        problems.append(f"{place or '(document)'}: {node.why}")
    elif isinstance(node, str) and _half_surrogate(node):
        problems.append(f"{place or '(document)'}: half a surrogate pair in a string")
    return node


def _settle_members(
    members: _Members, place: str, problems: list[str]
) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for key, value in members:
        here = member_place(place, key)
        if _half_surrogate(key):
            problems.append(f"{here}: half a surrogate pair in a key")
        if key in seen:
            problems.append(f"{here}: the key stands twice in one object")
        seen.add(key)
        yield key, _settle(value, here, problems)


def member_place(place: str, key: str) -> str:
    """The place of `key` inside the object at `place`: `phases[1].gate`, or `a["b c"]` for a key that is no name."""
    if _PLAIN_KEY.fullmatch(key):
        return f"{place}.{key}" if place else key
    shown = json.dumps(key if len(key) <= 60 else key[:60] + "…")
    return f"{place}[{shown}]"


def _half_surrogate(text: str) -> bool:
    """JSON can spell "\\ud800" alone; such a string can be written to no UTF-8 file later."""
    return (
        any("\ud800" <= character <= "\udfff" for character in text)
        if not text.isascii()
        else False
    )
