"""Where a phase halted, or its exit gates failed: request, verdicts and entry, made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phases.audit.attempt_entries import commit_contradictions, line_contradictions
from phases.audit.findings import Finding
from phases.audit.record import Record
from phases.audit.verdicts import (
    check_contradictions,
    configuration_contradictions,
    mutant_contradictions,
    state_contradictions,
    survivor_contradictions,
    survivors,
)
from phases.base import durable
from phases.git.record_history import RecordCommit
from phases.git.way_parts import git_lines
from phases.judge.gate import GateOutcome
from phases.judge.mutations import MutantKind
from phases.plan.schema import Phase, Plan
from phases.record import entries
from phases.record.entries import RecordedFile
from phases.record.halts import (
    compose_request,
    exit_lines,
    exit_reasons,
    halt_lines,
    reviewed_gates,
)
from phases.record.ledger import Entry, EntryKind
from phases.record.review_request import ReviewRequest
from phases.record.state import PhaseStatus
from phases.record.statement import DocumentError, file_subjects, is_commit_id
from phases.record.states import FeatureState
from phases.record.subjects import exit_failed_subject, halted_subject
from phases.record.transaction import subject_trailers
from phases.record.verdict import PhaseVerdict, Verdict


@dataclass(frozen=True)
class _Halt:
    """A HALTED entry, or FAILED of the exit gates, and what it is judged by."""

    record: Record
    entry: Entry
    commit: RecordCommit
    judged: str
    """The commit whose plan and gates judged the phase."""
    plan: Plan
    phase: Phase
    status: PhaseStatus
    """The phase before the entry, by that plan."""

    @property
    def folder(self) -> str:
        return f"{self.plan.results}/phase-{self.phase.id}"

    def finding(self, code: str, message: str, name: str) -> Finding:
        path = f"{self.folder}/{name}"
        return Finding(code, message, self.entry.seq, commit=self.commit.sha, path=path)


def check_halts(record: Record) -> Iterator[Finding]:
    """Yield where whoever halted had not done all of the phase, or says otherwise than it was."""
    for entry in record.ledger.entries:
        is_exit = entry.kind in (EntryKind.HALTED, EntryKind.FAILED) and entry.feature is None
        if is_exit and entry.phase is not None and entry.seq in record.commits:
            yield from _halt_findings(record, entry)


def _halt_findings(record: Record, entry: Entry) -> Iterator[Finding]:
    # 1. The request, which names the commit that judged.
    commit = record.commits[entry.seq]
    if entry.kind == EntryKind.HALTED:
        request = _read_request(record, entry, commit)
        if isinstance(request, str):
            yield _contradiction(entry, commit, request)
            return
        yield from _judged_findings(record, entry, request, request.predicate.commit.git_commit)
        return

    # 2. After failed exit gates there is none: HEAD may have advanced while they ran.
    findings: list[Finding] = []
    for judged in _candidates(record, entry):
        findings = list(_judged_findings(record, entry, None, judged))
        if not findings:
            return
    yield from findings


def _candidates(record: Record, entry: Entry) -> list[str]:
    """Return what exit gates can have judged: the runner's newest commit, and those after it."""
    parent = next(iter(record.commits[entry.seq].parents), "")
    before = record.evidence.newest_before(entry.seq)
    if before is None or before.sha == parent:
        return [parent]
    later = git_lines(record.project.root, "rev-list", f"{before.sha}..{parent}")
    return [*later, before.sha]


