"""Plan locks: each lists what the commit that it names holds, and its entry says what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from phases.audit.attempt_entries import line_contradictions
from phases.audit.findings import Finding, Severity, Uncovered
from phases.audit.record import Record, head_of
from phases.base import durable
from phases.plan.lock import (
    PlanLock,
    PlanLockError,
    compose_lock,
    lock_differences,
    runner_digest,
)
from phases.plan.schema import Plan
from phases.record import entries
from phases.record.approval_rule import committed_rule
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, EntryKind
from phases.record.state import BINDING_KINDS
from phases.record.statement import is_commit_id
from phases.record.states import PhaseState


def check_plan_locks(record: Record) -> Iterator[Finding | Uncovered]:
    """Yield where a lock is not the one that its entry names, or not what its commit gives."""
    lost = record.evidence.lost
    counted = [entry for entry in record.ledger.entries if entry.seq not in lost]
    replaced = _replaced_locks(counted)
    for entry in counted:
        is_lock = entry.kind == EntryKind.LOCKED and entry.seq in record.commits
        if is_lock and entry.seq not in replaced:
            yield from _lock_findings(record, entry)


def _replaced_locks(counted: Iterable[Entry]) -> set[int]:
    """Return the LOCKED entries that another one replaced before anything was judged by them.

    Their commits need not be in the history any more, and bind nothing.
    """
    replaced = set()
    unused: dict[int | None, int] = {}
    for entry in counted:
        if entry.kind in BINDING_KINDS:
            unused.pop(entry.phase, None)
        elif entry.kind == EntryKind.LOCKED:
            if entry.phase in unused:
                replaced.add(unused[entry.phase])
            unused[entry.phase] = entry.seq
    return replaced


def _lock_findings(record: Record, entry: Entry) -> Iterator[Finding | Uncovered]:
    commit = record.commits[entry.seq].sha
    named = entry.match(entries.LOCK)
    if named is None:
        message = "the entry names no plan lock"
        yield Finding("entry-contradicts", message, entry.seq, commit=commit)
        return
    path = named["path"]

    # 1. The file that the entry names.
    data = record.read(commit, path) or b""
    if durable.sha256(data) != named["sha256"]:
        message = "the commit's plan lock differs from the one that the entry names"
        yield Finding("lock-changed", message, entry.seq, commit=commit, path=path)
        return
    try:
        lock = PlanLock.decode(data)
    except PlanLockError as error:
        yield Finding("lock-changed", str(error), entry.seq, commit=commit, path=path)
        return

    # 2. The plan of the commit that was locked.
    head = head_of(entry)
    try:
        plan = record.plan(head) if is_commit_id(head) else None
        recomputed = _compose(record, plan, head, entry.phase, lock.components.get("runner", ""))
    except (ValueError, KeyError) as error:
        message = f"the plan in commit {head[:12]}, which the lock names, cannot be read: {error}"
        yield Finding("plan-missing", message, entry.seq, commit=head or None, path=path)
        return

    # 3. The same lock, and the same entry, must come out.
    assert plan is not None
    for item in _contradictions(record, entry, plan, lock, recomputed):
        if isinstance(item, str):
            yield Finding("lock-contradicts", item, entry.seq, commit=head, path=path)
        else:
            yield item


def _compose(
    record: Record, plan: Plan | None, commit: str, phase: int | None, runner: str
) -> PlanLock:
    """Return the lock of a phase as a commit gives it; ValueError, KeyError where it gives none."""
    if plan is None:
        message = "it is no id of a commit"
        raise ValueError(message)
    tree = record.sources(commit)
    gate_files = tree.files("gates")
    tree.read_files(gate_files)  # at once
    return compose_lock(plan, plan.phase(phase or 0), tree.read, gate_files, runner)


def _contradictions(
    record: Record, entry: Entry, plan: Plan, lock: PlanLock, recomputed: PlanLock
) -> Iterator[str | Uncovered]:
    """Yield where lock and entry differ from what the commit gives.

    How the plan's own parts are digested depends on the version of the runner; those of another
    version are listed as unproved. Files (gates, configs, keys) are plain SHA-256 in every version.
    """
    # 1. The lock.
    head = head_of(entry)
    if lock.phase != entry.phase:
        yield f"the lock is about phase {lock.phase}"
    different = lock_differences(lock.components, recomputed)
    if lock.components.get("runner") != runner_digest():
        unproved = [name for name in different if name.startswith(("plan: ", "input: "))]
        different = [name for name in different if name not in unproved]
        if unproved:
            number = f"{entry.seq:04d}"
            message = f"another version of the runner made the lock of entry {number}"
            yield Uncovered("lock-unproved", f"{message}: {', '.join(unproved)}")
    for name in different:
        yield f"the locked {name} differs from commit {head[:12]}"

    # 2. The entry. A relock's first lines say who decided: they are compared with its record.
    named = entry.match(entries.LOCK)
    assert named is not None
    file = RecordedFile(named["sha256"], f"{plan.results}/phase-{entry.phase}/lock.json")
    rule = committed_rule(plan, record.sources(head).entries)
    stated = [line for line in entry.lines if _is_approval(line)]
    if tuple(stated) != rule.lines:
        actual = "; ".join(stated) or "nothing"
        yield f"of approvals the entry states {actual}, commit {head[:12]} asks `{rule}`"
    elif entry.match(entries.RECORD) is None:
        lines = entries.locked_lines(file, head, approval=rule.lines)
        yield from line_contradictions(entry, lines)


def _is_approval(line: str) -> bool:
    return bool(entries.APPROVAL.parse(line) or entries.APPROVER.parse(line))


#### an approved phase, as HEAD has it now


def check_approved_phases(record: Record) -> Iterator[Finding]:
    """Yield what of an approved phase was changed since: a warning, as its results are final.

    HEAD is compared with the commit that was locked, both composed by this version of the runner.
    """
    locks = _locks_in_force(record)
    head = record.head.commit
    for status in record.snapshot.state.phases:
        entry = locks.get(status.lock or "")
        if status.state != PhaseState.APPROVED or entry is None or status.lock_commit is None:
            continue
        try:
            locked = _compose_at(record, status.lock_commit, status.id)
            current = _compose_at(record, head, status.id)
        except (ValueError, KeyError):
            message = f"HEAD's plan has no phase {status.id} any more, which was approved"
            yield _warning(entry, message, None)
            continue
        for name in lock_differences(locked.components, current):
            message = f"{name} of phase {status.id} differs from what the phase was approved under"
            is_file = name in current.components and not name.startswith(("plan: ", "input: "))
            yield _warning(entry, message, name if is_file else None)


def _locks_in_force(record: Record) -> Mapping[str, Entry]:
    locks = {}
    for entry in record.ledger.entries:
        named = entry.match(entries.LOCK) if entry.kind == EntryKind.LOCKED else None
        if named:
            locks[named["sha256"]] = entry
    return locks


def _compose_at(record: Record, commit: str, phase: int) -> PlanLock:
    return _compose(record, record.plan(commit), commit, phase, runner="")


def _warning(entry: Entry, message: str, path: str | None) -> Finding:
    finding = Finding("locked-changed", message, entry.seq, path=path)
    return replace(finding, severity=Severity.WARNING)
