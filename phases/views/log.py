"""log: the entries of progress.txt as sentences, as they are in the file, and as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phases.record import entries
from phases.record.ledger import OUTCOMES, Entry, EntryKind, Ledger


def select_entries(
    ledger: Ledger, *, feature: str | None = None, last: int | None = None
) -> list[Entry]:
    """Return the entries of one feature (None: all), or only the last ones of them."""
    selected = list(ledger.entries)
    if feature is not None:
        selected = [entry for entry in selected if entry.feature == feature]
    if last is not None:
        selected = selected[-last:]
    return selected


def log_text(selected: Sequence[Entry]) -> str:
    """Return a sentence per entry, and below it what was measured, judged and decided."""
    lines = []
    for entry in selected:
        minute = entry.time[:16].replace("T", " ")
        lines.append(f"{entry.seq:04d} {minute}  {entry_sentence(entry)}")
        for line in entry.lines:
            # The other lines are digests, commits and transactions.
            if any(line_format.parse(line) for line_format in entries.FOR_READERS):
                lines.append(f"       {line}")
    return "\n".join(lines)


def log_raw(selected: Sequence[Entry]) -> str:
    """Return the entries as progress.txt has them, an empty line between two."""
    return "\n\n".join(entry.block.decode().strip("\n") for entry in selected)


def log_json(selected: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the list that `log --json` prints."""
    return [
        {
            "seq": entry.seq,
            "time": entry.time,
            "kind": entry.kind,
            "phase": entry.phase,
            "feature": entry.feature,
            "title": entry.title,
            "lines": list(entry.lines),
            "prev": entry.prev,
            "self": entry.self_hash,
        }
        for entry in selected
    ]


def entry_sentence(entry: Entry) -> str:
    """Return what happened, in one sentence."""
    # 1. Kinds whose sentence depends on what the entry holds.
    subject = f"Phase {entry.phase}"
    if entry.feature:
        subject = f"{entry.feature} {entry.title}"
    if entry.kind in OUTCOMES:
        return _outcome_sentence(entry, subject)
    if entry.kind == EntryKind.LOCKED:
        return _lock_sentence(entry)

    # 2. The others. A field that an entry lacks is empty.
    pulled = entry.match(entries.PULLED) or {"first": "", "last": ""}
    lost = entry.match(entries.LOST) or {"kind": "decision", "entry": ""}
    project = (entry.match(entries.PROJECT) or {}).get("name", "")
    attempt = (entry.match(entries.STARTED) or {}).get("attempt", "")
    decided = entry.match(entries.DECIDED_BY) or {"who": "", "assurance": ""}
    approver = decided["who"]
    if decided["assurance"] == "scripted":
        approver = f"a script, by no human ({approver})"
    sentences = {
        EntryKind.GENESIS: f"The record of {project} begins.",
        EntryKind.STARTED: f"{subject}: attempt {attempt} began.",
        EntryKind.HALTED: f"{subject} is done and waits for its approver.",
        EntryKind.APPROVED: f"{subject} was approved by {approver}.",
        EntryKind.REJECTED: f"{subject} was rejected by {approver}.",
        EntryKind.WAIVED: f"{subject} was waived by {approver}; it is not verified.",
        EntryKind.INTERRUPTED: f"{subject} was interrupted; it does not count as an attempt.",
        EntryKind.RECOVERED: "progress.txt had lost its end; it was restored from the journal.",
        EntryKind.REPAIRED: "The journal had a truncated tail; it was set aside.",
        EntryKind.LOST: f"The {lost['kind']} of entry {lost['entry']} was lost before it was "
        "committed; it counts for nothing.",
        EntryKind.PULLED: f"Entries {pulled['first']} to {pulled['last']}, which were recorded "
        "elsewhere, were taken over.",
    }
    return sentences[entry.kind]


def _outcome_sentence(entry: Entry, subject: str) -> str:
    if entry.feature is None:
        return f"The exit gates of phase {entry.phase} failed."
    verbs = {
        EntryKind.VERIFIED: "was verified",
        EntryKind.FAILED: "failed",
        EntryKind.ERRORED: "could not be run or judged",
    }
    sentence = f"{subject} {verbs[entry.kind]}"
    run = entry.match(entries.RAN)
    if run:
        sentence += f", attempt {run['attempt']}, after {run['seconds']} s"
    return f"{sentence}."


def _lock_sentence(entry: Entry) -> str:
    relock = entry.match(entries.RELOCKED_BY)
    if relock:
        return f"Phase {entry.phase} was locked anew by {relock['who']}."
    return f"The plan of phase {entry.phase} was locked."
