"""What a decision writes: a record in `prd/approvals/`, its entries, one commit of just these."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.text import printable, utc_now
from phases.decisions.proposal import DecisionContext, Proposal
from phases.errors import IntegrityError
from phases.plan.load import find_plan
from phases.plan.schema import Feature, Phase
from phases.record import entries, transaction
from phases.record.approval_rule import committed_rule
from phases.record.approvals import (
    Checkpoint,
    find_checkpoint,
    next_record_path,
    read_checkpoint,
)
from phases.record.decision_lines import decided_lines, relocked_lines, waived_lines
from phases.record.decision_record import (
    Decision,
    DecisionRecord,
    DecisionResult,
    Presence,
    Repository,
    RequestDigest,
)
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, EntryKind, Ledger, parse_ledger, seal_entry
from phases.record.review_request import PhaseName, Sha256
from phases.record.sample import expected_assurance
from phases.record.subjects import decision_subject
from phases.record.transaction import Transaction, new_txn, subject_trailers
from phases.run.plan_locks import committed_lock, require_plan
from phases.run.preflight import check_repository
from phases.run.take_over import keep_set_aside, require_pullable


def record_decision(context: DecisionContext, proposal: Proposal, tty: str) -> str:
    """Write record, entries and commit; return the record's path."""
    check_repository(context.repo)

    # 1. The record; with a relock also the lock that it agrees to.
    paths = context.project.paths
    checkpoint = decision_base(context)
    path, number = next_record_path(paths, context.snapshot.ledger, context.phase.id)
    files: dict[str, bytes] = {}
    lock = None
    if proposal.result == DecisionResult.RELOCK:
        lock = _new_lock(context, files)
    record = _decision_record(context, proposal, checkpoint, tty=tty, number=number, lock=lock)
    data = record.encode()
    files[path] = data

    # 2. Its entries. Each names the record, who decided and why.
    record_file = RecordedFile(durable.sha256(data), path)
    draft = _Draft(context.snapshot.ledger, context.phase)
    _draft_pulled(context, draft)
    if lock is not None:
        approval = _approval_lines(context)
        head = context.repo.head()
        lines = relocked_lines(record, record_file, lock=lock, head=head, approval=approval)
        draft.add(EntryKind.LOCKED, lines)
    elif proposal.result == DecisionResult.WAIVE:
        if context.status.lock is None:  # after a rejection
            _draft_lock(context, draft, files)
        _draft_waivers(context, proposal, draft, record, record_file)
    else:
        request = None
        if context.status.halted is not None:
            request = RecordedFile(checkpoint.request_sha256, checkpoint.request_path)
        lines = decided_lines(
            record,
            record_file,
            request=request,
            checkpoint=checkpoint.commit,
            head=context.tree.commit,
        )
        draft.add(proposal.result.entry_kind, lines)
    failpoint("decided")

    # 3. The commit.
    feature = next(iter(proposal.waived), None)
    title = context.project.plan.feature(feature)[1].title if feature else ""
    outcome = Transaction(
        txn=new_txn(),
        entries=tuple(draft.entries),
        message=decision_subject(record.predicate, title),
        trailers=subject_trailers(context.phase.id, feature),
        files=files,
    )
    transaction.commit(paths, context.repo, context.snapshot.ledger, outcome)
    return path


def _user_name() -> str:
    """Return the user's name, or the user id where the system has no name for it."""
    try:
        return printable(getpass.getuser().strip()) or str(os.getuid())
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return str(os.getuid())


def decision_base(context: DecisionContext) -> Checkpoint:
    """Return what a decision binds: the checkpoint that waits, else HEAD.

    At HEAD it binds the phase's newest lock, or the plan where the phase was never locked.
    """
    repo, phase, paths = context.repo, context.phase, context.project.paths
    halted = context.status.halted
    if halted is not None:
        evidence, path = context.snapshot.evidence, paths.review_request(phase.id)
        checkpoint = find_checkpoint(repo, evidence, phase.id, halted, path)
    else:
        head = repo.head()
        ledger = parse_ledger(repo.blob(head, "progress.txt") or b"")
        last = ledger.entries[-1].seq if ledger.entries else 0
        path = paths.plan_lock(phase.id)
        if repo.blob(head, path) is None:
            path = find_plan(paths.root).relative_to(paths.root).as_posix()
        checkpoint = read_checkpoint(repo, head, phase.id, last, path)
    if checkpoint is None:
        raise IntegrityError(
            "checkpoint-missing", f"HEAD has neither lock nor checkpoint of phase {phase.id}"
        )
    return checkpoint


