"""The attempts of a record, one after the other, each with its documents and the plan that ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phases.audit.findings import Finding
from phases.audit.record import Record, head_of
from phases.base import durable
from phases.git.record_history import RecordCommit
from phases.plan.schema import Feature, Plan
from phases.record import entries
from phases.record.entries import LineFormat
from phases.record.ledger import OUTCOMES, Entry, EntryKind
from phases.record.receipt import Receipt
from phases.record.statement import DocumentError, is_commit_id
from phases.record.verdict import AttemptRecord, Verdict


@dataclass(frozen=True)
class Outcome:
    """An entry on a feature's attempt, and what the ledger says before it."""

    entry: Entry
    commit: RecordCommit
    """The commit that recorded it."""
    started: Entry | None
    """The newest STARTED of the feature."""
    number: int
    """How many STARTED the feature has by then."""
    lock: Entry | None
    """The newest LOCKED of the phase."""
    receipts: dict[str, str]
    """Feature -> SHA-256 of its newest receipt when the attempt was started."""
    is_first: bool
    """Whether the feature was never verified before."""

    @property
    def feature(self) -> str:
        """The feature's id."""
        return self.entry.feature or ""

    @property
    def head(self) -> str:
        """The commit that STARTED names; empty where there is none."""
        return head_of(self.started) if self.started else ""

    @property
    def txn(self) -> str:
        """The transaction that STARTED names; empty where there is none."""
        line = self.started.match(entries.TRANSACTION) if self.started else None
        return line["txn"] if line else ""

    def finding(self, code: str, message: str, path: str | None = None) -> Finding:
        """Return a finding about the commit."""
        text = f"{self.feature}: {message}"
        return Finding(code, text, self.entry.seq, commit=self.commit.sha, path=path)


@dataclass(frozen=True)
class Documents:
    """What an attempt left in its commit."""

    path: str
    """The document that has the receipt."""
    receipt: Receipt
    receipt_sha256: str
    verdict_path: str
    verdict: Verdict | None
    record: AttemptRecord | None
    """What a failed attempt left; None where it was verified."""


@dataclass(frozen=True)
class Attempt(Documents):
    """An outcome with its documents."""

    outcome: Outcome
    plan: Plan
    """The plan that ran."""
    feature: Feature

    @property
    def is_verified(self) -> bool:
        """Whether the entry says VERIFIED."""
        return self.record is None

    @property
    def source(self) -> str:
        """The commit that ran."""
        return self.outcome.head


def read_outcomes(record: Record) -> Iterator[Outcome]:
    """Yield every outcome of a feature that a commit recorded, in order."""
    started: dict[tuple[int | None, str | None], list[Entry]] = {}
    locks: dict[int | None, Entry] = {}
    verified: set[tuple[int | None, str | None]] = set()
    receipts: dict[str, str] = {}
    receipts_then: dict[str | None, dict[str, str]] = {}
    for entry in record.ledger.entries:
        subject = (entry.phase, entry.feature)
        if entry.kind == EntryKind.LOCKED and entry.seq not in record.evidence.lost:
            locks[entry.phase] = entry
        elif entry.kind == EntryKind.STARTED:
            started.setdefault(subject, []).append(entry)
            receipts_then[entry.feature] = dict(receipts)
        if entry.kind not in OUTCOMES or entry.feature is None or entry.seq not in record.commits:
            continue
        attempts = started.get(subject, [])
        yield Outcome(
            entry,
            record.commits[entry.seq],
            attempts[-1] if attempts else None,
            len(attempts),
            locks.get(entry.phase),
            receipts_then.pop(entry.feature, {}),
            is_first=subject not in verified,
        )
        named = entry.match(entries.RECEIPT)
        if entry.kind == EntryKind.VERIFIED and named:
            verified.add(subject)
            receipts[entry.feature] = named["sha256"]