def _judged_findings(
    record: Record, entry: Entry, request: ReviewRequest | None, judged: str
) -> Iterator[Finding]:
    """Yield what is wrong with a halt that was judged by the plan and gates of a commit."""
    commit = record.commits[entry.seq]
    if not is_commit_id(judged) or not record.is_before(judged, commit):
        message = "the review request names a commit that is not before the one that recorded it"
        yield _contradiction(entry, commit, message)
        return
    if not record.has_entries_before(judged, entry.seq):
        message = "the review request names a commit that lacks entries recorded before"
        yield _contradiction(entry, commit, message)
        return
    try:
        plan = record.plan(judged)
        phase = plan.phase(entry.phase or 0)
    except (ValueError, KeyError) as error:
        message = f"the plan in commit {judged[:12]} cannot be read: {error}"
        yield _contradiction(entry, commit, message)
        return
    status = record.state_before(plan, entry.seq).phase(phase.id)
    halt = _Halt(record, entry, commit, judged, plan, phase, status)
    verdict = _read_verdict(halt)
    if isinstance(verdict, Finding):
        yield verdict
        return
    yield from _verdict_findings(halt, verdict)
    if request is not None:
        yield from _request_findings(halt, request, verdict)
    yield from _entry_findings(halt, request, verdict)


def _contradiction(entry: Entry, commit: RecordCommit, message: str) -> Finding:
    path = (entry.match(entries.REQUEST) or {}).get("path")
    return Finding("request-contradicts", message, entry.seq, commit=commit.sha, path=path)


def _read_request(record: Record, entry: Entry, commit: RecordCommit) -> ReviewRequest | str:
    """Return the request that a HALTED entry names, or why there is none."""
    named = entry.match(entries.REQUEST)
    if named is None:
        return "this HALTED entry names no review request"
    data = record.read(commit.sha, named["path"]) or b""
    if durable.sha256(data) != named["sha256"]:
        return "the commit has another review request than this HALTED entry names"
    try:
        request = ReviewRequest.decode(data)
    except DocumentError as error:
        return f"the review request is invalid: {error}"
    if request.predicate.phase.id != entry.phase:
        return f"the review request is about phase {request.predicate.phase.id}"
    return request


def _request_findings(
    halt: _Halt, request: ReviewRequest, verdict: PhaseVerdict | None
) -> Iterator[Finding]:
    """Yield where features are not done, and where the request is not the one to be made then."""
    for item in halt.status.features:
        if not item.is_done:
            message = f"{item.id} was {item.state} when the phase halted"
            yield halt.finding("request-contradicts", message, "request.json")
    review = request.predicate
    expected = compose_request(
        halt.phase,
        halt.status,
        halt.record.ledger.entries[: halt.entry.seq - 1],
        commit=halt.judged,
        gates=[halt.record.gate(halt.judged, gate) for gate in reviewed_gates(halt.phase)],
        exit_verdict=durable.sha256(verdict.encode()) if verdict else None,
        requested_on=review.requested_on,
        txn=review.txn,
    )
    if request == expected:
        return
    names = []
    if request.subject != expected.subject:
        names.append("subject")
    for name in type(review).model_fields:
        if getattr(review, name) != getattr(expected.predicate, name):
            names.append(name.replace("_", " "))
    words = ", ".join(names)
    message = f"the review request states otherwise than ledger, plan and lock: {words}"
    yield halt.finding("request-contradicts", message, "request.json")


def _entry_findings(
    halt: _Halt, request: ReviewRequest | None, verdict: PhaseVerdict | None
) -> Iterator[Finding]:
    """Yield where the entry or its commit says otherwise than the documents."""
    # 1. What it must say.
    entry, phase = halt.entry, halt.phase
    lines: tuple[str, ...] = ()
    if verdict is not None:
        file = RecordedFile(durable.sha256(verdict.encode()), f"{halt.folder}/verdict.json")
        lines = exit_lines(phase, verdict, file)
    if request is None:
        reasons = exit_reasons(verdict) if verdict else ()
        lines += entries.reason_lines(reasons)
        subject = exit_failed_subject(phase)
        txn = halt.commit.trailers.get("Phases-Txn", "")
    else:
        file = RecordedFile(durable.sha256(request.encode()), f"{halt.folder}/request.json")
        lines += halt_lines(file, halt.status, halt.judged)
        subject = halted_subject(phase)
        txn = request.predicate.txn

    # 2. What it says.
    for message in line_contradictions(entry, lines):
        yield Finding("entry-contradicts", message, entry.seq, commit=halt.commit.sha)
    trailers = subject_trailers(phase.id)
    for message in commit_contradictions(halt.record, halt.commit, trailers, txn, subject):
        yield Finding("commit-trailers", message, entry.seq, commit=halt.commit.sha)


