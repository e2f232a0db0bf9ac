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

from phases.base import durable, failpoint as fault
from phases.plan import lock as plan_lock, schema as prd
from phases.record import approvals as approval, entries, ledger, transaction as record
from phases.run import checkpoint, preflight, recovery
from phases.record.approvals import Checkpoint
from phases.record.entries import Located
from phases.errors import EnvironmentFaultError, IntegrityError, UsageError
from phases.record.ledger import Ledger
from phases.plan.schema import Feature, Phase
from phases.record.project import Book, Project
from phases.git.repo import Repo
from phases.base.text import printable


@dataclass(frozen=True)
class Case:
    """What is decided on."""

    project: Project
    repo: Repo
    book: Book
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


def known_phase(opened: Project, phase_id: int) -> Phase:
    """The phase, or UsageError naming those that there are."""
    try:
        return opened.prd.phase(phase_id)
    except KeyError:
        known = ", ".join(str(phase.id) for phase in opened.prd.phases)
        raise UsageError(f"no phase {phase_id} in the PRD; it has {known}", remedy="python -m phases status") from None


def refuse_signed(opened: Project) -> None:
    """Where the plan asks for a signature, presence must not stand in its place."""
    if not opened.prd.approval.allow_self:
        raise EnvironmentFaultError(
            "the plan says approval.allow_self = false: somebody else than the one who runs must approve, and presence "
            "cannot tell people apart",
            remedy="approve by signature (a later version), or set allow_self to true, by relock",
        )
    signers = opened.root / "prd" / "allowed_signers"
    if opened.prd.approval.mode == "signed" or (opened.prd.approval.mode == "auto" and signers.exists()):
        why = "approval.mode is signed" if opened.prd.approval.mode == "signed" else "prd/allowed_signers names keys"
        raise EnvironmentFaultError(
            f"this project wants signed approvals ({why}), which this version cannot make; "
            "presence is weaker and is not taken in its place",
            remedy='remove prd/allowed_signers or set approval.mode to "presence", by relock',
        )


def standing(opened: Project, repo: Repo, book: Book, phase: Phase) -> Checkpoint:
    """What is bound where nothing waits: HEAD and the newest lock there, or the plan; else the checkpoint."""
    current = book.state.phase(phase.id)
    if current.halted is not None:
        path = checkpoint.request_path(opened.paths, phase.id)
        found = approval.find_checkpoint(repo, phase.id, current.halted, path)
    else:
        head = repo.head()
        progress = ledger.parse(repo.blob(head, "progress.txt") or b"")
        last = progress.entries[-1].seq if progress.entries else 0
        lock = checkpoint.lock_path(opened.paths, phase.id)
        path = lock if repo.blob(head, lock) is not None else prd.find(opened.root).relative_to(opened.root).as_posix()
        found = approval.checkpoint_at(repo, head, phase.id, last, path)
    if found is None:
        raise IntegrityError("checkpoint-missing", f"HEAD holds neither lock nor checkpoint of phase {phase.id}")
    return found


def dependants(features: Sequence[Feature], chosen: set[str]) -> list[str]:
    """The chosen features and everything among `features` that needs one of them, in the plan's order."""
    grown = set(chosen)
    while more := {item.id for item in features if grown & set(item.needs)} - grown:
        grown |= more
    return [item.id for item in features if item.id in grown]


def relock_facts(opened: Project, repo: Repo, book: Book, phase: Phase) -> tuple[list[str], list[str]]:
    """What differs from the lock, and which features that were done run again for it."""
    current = book.state.phase(phase.id)
    lock = checkpoint.compose_lock(opened, repo, phase)
    differing = plan_lock.differences(checkpoint.read_lock(opened.paths, current), lock)
    shared = set(plan_lock.shared_gate_files(sorted(repo.files("HEAD", "gates")))) | {"prd: defaults", "runner"}
    touched = {
        item.id
        for item in phase.features
        if shared & set(differing)
        or {f"prd: {item.id}", item.config, item.gate.pytest, *(f"input: {name}" for name in item.inputs)}
        & set(differing)
    }
    done = {item.id for item in current.features if item.is_done}
    return differing, [name for name in dependants(phase.features, touched) if name in done]


def refuse_half_done(opened: Project) -> None:
    """What a killed run left has to be finished before it can be decided on."""
    if recovery.is_due(opened.paths):
        raise EnvironmentFaultError(
            "a run is at work here, or was killed and left an outcome half recorded",
            remedy="python -m phases run --next finishes it; then decide",
        )