def read_attempt(record: Record, outcome: Outcome) -> tuple[Attempt | None, list[Finding]]:
    """Return an outcome with its documents; None, and why, where one cannot be read."""
    try:
        documents = _read_documents(record, outcome)
        plan = record.plan(outcome.head) if is_commit_id(outcome.head) else None
    except _UnreadableError as error:
        return None, [error.finding]
    except ValueError as error:
        return None, [_plan_finding(outcome, str(error))]
    if plan is None:
        message = "the receipt is not of the attempt that its STARTED entry names"
        return None, [outcome.finding("receipt-foreign", f"{message}: there is none")]
    try:
        _, feature = plan.feature(outcome.feature)
    except KeyError:
        return None, [_plan_finding(outcome, f"it has no feature {outcome.feature}")]
    unknown = sorted(set(feature.inputs) - {item.name for item in plan.inputs})
    if unknown:
        return None, [_plan_finding(outcome, f"it has no input {unknown[0]}")]
    attempt = Attempt(**vars(documents), outcome=outcome, plan=plan, feature=feature)
    return attempt, []


def _plan_finding(outcome: Outcome, reason: str) -> Finding:
    message = f"the plan in commit {outcome.head[:12]} cannot be read: {reason}"
    return outcome.finding("plan-missing", message)


#### the documents


class _UnreadableError(Exception):
    """A document is missing, is not the one that the entry names, or is malformed."""

    def __init__(self, finding: Finding):
        super().__init__(finding.message)
        self.finding = finding


def _read_documents(record: Record, outcome: Outcome) -> Documents:
    if outcome.entry.kind != EntryKind.VERIFIED:
        return _read_attempt_record(record, outcome)
    receipt_path, data = _read_named(record, outcome, "receipt", entries.RECEIPT)
    verdict_path, verdict_data = _read_named(record, outcome, "verdict", entries.VERDICT)
    try:
        receipt = Receipt.decode(data)
    except DocumentError as error:
        message = f"the receipt is invalid: {error}"
        raise _UnreadableError(outcome.finding("receipt-changed", message, receipt_path)) from None
    try:
        verdict = Verdict.decode(verdict_data)
    except DocumentError as error:
        message = f"the verdict is invalid: {error}"
        raise _UnreadableError(outcome.finding("verdict-changed", message, verdict_path)) from None
    sha256 = durable.sha256(data)
    return Documents(receipt_path, receipt, sha256, verdict_path, verdict, None)


def _read_attempt_record(record: Record, outcome: Outcome) -> Documents:
    line = outcome.entry.match(entries.ATTEMPT_RECORD)
    if line is None:
        message = f"this {outcome.entry.kind} entry names no attempt record"
        raise _UnreadableError(outcome.finding("entry-contradicts", message))
    path = line["path"]
    data = record.read(outcome.commit.sha, path)
    if data is None or durable.sha256(data) != line["sha256"]:
        message = f"a file in the commit differs from what this {outcome.entry.kind} entry names"
        raise _UnreadableError(outcome.finding("named-file-changed", message, path))
    try:
        document = AttemptRecord.decode(data)
    except DocumentError as error:
        message = f"the attempt record of this {outcome.entry.kind} entry is invalid: {error}"
        raise _UnreadableError(outcome.finding("entry-contradicts", message, path)) from None
    sha256 = durable.sha256(document.receipt.encode())
    return Documents(path, document.receipt, sha256, path, document.verdict, document)


def _read_named(
    record: Record, outcome: Outcome, word: str, line_format: LineFormat
) -> tuple[str, bytes]:
    """Return path and bytes of a document of a VERIFIED entry, as its commit has it."""
    line = outcome.entry.match(line_format)
    if line is None:
        message = f"this {outcome.entry.kind} entry names no {word}"
        raise _UnreadableError(outcome.finding(f"{word}-missing", message))
    path = line["path"]
    data = record.read(outcome.commit.sha, path)
    if data is None:
        message = f"the commit has no such {word}"
        raise _UnreadableError(outcome.finding(f"{word}-missing", message, path))
    if durable.sha256(data) != line["sha256"]:
        message = f"the commit's {word} differs from the one that the entry names"
        raise _UnreadableError(outcome.finding(f"{word}-changed", message, path))
    return path, data
