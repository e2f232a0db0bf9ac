"""Decisions and order: each entry could be made then, and says what its committed record says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from phases.audit.attempt_entries import commit_contradictions, line_contradictions
from phases.audit.findings import Finding, Severity
from phases.audit.record import Record, head_of
from phases.base.text import printable
from phases.git.record_history import RecordCommit
from phases.plan.schema import Plan
from phases.record import entries
from phases.record.approval_rule import stated_rule
from phases.record.approvals import unrecorded_files
from phases.record.decision_lines import decided_lines, relocked_lines, waived_lines
from phases.record.decision_record import DecisionRecord
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, EntryKind
from phases.record.statement import DocumentError, find_descriptor
from phases.record.subjects import decision_subject, interrupted_subject
from phases.record.transaction import subject_trailers
from phases.record.waivers import states_before_waiver


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


@dataclass(frozen=True)
class _Decision:
    """A valid decision's entry, its record, and the plan that was decided by."""

    record: Record
    entry: Entry
    commit: RecordCommit
    document: DecisionRecord
    file: RecordedFile
    plan: Plan

    @property
    def head(self) -> str:
        return head_of(self.entry)

    def finding(self, code: str, message: str) -> Finding:
        path = self.file.path
        return Finding(code, message, self.entry.seq, commit=self.commit.sha, path=path)


def check_decision_entries(record: Record) -> Iterator[Finding]:
    """Yield where a decision, its entry and its commit contradict each other or the plan."""
    for number in sorted(record.evidence.decisions):
        entry, commit = record.ledger.entries[number - 1], record.commits.get(number)
        named = entry.match(entries.RECORD)
        if named is None or commit is None:
            continue
        try:
            document = DecisionRecord.decode(record.read(commit.sha, named["path"]) or b"")
        except DocumentError:
            continue  # then it is no valid decision, and found as that
        head = head_of(entry)
        try:
            plan = record.plan(head)
        except ValueError as error:
            message = f"the plan in commit {head[:12]} cannot be read: {error}"
            if not head:
                message = "the entry names no commit by whose plan it was decided"
            yield Finding("plan-missing", message, number, commit=commit.sha)
            continue
        decision = _Decision(record, entry, commit, document, RecordedFile(**named), plan)
        yield from _decision_findings(decision)


def _decision_findings(decision: _Decision) -> Iterator[Finding]:
    record, entry, document = decision.record, decision.entry, decision.document

    # 1. The entry says what the record says.
    for message in line_contradictions(entry, _expected_lines(decision)):
        yield decision.finding("entry-contradicts", message)

    # 2. It was decided by a commit at or after the checkpoint, and by its plan.
    is_between = record.is_before(decision.head, decision.commit) and record.is_ancestor(
        _checkpoint(document), decision.head
    )
    if not is_between:
        message = (
            f"it names {decision.head[:12]} as HEAD, which is not between checkpoint and commit"
        )
        yield decision.finding("entry-contradicts", message)
    for message in _plan_contradictions(decision):
        yield decision.finding("approval-invalid", message)
    if document.predicate.not_proved != document.predicate.assurance.not_proved:
        yield decision.finding("approval-invalid", "its record says otherwise what it proves")

    # 3. Its commit.
    if record.evidence.ends_commit(entry.seq):
        yield from _commit_findings(decision)


def _checkpoint(document: DecisionRecord) -> str:
    commit = find_descriptor(document.subject, "commit")
    return (commit.digest or {}).get("gitCommit", "") if commit else ""


def _expected_lines(decision: _Decision) -> tuple[str, ...]:
    """Return the lines that a record gives, with those that only the entry has."""
    entry, document, file = decision.entry, decision.document, decision.file
    if entry.kind == EntryKind.LOCKED:
        lock = RecordedFile(**(entry.match(entries.LOCK) or {"sha256": "", "path": ""}))
        approval = stated_rule(entry).lines
        head = decision.head
        return relocked_lines(document, file, lock=lock, head=head, approval=approval)
    if entry.kind == EntryKind.WAIVED:
        previous = entry.match(entries.PREVIOUS_STATE) or {"text": ""}
        state = previous["text"]
        return waived_lines(document, file, previous_state=state, head=decision.head)
    request = None
    if entry.kind == EntryKind.APPROVED or entry.match(entries.REQUEST):
        sha256 = document.predicate.request.digest.sha256
        paths = [path for path, digest in document.digests.items() if digest == sha256]
        request = RecordedFile(sha256, next(iter(paths), ""))
    checkpoint = _checkpoint(document)
    return decided_lines(document, file, request=request, checkpoint=checkpoint, head=decision.head)