#### the exit gates


def _read_verdict(halt: _Halt) -> PhaseVerdict | Finding | None:
    """Return the verdict of the exit gates, or what is wrong with it; None without exit gates."""
    named = halt.entry.match(entries.VERDICT)
    if not halt.phase.exit:
        return None
    if named is None:
        message = "the phase has exit gates, and this entry names no verdict of theirs"
        return halt.finding("request-contradicts", message, "verdict.json")
    data = halt.record.read(halt.commit.sha, named["path"]) or b""
    if durable.sha256(data) != named["sha256"]:
        message = "the commit has another verdict of the exit gates than this entry names"
        return halt.finding("named-file-changed", message, "verdict.json")
    try:
        verdict = PhaseVerdict.decode(data)
    except DocumentError as error:
        message = f"the exit gates' verdict is invalid: {error}"
        return halt.finding("verdict-contradicts", message, "verdict.json")
    if len(verdict.verdicts) != len(halt.phase.exit) or verdict.phase != halt.phase.id:
        message = "the exit gates' verdict is about another phase, or other gates"
        return halt.finding("verdict-contradicts", message, "verdict.json")
    return verdict


def _verdict_findings(halt: _Halt, verdict: PhaseVerdict | None) -> Iterator[Finding]:
    if verdict is None:
        return
    for message in _verdict_contradictions(halt, verdict):
        yield halt.finding("verdict-contradicts", message, "verdict.json")


def _verdict_contradictions(halt: _Halt, verdict: PhaseVerdict) -> Iterator[str]:
    # 1. What was judged: the outputs of the verified features.
    subjects, mutants = {}, []
    for item in halt.status.features:
        if item.state != FeatureState.VERIFIED or item.receipt is None:
            continue
        for name, digest in halt.record.outputs.get(item.receipt, {}).items():
            subjects[f"{item.id}/{name}"] = digest
        if item.receipt in halt.record.measured:
            mutants.append((str(MutantKind.MEASUREMENTS), item.id))
    mutants.append((str(MutantKind.EMPTY), ""))

    # 2. Each gate's verdict.
    states = []
    for gate, each in zip(halt.phase.exit, verdict.verdicts, strict=True):
        states.append(each.gate.state)
        if each.subject != file_subjects(subjects):
            yield f"the verdict of {gate.name} is about other outputs than the phase has"
        yield from state_contradictions(each, each.gate.state)
        yield from check_contradictions(each, gate)
        yield from configuration_contradictions(each, halt.record.gate(halt.judged, gate))
        yield from _phase_gate_contradictions(each)
        if each.gate.outcome == GateOutcome.PASSED:
            yield from mutant_contradictions(each, mutants)

    # 3. A phase halts if all passed.
    have_passed = all(state == FeatureState.VERIFIED for state in states)
    if have_passed != (halt.entry.kind == EntryKind.HALTED):
        word = "did not pass" if halt.entry.kind == EntryKind.HALTED else "passed"
        yield f"the phase {halt.entry.kind.lower()}, and its exit gates {word}"


def _phase_gate_contradictions(verdict: Verdict) -> Iterator[str]:
    """Yield what a verdict of an exit gate never has."""
    gate = verdict.gate
    yield from survivor_contradictions(verdict, survivors(verdict))
    if gate.exempt or gate.measurement_coverage or gate.digest_only:
        yield "the verdict of an exit gate has exemptions or measurement coverage"
    if verdict.predicate.predictions:
        yield "the verdict of an exit gate has predictions"
