"""Tables and sentences of a result.json, altered on purpose: a reader of them has to notice it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from phases.base import strict_json
from phases.judge.measurements import Change, alter_value
from phases.record.result import MAX_BYTES

NO_SENTENCES = ("measurements", "tables", "figures", "environment", "files")
"""Members of a result.json whose texts are names, captions and settings."""

_NUMBER = re.compile(r"\d+(\.\d+)?")


def alter_tables(result: bytes) -> bytes:
    """Return a result.json with every number of its `tables` changed, those in texts too.

    The same bytes, if there are none.
    """
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    if not isinstance(document, dict) or "tables" not in document:
        return result
    altered = {**document, "tables": _alter_leaves(document["tables"], _alter_number)}
    return _encode(altered, document, result)


def alter_sentences(result: bytes) -> bytes:
    """Return a result.json with every sentence changed: its numbers, or the order of its words.

    A sentence is a text with a blank. The same bytes, if there are none.
    """
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    if not isinstance(document, dict):
        return result
    altered = {}
    for name, member in document.items():
        altered[name] = member
        if name not in NO_SENTENCES:
            altered[name] = _alter_leaves(member, _alter_sentence)
    return _encode(altered, document, result)


def _alter_leaves(value: Any, alter: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _alter_leaves(item, alter) for key, item in value.items()}
    if isinstance(value, list):
        return [_alter_leaves(item, alter) for item in value]
    return alter(value)


def _alter_number(value: Any) -> Any:
    if isinstance(value, str):
        return _alter_numbers_of(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return alter_value(value, Change.LARGE)
    return value


def _alter_sentence(value: Any) -> Any:
    if not isinstance(value, str) or len(value.split()) < 2:
        return value
    altered = _alter_numbers_of(value)
    if altered == value:
        # As many words as before: a check that counts them has not read the sentence.
        altered = " ".join(reversed(value.split()))
    return altered


def _alter_numbers_of(text: str) -> str:
    """Return a text with each number x in it as 10x + 1, with as many decimals."""

    def alter(match: re.Match[str]) -> str:
        decimals = len(match[0].partition(".")[2])
        return f"{float(match[0]) * 10 + 1:.{decimals}f}"

    return _NUMBER.sub(alter, text)


def _encode(altered: Any, document: Any, result: bytes) -> bytes:
    if altered == document:
        return result
    return json.dumps(altered, indent=2, ensure_ascii=False).encode()
