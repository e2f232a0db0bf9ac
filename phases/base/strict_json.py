"""Strict JSON: the only way in which a file that others wrote becomes Python values.

Python's own `json` accepts duplicate keys (the last wins, so that a reader and a checker can see
two different documents), NaN, 1e999 (as infinity), and nesting that ends in a RecursionError. All
of that is refused here, with its location in the document.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 10_000_000
MAX_DEPTH = 64  # nested arrays and objects
MAX_INTEGER = 2**64 - 1  # absolute value; what other readers of JSON can still represent
MAX_INTEGER_DIGITS = 21  # with its sign; enough for MAX_INTEGER
MAX_PROBLEMS = 20  # listed in one error
MAX_KEY = 60  # characters of a key in a location

# A string runs to its closing quote or, unterminated, to the end of the text: so every character is
# read once.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class StrictJsonError(ValueError):
    """The text is not strict JSON; each of `problems` begins with its location."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


def loads(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Decode one JSON document (UTF-8 without a byte order mark) into Python's own types.

    Raises:
        StrictJsonError: too large, not UTF-8, nested too deep, not JSON, or it has a duplicate
            key, a number that is not finite, an integer beyond 64 bits or a lone surrogate.
            Nothing else is raised.
    """
    # 1. Limits first: nothing is parsed that could cost much.
    if len(data) > max_bytes:
        raise StrictJsonError([f"(file): {len(data)} bytes; at most {max_bytes} are read"])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError([f"byte {error.start}: not UTF-8 ({error.reason})"]) from None
    _check_depth(text, max_depth)

    # 2. Parse. What is no value becomes a _NumberProblem; the walk knows its location.
    problems: list[str] = []
    try:
        document = json.loads(
            text,
            object_pairs_hook=_Members,
            parse_int=_parse_integer,
            parse_float=_parse_float,
            parse_constant=lambda name: _NumberProblem(f"{name} is not a number of JSON"),
        )
        value = _convert(document, "", problems)
    except json.JSONDecodeError as error:
        raise StrictJsonError([f"line {error.lineno}, column {error.colno}: {error.msg}"]) from None
    except RecursionError:
        message = f"(file): nested too deep for this process; the limit was {max_depth}"
        raise StrictJsonError([message]) from None

    # 3. All problems at once.
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"… and {len(problems) - MAX_PROBLEMS} more"]
    if problems:
        raise StrictJsonError(problems)
    return value


@dataclass(frozen=True)
class _NumberProblem:
    """Takes the position of a number that is refused, until the walk reports it."""

    message: str


class _Members(list[tuple[str, Any]]):
    """An object's members in their order, duplicates included, until the walk makes it a dict."""


def _check_depth(text: str, max_depth: int) -> None:
    """Count open brackets outside strings, before a parser recurses into them."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                line = text.count("\n", 0, token.start()) + 1
                column = token.start() - text.rfind("\n", 0, token.start())
                message = f"line {line}, column {column}: nested deeper than {max_depth}"
                raise StrictJsonError([message])
        elif first in "]}":
            depth -= 1


def _parse_integer(digits: str) -> int | _NumberProblem:
    # Length first: int() of millions of digits is slow, and beyond 4300 it raises ValueError.
    if len(digits) <= MAX_INTEGER_DIGITS:
        number = int(digits)
        if abs(number) <= MAX_INTEGER:
            return number
    count = len(digits.lstrip("-"))
    return _NumberProblem(
        f"an integer of {count} digits ({digits[:12]}…); at most 64 bits are read"
    )


def _parse_float(digits: str) -> float | _NumberProblem:
    number = float(digits)
    if math.isfinite(number):
        return number
    return _NumberProblem(f"{digits[:24]} is too large for a 64-bit float")


def _convert(node: Any, location: str, problems: list[str]) -> Any:
    """Turn members into dicts and collect every problem with its location."""
    if isinstance(node, _Members):
        return _convert_members(node, location, problems)
    if isinstance(node, list):
        return [_convert(item, f"{location}[{index}]", problems) for index, item in enumerate(node)]
    if isinstance(node, _NumberProblem):
        problems.append(f"{location or '(document)'}: {node.message}")
    elif isinstance(node, str) and _has_lone_surrogate(node):
        problems.append(f"{location or '(document)'}: a lone surrogate in a string")
    return node


def _convert_members(members: _Members, location: str, problems: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in members:
        member_location = _member_location(location, key)
        if _has_lone_surrogate(key):
            problems.append(f"{member_location}: a lone surrogate in a key")
        if key in result:
            problems.append(f"{member_location}: duplicate key")
        result[key] = _convert(value, member_location, problems)
    return result


def _member_location(location: str, key: str) -> str:
    """Return the location of a member: `phases[1].gate`, or `a["b c"]` for a key that is no name.

    Args:
        location: the location of the object.
        key: the member's key.
    """
    if not _PLAIN_KEY.fullmatch(key):
        if len(key) > MAX_KEY:
            key = key[:MAX_KEY] + "…"
        return f"{location}[{json.dumps(key)}]"
    if location:
        return f"{location}.{key}"
    return key


def _has_lone_surrogate(text: str) -> bool:
    """Return whether a string cannot be encoded: JSON can spell "\\ud800" alone, UTF-8 cannot."""
    if text.isascii():
        return False
    return any("\ud800" <= character <= "\udfff" for character in text)
