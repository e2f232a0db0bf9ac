"""The entries of progress.txt in sentences, and as data. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from phases.record.ledger import Entry

_ENDS = {"VERIFIED": "was verified", "FAILED": "failed", "ERRORED": "could not be run or judged"}
_TOLD = (
    "found ",
    "predictions: ",
    "gate ",
    "unjudged ",
    "failing ",
    "reason ",
    "stood at ",
    "features: ",
    "runs again: ",
)
"""Beginnings of the lines that tell a person something; the others are digests, commits and transactions."""


def text(entries: Sequence[Entry]) -> str:
    """The entries for a person: a sentence each, and below it what was found, judged and decided."""
    return "\n".join(
        "\n".join((f"{entry.seq:04d} {_when(entry)}  {sentence(entry)}", *_below(entry)))
        for entry in entries
    )


def raw(entries: Sequence[Entry]) -> str:
    """The entries as progress.txt has them."""
    return "\n".join(entry.block.decode().strip("\n") + "\n" for entry in entries).rstrip("\n")


def as_json(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The entries as data."""
    return [
        {
            "seq": e.seq,
            "time": e.time,
            "kind": e.kind,
            "phase": e.phase,
            "feature": e.feature,
            "title": e.title,
            "lines": list(e.lines),
            "prev": e.prev,
            "self": e.self_hash,
        }
        for e in entries
    ]


def sentence(entry: Entry) -> str:
    """What happened, in one sentence."""
    what = f"{entry.feature} {entry.title}" if entry.feature else f"Phase {entry.phase}"
    if entry.kind in _ENDS:
        return _ended(entry, what)
    by = _fact(entry, r"(?:relocked )?by (.+), assurance \w+")
    said = {
        "GENESIS": f"The record of {_fact(entry, 'project (.+)')} begins.",
        "LOCKED": f"{what} was locked anew by {by}."
        if by
        else f"The plan of phase {entry.phase} was locked.",
        "STARTED": f"{what}: attempt {_fact(entry, r'attempt (.+?), .*')} began.",
        "HALTED": f"{what} is done and waits for a person.",
        "APPROVED": f"{what} was approved by {by}.",
        "REJECTED": f"{what} was rejected by {by}.",
        "WAIVED": f"{what} was waived by {by}; it is not verified.",
        "INTERRUPTED": f"{what} was interrupted; it does not count as an attempt.",
        "RECOVERED": "progress.txt had lost its end; it was restored from the journal.",
        "REPAIRED": "The journal had a torn end; it was set aside.",
    }
    return said[entry.kind]


def _ended(entry: Entry, what: str) -> str:
    ran = re.search(
        r"for (\d+) s: attempt (\d+),",
        next((line for line in entry.lines if line.startswith("ran ")), ""),
    )
    if entry.feature is None:
        return f"The exit gates of phase {entry.phase} said no."
    return f"{what} {_ENDS[entry.kind]}" + (
        f", attempt {ran[2]}, after {ran[1]} s." if ran else "."
    )


def _below(entry: Entry) -> Iterator[str]:
    for line in entry.lines:
        if line.startswith(_TOLD):
            yield f"       {line}"


def _when(entry: Entry) -> str:
    return entry.time[:16].replace("T", " ")


def _fact(entry: Entry, pattern: str) -> str:
    found = entry.fact(pattern)
    return found[1] if found else ""