def _decision_record(
    context: DecisionContext,
    proposal: Proposal,
    checkpoint: Checkpoint,
    *,
    tty: str,
    number: int,
    lock: RecordedFile | None,
) -> DecisionRecord:
    genesis = context.snapshot.ledger.entries[0]
    root = genesis.match(entries.ROOT) or {}
    assurance = expected_assurance(genesis)
    presence = Presence(
        user=_user_name(),
        uid=os.getuid(),
        tty=tty,
        host=socket.gethostname(),
        git_identity=context.repo.identity(),
    )
    decision = Decision(
        result=proposal.result,
        phase=PhaseName(id=context.phase.id, name=context.phase.name),
        decision=number,
        repository=Repository(root_commit=root.get("commit", ""), genesis=genesis.self_hash),
        request=RequestDigest(digest=Sha256(sha256=checkpoint.request_sha256)),
        reason=proposal.reason,
        reset=proposal.reset,
        waived=tuple(proposal.waived),
        lock=Sha256(sha256=lock.sha256) if lock else None,
        decided_on=utc_now(),
        by=presence,
        assurance=assurance,
        not_proved=assurance.not_proved,
    )
    return DecisionRecord(subject=checkpoint.subject, predicate=decision)


def _draft_pulled(context: DecisionContext, draft: _Draft) -> None:
    """Draft PULLED where this machine takes over what another one recorded."""
    pulled = context.snapshot.reconciled.pulled
    if pulled is not None:
        commit = require_pullable(context.project, context.snapshot)
        keep_set_aside(context.project.paths, pulled)
        draft.add(EntryKind.PULLED, pulled.lines(commit))


def _draft_lock(context: DecisionContext, draft: _Draft, files: dict[str, bytes]) -> None:
    lock = _new_lock(context, files)
    head = context.tree.commit
    draft.add(EntryKind.LOCKED, entries.locked_lines(lock, head, approval=_approval_lines(context)))


def _draft_waivers(
    context: DecisionContext,
    proposal: Proposal,
    draft: _Draft,
    record: DecisionRecord,
    record_file: RecordedFile,
) -> None:
    """Draft one WAIVED per feature."""
    head = context.tree.commit
    for feature_id, previous_state in proposal.waived.items():
        lines = waived_lines(record, record_file, previous_state=previous_state, head=head)
        _, feature = context.project.plan.feature(feature_id)
        draft.add(EntryKind.WAIVED, lines, feature)


def _approval_lines(context: DecisionContext) -> tuple[str, ...]:
    """Return what HEAD's plan asks of an approval, as a LOCKED entry states it."""
    return committed_rule(require_plan(context.tree), context.tree.entries).lines


def _new_lock(context: DecisionContext, files: dict[str, bytes]) -> RecordedFile:
    """Add the phase's lock as HEAD's plan is to the files of the decision."""
    lock = committed_lock(context.tree, context.phase.id)
    path = context.project.paths.plan_lock(context.phase.id)
    files[path] = lock.encode()
    return RecordedFile(lock.digest, path)


class _Draft:
    """Entries sealed one after the other on a ledger that is not written yet."""

    def __init__(self, ledger: Ledger, phase: Phase):
        self._ledger = ledger
        self._phase = phase
        self.entries: list[Entry] = []

    def add(self, kind: EntryKind, lines: Sequence[str], feature: Feature | None = None) -> None:
        is_about_phase = kind != EntryKind.PULLED
        entry = seal_entry(
            self._ledger,
            kind,
            tuple(lines),
            time=utc_now(),
            phase=self._phase.id if is_about_phase else None,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )
        self.entries.append(entry)
        self._ledger = self._ledger.with_entry(entry)