def refuse_moved(seen: object, now: object) -> None:
    """What a person said yes to is what is recorded, and nothing that came in between."""
    if seen != now:
        raise IntegrityError(
            "ledger-moved",
            f"what was asked about changed before the answer came: it was {seen}, it is {now}; nothing was recorded",
            remedy="type the command again and read it anew",
        )


def record_it(case: Case, made: Decision) -> str:
    """Writes record, entries and commit; returns the record's path."""
    opened, repo, phase = case.project, case.repo, case.phase
    preflight.check_repository(repo)
    path = _next_path(case)
    data = _document(case, made, path)
    files = {path: data}
    author = f"by {printable(getpass.getuser())} at {made.tty} on {socket.gethostname()}, assurance presence"
    facts = _Facts(author, entries.reasons([made.reason] if made.reason else []), Located(durable.sha256(data), path))
    draft = _Draft(case.book.ledger, phase)
    if made.kind == "LOCKED":
        lock = _new_lock(case, files)
        lines = (f"relocked {facts.author}", *facts.why, facts.record.line("record"))
        draft.add("LOCKED", entries.locked(lock, repo.head(), made.again, lines))
    elif made.waived is not None:
        if case.book.state.phase(phase.id).lock is None:
            draft.add("LOCKED", entries.locked(_new_lock(case, files), repo.head()))
        for name, stood in made.waived.items():
            lines = (facts.author, *facts.why, f"stood at {stood}", f"head {repo.head()}", facts.record.line("record"))
            draft.add("WAIVED", lines, opened.prd.feature(name)[1])
    else:
        draft.add(made.kind, _decided(case, made, facts))
    fault.point("decided")
    trailers = checkpoint.trailers(phase.id, next(iter(made.waived)) if made.waived else None)
    sealed = record.Record(record.new_txn(), tuple(draft.entries), made.message, trailers, files)
    record.commit(opened.paths, repo, case.book.ledger, sealed)
    return path


@dataclass(frozen=True)
class _Facts:
    """What every decision's entry states."""

    author: str
    why: tuple[str, ...]
    record: Located


class _Draft:
    """Entries sealed one after the other on a ledger that is not written yet."""

    def __init__(self, book: Ledger, phase: Phase):
        self._book, self._phase = book, phase
        self.entries: list[ledger.Entry] = []

    def add(self, kind: str, lines: Sequence[str], feature: Feature | None = None) -> None:
        sealed = ledger.seal(
            self._book,
            kind,
            tuple(lines),
            time=ledger.now(),
            phase=self._phase.id,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )
        self.entries.append(sealed)
        self._book = Ledger(self._book.header, (*self._book.entries, sealed))


def _new_lock(case: Case, files: dict[str, bytes]) -> Located:
    lock = checkpoint.compose_lock(case.project, case.repo, case.phase)
    path = checkpoint.lock_path(case.project.paths, case.phase.id)
    files[path] = lock.data
    return Located(lock.digest, path)


def _decided(case: Case, made: Decision, facts: _Facts) -> tuple[str, ...]:
    """The facts of APPROVED and REJECTED."""
    waits = case.book.state.phase(case.phase.id).halted is not None
    return (
        facts.author,
        *facts.why,
        *((f"request sha256:{case.at.request_sha256} {case.at.request_path}",) if waits else ()),
        f"checkpoint {case.at.commit}",
        f"head {case.repo.head()}",
        facts.record.line("record"),
        *entries.runs_again(made.again),
    )


def _next_path(case: Case) -> str:
    beginning = f"{approval.FOLDER}/phase-{case.phase.id}."
    decided = sum(path.startswith(beginning) for path in approval.recorded(case.book.ledger))
    return approval.next_path(case.project.paths, case.phase.id, decided + 1)


def _document(case: Case, made: Decision, path: str) -> bytes:
    presence: dict[str, Any] = {
        "user": getpass.getuser(),
        "uid": os.getuid(),
        "tty": made.tty,
        "host": socket.gethostname(),
        "gitIdentity": case.repo.identity(),
    }
    return approval.record(
        case.at,
        result=made.result,
        number=int(path.rsplit(".", 2)[1]),
        phase_name=case.phase.name,
        root_commit=case.repo.root_commit(),
        genesis=case.book.ledger.entries[0].self_hash,
        reason=made.reason,
        presence=presence,
        features=made.again,
        waived=list(made.waived or ()),
        time=ledger.now(),
    )
