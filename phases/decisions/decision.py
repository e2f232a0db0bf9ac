"""What a person's decision writes: one record in `prd/approvals/`, its entries, and a commit of just these.

The verbs `approve`, `reject`, `relock` (decide.py) and `waive` (waive.py) ask first and come here afterwards.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import lock_path, request_path
from phases.base.text import printable, utc_now
from phases.errors import EnvironmentFaultError, IntegrityError, UsageError
from phases.git.repo import Repo
from phases.plan.load import find_plan
from phases.plan.lock import lock_differences, shared_gate_files
from phases.plan.schema import Feature, Phase
from phases.record import approvals, entries, transaction
from phases.record.approvals import Checkpoint
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, Ledger, parse_ledger, seal_entry
from phases.record.project import Project, Snapshot
from phases.record.transaction import is_due, trailers
from phases.run import preflight
from phases.run.plan_locks import current_lock, read_lock


@dataclass(frozen=True)
class DecisionContext:
    """What is decided on."""

    project: Project
    repo: Repo
    snapshot: Snapshot
    phase: Phase
    at: Checkpoint


@dataclass(frozen=True)
class Decision:
    """What was decided, and the words for it."""

    result: str
    """`pass`, `fail`, `relock` or `waive`."""
    kind: str
    """Of the entry."""
    tty: str
    message: str
    """The commit's subject."""
    reason: str = ""
    again: tuple[str, ...] = ()
    """Features that run again."""
    waived: Mapping[str, str] | None = None
    """Feature -> how it stood, of those that are waived."""


def known_phase(project: Project, phase_id: int) -> Phase:
    """The phase, or UsageError naming those that there are."""
    try:
        return project.plan.phase(phase_id)
    except KeyError:
        known = ", ".join(str(phase.id) for phase in project.plan.phases)
        raise UsageError(
            f"no phase {phase_id} in the PRD; it has {known}", hint="python -m phases status"
        ) from None


def refuse_signed(project: Project) -> None:
    """Where the plan asks for a signature, presence must not stand in its place."""
    if not project.plan.approval.allow_self:
        raise EnvironmentFaultError(
            "the plan says approval.allow_self = false: somebody else than the one who runs must approve, and presence "
            "cannot tell people apart",
            hint="approve by signature (a later version), or set allow_self to true, by relock",
        )
    signers = project.root / "prd" / "allowed_signers"
    if project.plan.approval.mode == "signed" or (
        project.plan.approval.mode == "auto" and signers.exists()
    ):
        why = (
            "approval.mode is signed"
            if project.plan.approval.mode == "signed"
            else "prd/allowed_signers names keys"
        )
        raise EnvironmentFaultError(
            f"this project wants signed approvals ({why}), which this version cannot make; "
            "presence is weaker and is not taken in its place",
            hint='remove prd/allowed_signers or set approval.mode to "presence", by relock',
        )


def standing(project: Project, repo: Repo, snapshot: Snapshot, phase: Phase) -> Checkpoint:
    """What is bound where nothing waits: HEAD and the newest lock there, or the plan; else the checkpoint."""
    current = snapshot.state.phase(phase.id)
    if current.halted is not None:
        path = request_path(project.paths, phase.id)
        found = approvals.find_checkpoint(repo, phase.id, current.halted, path)
    else:
        head = repo.head()
        progress = parse_ledger(repo.blob(head, "progress.txt") or b"")
        last = progress.entries[-1].seq if progress.entries else 0
        lock = lock_path(project.paths, phase.id)
        path = (
            lock
            if repo.blob(head, lock) is not None
            else find_plan(project.root).relative_to(project.root).as_posix()
        )
        found = approvals.checkpoint_at(repo, head, phase.id, last, path)
    if found is None:
        raise IntegrityError(
            "checkpoint-missing", f"HEAD holds neither lock nor checkpoint of phase {phase.id}"
        )
    return found


def dependants(features: Sequence[Feature], chosen: set[str]) -> list[str]:
    """The chosen features and everything among `features` that needs one of them, in the plan's order."""
    grown = set(chosen)
    while more := {item.id for item in features if grown & set(item.needs)} - grown:
        grown |= more
    return [item.id for item in features if item.id in grown]


def relock_facts(
    project: Project, repo: Repo, snapshot: Snapshot, phase: Phase
) -> tuple[list[str], list[str]]:
    """What differs from the lock, and which features that were done run again for it."""
    current = snapshot.state.phase(phase.id)
    lock = current_lock(project, repo, phase)
    differing = lock_differences(read_lock(project.paths, current), lock)
    shared = set(shared_gate_files(sorted(repo.files("HEAD", "gates")))) | {
        "plan: defaults",
        "runner",
    }
    touched = {
        item.id
        for item in phase.features
        if shared & set(differing)
        or {
            f"plan: {item.id}",
            item.config,
            item.gate.pytest,
            *(f"input: {name}" for name in item.inputs),
        }
        & set(differing)
    }
    done = {item.id for item in current.features if item.is_done}
    return differing, [name for name in dependants(phase.features, touched) if name in done]


