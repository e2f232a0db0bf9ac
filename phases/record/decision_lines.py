"""The lines of an entry on a decision, made from its record.

The command that decides writes them; `audit` makes them again and compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from phases.base.text import printable
from phases.record import entries
from phases.record.decision_record import DecisionRecord
from phases.record.entries import RecordedFile


def decided_lines(
    record: DecisionRecord,
    record_file: RecordedFile,
    *,
    request: RecordedFile | None,
    checkpoint: str,
    head: str,
) -> tuple[str, ...]:
    """Return the lines of APPROVED and REJECTED.

    Args:
        record: the record.
        record_file: where it is committed.
        request: the request that was answered; None where none waited.
        checkpoint: the commit that the record is about.
        head: HEAD's commit when it was decided.
    """
    return (
        entries.DECIDED_BY.format(who=_who(record), assurance=record.predicate.assurance),
        *_reason_lines(record),
        *((request.line(entries.REQUEST),) if request else ()),
        entries.CHECKPOINT.format(commit=checkpoint),
        entries.HEAD.format(commit=head),
        record_file.line(entries.RECORD),
        *entries.reset_lines(record.predicate.reset),
    )


def waived_lines(
    record: DecisionRecord, record_file: RecordedFile, *, previous_state: str, head: str
) -> tuple[str, ...]:
    """Return the lines of WAIVED of one feature."""
    return (
        entries.DECIDED_BY.format(who=_who(record), assurance=record.predicate.assurance),
        *_reason_lines(record),
        entries.PREVIOUS_STATE.format(text=previous_state),
        entries.HEAD.format(commit=head),
        record_file.line(entries.RECORD),
    )


def relocked_lines(
    record: DecisionRecord,
    record_file: RecordedFile,
    *,
    lock: RecordedFile,
    head: str,
    approval: Sequence[str],
) -> tuple[str, ...]:
    """Return the lines of LOCKED after a relock."""
    decision = (
        entries.RELOCKED_BY.format(who=_who(record), assurance=record.predicate.assurance),
        *_reason_lines(record),
        record_file.line(entries.RECORD),
    )
    return entries.locked_lines(lock, head, record.predicate.reset, decision, approval=approval)


def _who(record: DecisionRecord) -> str:
    by = record.predicate.by
    return printable(f"{by.user} at {by.tty} on {by.host}")


def _reason_lines(record: DecisionRecord) -> tuple[str, ...]:
    reason = record.predicate.reason
    return entries.reason_lines([reason]) if reason else ()