def _plan_contradictions(decision: _Decision) -> Iterator[str]:
    """Yield where a decision names another phase, feature or state than its plan has."""
    entry, plan, stated = decision.entry, decision.plan, decision.document.predicate.phase
    names = [phase.name for phase in plan.phases if phase.id == stated.id]
    if names != [stated.name]:
        planned = ", ".join(names) or "no such phase"
        yield f"its record is about {printable(stated.name)}; the plan has {planned}"
    if entry.kind != EntryKind.WAIVED:
        return
    titles = _titles(plan, entry.feature)
    if entry.title not in titles:
        planned = ", ".join(titles) or "no such feature"
        yield f"it waives {printable(entry.title)}; the plan has {planned}"
    previous = (entry.match(entries.PREVIOUS_STATE) or {"text": ""})["text"]
    states = _states_before(decision)
    if previous not in states:
        yield f"it says {printable(previous) or 'nothing'}; expected {' or '.join(states)}"


def _titles(plan: Plan, feature_id: str | None) -> list[str]:
    """Return the title of a feature; [] where the plan has no such feature."""
    try:
        _, feature = plan.feature(feature_id or "")
    except KeyError:
        return []
    return [feature.title]


def _states_before(decision: _Decision) -> list[str]:
    """Return how a feature was before it was waived.

    A waiver after a rejection locks the phase first, which sets the number of attempts to 0.
    """
    record, entry = decision.record, decision.entry
    first = entry.seq
    while _names_file(record.ledger.entries[first - 2], decision.file):
        first -= 1
    numbers = [first]
    if record.ledger.entries[first - 2].kind == EntryKind.LOCKED:
        numbers = [first - 1, first]
    states = []
    for number in numbers:
        state = record.state_before(decision.plan, number)
        with suppress(KeyError):  # what it waives is not in the plan
            phase = decision.plan.phase(entry.phase or 0)
            first_waived = decision.document.predicate.waived[0]
            waived = states_before_waiver(decision.plan, state, phase, first_waived)
            states.append(waived[entry.feature or ""])
    return states or ["that the plan has it"]


def _names_file(entry: Entry, file: RecordedFile) -> bool:
    named = entry.match(entries.RECORD)
    return named is not None and named["path"] == file.path


def _commit_findings(decision: _Decision) -> Iterator[Finding]:
    """Yield where trailers or subject of a decision's commit are others."""
    document = decision.document.predicate
    feature = next(iter(document.waived), None)
    subject = decision_subject(document, next(iter(_titles(decision.plan, feature)), ""))
    txn = decision.commit.trailers.get("Phases-Txn", "")
    trailers = subject_trailers(document.phase.id, feature)
    for message in commit_contradictions(decision.record, decision.commit, trailers, txn, subject):
        yield decision.finding("commit-trailers", message)


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


REQUIRED_LINES = {
    EntryKind.GENESIS: (entries.PROJECT, entries.ROOT),
    EntryKind.INTERRUPTED: (entries.REASON,),
    EntryKind.RECOVERED: (entries.REASON,),
    EntryKind.REPAIRED: (entries.REASON, entries.QUARANTINED),
    EntryKind.PULLED: (entries.PULLED,),
    EntryKind.LOST: (entries.LOST, entries.REASON),
}
"""The lines of entries that no document is behind, in order."""

OPTIONAL_LINES = {
    EntryKind.GENESIS: (entries.SAMPLE,),
    EntryKind.PULLED: (entries.SET_ASIDE,),
}
"""The lines that may follow them."""


def check_own_lines(record: Record) -> Iterator[Finding]:
    """Yield where an entry without a document has other lines than such an entry has."""
    for entry in record.ledger.entries:
        formats = REQUIRED_LINES.get(entry.kind)
        if formats is None:
            continue
        for line_format in OPTIONAL_LINES.get(entry.kind, ()):
            if entry.match(line_format):
                formats = (*formats, line_format)
        are_own = len(formats) == len(entry.lines) and all(
            line_format.parse(line) for line_format, line in zip(formats, entry.lines, strict=True)
        )
        if not are_own:
            message = f"{entry.kind} has other lines than such an entry has"
            yield Finding("entry-contradicts", message, entry.seq)


def check_interruptions(record: Record) -> Iterator[Finding]:
    """Yield where an interruption has another title than its attempt, or its commit others."""
    started: dict[tuple[int | None, str | None], Entry] = {}
    for entry in record.ledger.entries:
        if entry.kind == EntryKind.STARTED:
            started[entry.phase, entry.feature] = entry
        if entry.kind != EntryKind.INTERRUPTED:
            continue
        begun = started.get((entry.phase, entry.feature))
        if begun is not None and entry.title != begun.title:
            title = printable(entry.title)
            message = f"it has the title {title!r}; it was started as {begun.title!r}"
            yield Finding("entry-contradicts", message, entry.seq)
        commit = record.commits.get(entry.seq)
        if commit is None or not record.evidence.ends_commit(entry.seq):
            continue
        subject = interrupted_subject(entry.feature or "", entry.title)
        trailers = subject_trailers(entry.phase or 0, entry.feature)
        txn = commit.trailers.get("Phases-Txn", "")
        for message in commit_contradictions(record, commit, trailers, txn, subject):
            yield Finding("commit-trailers", message, entry.seq, commit=commit.sha)