def refuse_half_done(project: Project) -> None:
    """What a killed run left has to be finished before it can be decided on."""
    if is_due(project.paths):
        raise EnvironmentFaultError(
            "a run is at work here, or was killed and left an outcome half recorded",
            hint="python -m phases run --next finishes it; then decide",
        )


def refuse_moved(seen: object, now: object) -> None:
    """What a person said yes to is what is recorded, and nothing that came in between."""
    if seen != now:
        raise IntegrityError(
            "ledger-moved",
            f"what was asked about changed before the answer came: it was {seen}, it is {now}; nothing was recorded",
            hint="type the command again and read it anew",
        )


def record_it(case: DecisionContext, made: Decision) -> str:
    """Writes record, entries and commit; returns the record's path."""
    project, repo, phase = case.project, case.repo, case.phase
    preflight.check_repository(repo)
    path = _next_path(case)
    data = _document(case, made, path)
    files = {path: data}
    author = f"by {printable(getpass.getuser())} at {made.tty} on {socket.gethostname()}, assurance presence"
    facts = _Facts(
        author,
        entries.reasons([made.reason] if made.reason else []),
        RecordedFile(durable.sha256(data), path),
    )
    draft = _Draft(case.snapshot.ledger, phase)
    if made.kind == "LOCKED":
        lock = _new_lock(case, files)
        lines = (f"relocked {facts.author}", *facts.why, facts.record.line("record"))
        draft.add("LOCKED", entries.locked(lock, repo.head(), made.again, lines))
    elif made.waived is not None:
        if case.snapshot.state.phase(phase.id).lock is None:
            draft.add("LOCKED", entries.locked(_new_lock(case, files), repo.head()))
        for name, stood in made.waived.items():
            lines = (
                facts.author,
                *facts.why,
                f"stood at {stood}",
                f"head {repo.head()}",
                facts.record.line("record"),
            )
            draft.add("WAIVED", lines, project.plan.feature(name)[1])
    else:
        draft.add(made.kind, _decided(case, made, facts))
    failpoint("decided")
    stated = trailers(phase.id, next(iter(made.waived)) if made.waived else None)
    sealed = transaction.Transaction(
        transaction.new_txn(), tuple(draft.entries), made.message, stated, files
    )
    transaction.commit(project.paths, repo, case.snapshot.ledger, sealed)
    return path


@dataclass(frozen=True)
class _Facts:
    """What every decision's entry states."""

    author: str
    why: tuple[str, ...]
    record: RecordedFile


class _Draft:
    """Entries sealed one after the other on a ledger that is not written yet."""

    def __init__(self, ledger: Ledger, phase: Phase):
        self._ledger, self._phase = ledger, phase
        self.entries: list[Entry] = []

    def add(self, kind: str, lines: Sequence[str], feature: Feature | None = None) -> None:
        sealed = seal_entry(
            self._ledger,
            kind,
            tuple(lines),
            time=utc_now(),
            phase=self._phase.id,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )
        self.entries.append(sealed)
        self._ledger = Ledger(self._ledger.header, (*self._ledger.entries, sealed))


def _new_lock(case: DecisionContext, files: dict[str, bytes]) -> RecordedFile:
    lock = current_lock(case.project, case.repo, case.phase)
    path = lock_path(case.project.paths, case.phase.id)
    files[path] = lock.data
    return RecordedFile(lock.digest, path)


def _decided(case: DecisionContext, made: Decision, facts: _Facts) -> tuple[str, ...]:
    """The facts of APPROVED and REJECTED."""
    waits = case.snapshot.state.phase(case.phase.id).halted is not None
    return (
        facts.author,
        *facts.why,
        *((f"request sha256:{case.at.request_sha256} {case.at.request_path}",) if waits else ()),
        f"checkpoint {case.at.commit}",
        f"head {case.repo.head()}",
        facts.record.line("record"),
        *entries.runs_again(made.again),
    )


def _next_path(case: DecisionContext) -> str:
    beginning = f"{approvals.FOLDER}/phase-{case.phase.id}."
    decided = sum(path.startswith(beginning) for path in approvals.recorded(case.snapshot.ledger))
    return approvals.next_path(case.project.paths, case.phase.id, decided + 1)


def _document(case: DecisionContext, made: Decision, path: str) -> bytes:
    presence: dict[str, Any] = {
        "user": getpass.getuser(),
        "uid": os.getuid(),
        "tty": made.tty,
        "host": socket.gethostname(),
        "gitIdentity": case.repo.identity(),
    }
    return approvals.record(
        case.at,
        result=made.result,
        number=int(path.rsplit(".", 2)[1]),
        phase_name=case.phase.name,
        root_commit=case.repo.root_commit(),
        genesis=case.snapshot.ledger.entries[0].self_hash,
        reason=made.reason,
        presence=presence,
        features=made.again,
        waived=list(made.waived or ()),
        time=utc_now(),
    )
