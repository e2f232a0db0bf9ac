"""What a result.json says besides its measurements, altered on purpose: a reader has to notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from phases.base import strict_json
from phases.judge.mutants import alter_leaves, alter_number, alter_numbers
from phases.record.result import MAX_BYTES

OTHER_MEMBERS = ("measurements", "tables", "figures", "environment", "files")
"""Members of a result.json that are tried by themselves, or are names, captions and settings."""


def alter_tables(result: bytes) -> bytes:
    """Return a result.json with every number of its `tables` changed, those in texts too.

    The same bytes, if there are none.
    """
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    if not isinstance(document, dict) or "tables" not in document:
        return result
    altered = {**document, "tables": alter_leaves(document["tables"], _alter_cell)}
    return _encode(altered, document, result)


def alter_sentences(result: bytes) -> bytes:
    """Return a result.json with every sentence changed: its numbers, or the order of its words.

    A sentence is a text with a blank. The same bytes, if there are none.
    """
    return _alter_members(result, _alter_sentence)


def alter_other_numbers(result: bytes) -> bytes:
    """Return a result.json with every number changed that is in no measurement and no table.

    The same bytes, if there are none.
    """
    return _alter_members(result, alter_number)


def _alter_members(result: bytes, alter: Callable[[Any], Any]) -> bytes:
    """Return a result.json with each leaf altered, outside of the members with other names."""
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    if not isinstance(document, dict):
        return result
    altered = {}
    for name, member in document.items():
        altered[name] = member
        if name not in OTHER_MEMBERS:
            altered[name] = alter_leaves(member, alter)
    return _encode(altered, document, result)


def _alter_cell(value: Any) -> Any:
    if isinstance(value, str):
        return _alter_text(value)
    return alter_number(value)


def _alter_sentence(value: Any) -> Any:
    if not isinstance(value, str) or len(value.split()) < 2:
        return value
    altered = _alter_text(value)
    if altered == value:
        # As many words as before: a check that counts them has not read the sentence.
        altered = " ".join(reversed(value.split()))
    return altered


def _alter_text(text: str) -> str:
    return alter_numbers(text.encode()).decode()


def _encode(altered: Any, document: Any, result: bytes) -> bytes:
    if altered == document:
        return result
    return json.dumps(altered, indent=2, ensure_ascii=False).encode()
