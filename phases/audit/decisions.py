"""Decisions and order: each entry could be made then, and says what its committed record says."""

from __future__ import annotations

from collections.abc import Iterator

from phases.audit.attempt_entries import line_contradictions
from phases.audit.findings import Finding, Severity
from phases.audit.record import Record
from phases.base.text import printable
from phases.record import entries
from phases.record.approval_rule import stated_rule
from phases.record.approvals import unrecorded_files
from phases.record.decision_lines import decided_lines, relocked_lines, waived_lines
from phases.record.decision_record import DecisionRecord
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, EntryKind
from phases.record.statement import DocumentError, find_descriptor


def check_unrecorded_decisions(record: Record) -> Iterator[Finding]:
    """Yield the files of `prd/approvals/` that no entry names."""
    project = record.project
    is_committed = project.probe.has_approvals
    unrecorded = unrecorded_files(project.root, record.ledger, is_committed=is_committed)
    for path, reason in unrecorded.items():
        yield Finding("approval-unrecorded", f"unrecorded approval file: {reason}", path=path)


def check_decisions(record: Record) -> Iterator[Finding]:
    """Yield the decisions that do not count, and the entries that could not follow."""
    evidence, state, ledger = record.evidence, record.snapshot.state, record.ledger
    for problem in (*evidence.problems, *state.problems):
        if problem.code == "commit-untrailed":
            continue  # found already, where the commits are checked
        line = ledger.entries[(problem.entry or 1) - 1].match(entries.RECORD)
        path = line["path"] if line else None
        yield Finding(problem.code, problem.message, problem.entry, path=path)
    for number in sorted(evidence.lost):
        kind = ledger.entries[number - 1].kind
        message = f"this {kind} was lost before it was committed; it counts for nothing"
        yield Finding("decision-lost", message, number, severity=Severity.WARNING)
    record.checked["approvals"] = len(evidence.decisions)


def check_decision_entries(record: Record) -> Iterator[Finding]:
    """Yield where a decision's entry says otherwise than its record."""
    for number in sorted(record.evidence.decisions):
        entry = record.ledger.entries[number - 1]
        named = entry.match(entries.RECORD)
        commit = record.commits.get(number)
        if named is None or commit is None:
            continue
        try:
            document = DecisionRecord.decode(record.read(commit.sha, named["path"]) or b"")
        except DocumentError:
            continue  # then it is no valid decision, and found as that
        file = RecordedFile(named["sha256"], named["path"])
        for message in line_contradictions(entry, _expected_lines(entry, document, file)):
            yield Finding("entry-contradicts", message, number, commit=commit.sha)
        yield from _head_findings(record, entry)


def _expected_lines(entry: Entry, document: DecisionRecord, file: RecordedFile) -> tuple[str, ...]:
    """Return the lines that a record gives, with those that only the entry has."""
    head = (entry.match(entries.HEAD) or {}).get("commit", "")
    if entry.kind == EntryKind.LOCKED:
        lock = RecordedFile(**(entry.match(entries.LOCK) or {"sha256": "", "path": ""}))
        approval = stated_rule(entry).lines
        return relocked_lines(document, file, lock=lock, head=head, approval=approval)
    if entry.kind == EntryKind.WAIVED:
        previous = entry.match(entries.PREVIOUS_STATE) or {"text": ""}
        return waived_lines(document, file, previous_state=previous["text"], head=head)
    commit = find_descriptor(document.subject, "commit")
    checkpoint = (commit.digest or {}).get("gitCommit", "") if commit else ""
    request = None
    if entry.kind == EntryKind.APPROVED or entry.match(entries.REQUEST):
        sha256 = document.predicate.request.digest.sha256
        paths = [path for path, digest in document.digests.items() if digest == sha256]
        request = RecordedFile(sha256, next(iter(paths), ""))
    return decided_lines(document, file, request=request, checkpoint=checkpoint, head=head)


def _head_findings(record: Record, entry: Entry) -> Iterator[Finding]:
    """Yield that the entry names a commit as HEAD that is not before the one that recorded it."""
    line = entry.match(entries.HEAD)
    commit = record.commits[entry.seq]
    if line is not None and not record.is_ancestor(line["commit"], commit):
        message = f"it names HEAD as {line['commit'][:12]}, which is not before {commit.sha[:12]}"
        yield Finding("entry-contradicts", message, entry.seq, commit=commit.sha)


def check_pulled(record: Record) -> Iterator[Finding]:
    """Yield where PULLED does not name the entries before it, and the commit that ends them."""
    for entry in record.ledger.entries:
        if entry.kind != EntryKind.PULLED:
            continue
        line = entry.match(entries.PULLED) or {"first": "0", "last": "0", "commit": ""}
        newest = record.evidence.newest_before(entry.seq)
        is_range = 1 <= int(line["first"]) <= int(line["last"]) == entry.seq - 1
        if not is_range or newest is None or newest.sha != line["commit"]:
            message = "this PULLED entry does not name the entries before it and their last commit"
            yield Finding("pulled-contradicts", message, entry.seq)


OWN_LINES = {
    EntryKind.GENESIS: (entries.PROJECT, entries.ROOT),
    EntryKind.INTERRUPTED: (entries.REASON,),
    EntryKind.RECOVERED: (entries.REASON,),
    EntryKind.REPAIRED: (entries.REASON, entries.QUARANTINED),
    EntryKind.PULLED: (entries.PULLED, entries.SET_ASIDE),
    EntryKind.LOST: (entries.LOST, entries.REASON),
}
"""The lines of entries that no document is behind."""


def check_own_lines(record: Record) -> Iterator[Finding]:
    """Yield where an entry without a document has a line that such an entry never has."""
    for entry in record.ledger.entries:
        if entry.kind not in OWN_LINES:
            continue
        for line in entry.lines:
            if not any(line_format.parse(line) for line_format in OWN_LINES[entry.kind]):
                message = f"{entry.kind} never has the line `{printable(line, 120)}`"
                yield Finding("entry-contradicts", message, entry.seq)
