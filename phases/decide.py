"""approve, reject, relock: the human's verbs. Each asks at the controlling terminal first and records afterwards.

Approving starts nothing. A decision is one record in `prd/approvals/`, its entry, and a commit of just these.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from phases import (
    approval,
    checkpoint,
    durable,
    entries,
    fault,
    ledger,
    plan_lock,
    preflight,
    project,
    record,
    recovery,
    terminal,
)
from phases.approval import Checkpoint
from phases.errors import EnvironmentFaultError, IntegrityError, UsageError
from phases.ledger import Entry
from phases.one_runner import one_runner
from phases.prd import Feature, Phase
from phases.project import Book, Project
from phases.repo import Repo
from phases.state import PhaseState
from phases.text import printable


@dataclass(frozen=True)
class _Case:
    """What is decided on."""

    project: Project
    repo: Repo
    book: Book
    phase: Phase
    current: PhaseState
    at: Checkpoint


def approve(opened: Project, phase_id: int, summary: str) -> str:
    """Opens the next phase by a person's word; returns the record's path.

    Raises:
        WaitingForHumanError: nobody was there, or the answer was another; nothing was recorded.
        UsageError: the phase does not wait for an approval.
        IntegrityError: what was reviewed is not what stands.
    """
    phase = known_phase(opened, phase_id)
    refuse_signed(opened)
    repo = opened.repo()
    _refuse_half_done(opened)
    book = project.read(opened, repo)
    _require_waiting(book, phase)
    terminal_summary = f"{summary}\n{_outside(waiting_checkpoint(opened, repo, book, phase), repo)}"
    tty = terminal.challenge(terminal_summary, phase.name)
    with one_runner(opened.paths, repo):
        _refuse_half_done(opened)
        book = project.read(opened, repo)
        _require_waiting(book, phase)
        case = _Case(
            opened, repo, book, phase, book.state.phase(phase_id), waiting_checkpoint(opened, repo, book, phase)
        )
        return _decide(case, "pass", "APPROVED", "", tty, [], f"Phase {phase_id} {phase.name}: approved")


def reject(opened: Project, phase_id: int, reason: str, feature: str | None, summary: str) -> str:
    """Sends a phase back: its features (or one and what depends on it) become pending, its lock is released."""
    phase = known_phase(opened, phase_id)
    again = _runs_again(phase, feature)
    repo = opened.repo()
    _refuse_half_done(opened)
    book = project.read(opened, repo)
    _require_begun(book, phase)
    tty = terminal.challenge(
        f"{summary}\nReject phase {phase_id}; runs again: {', '.join(again)}\nReason: {reason}", phase.name
    )
    with one_runner(opened.paths, repo):
        _refuse_half_done(opened)
        book = project.read(opened, repo)
        case = _Case(opened, repo, book, phase, book.state.phase(phase_id), _now(opened, repo, book, phase))
        return _decide(case, "fail", "REJECTED", reason, tty, again, f"Phase {phase_id} {phase.name}: rejected")


def relock(opened: Project, phase_id: int, reason: str, summary: str) -> str:
    """Locks a changed plan within a phase; features whose part of the plan changed run again."""
    phase = known_phase(opened, phase_id)
    repo = opened.repo()
    _refuse_half_done(opened)
    book = project.read(opened, repo)
    _require_locked(book, phase)
    preflight.check_equals_head(repo, opened.prd, phase, None)
    differing, again = _relock_facts(opened, repo, book, phase)
    shown = checkpoint.lock_diff(repo, book.ledger, phase_id, differing) if differing else "\nnothing differs"
    tty = terminal.challenge(
        f"{summary}\nRelock phase {phase_id}: {', '.join(differing) or 'attempts start anew'}{shown}\n"
        f"runs again: {', '.join(again) or 'none'}\nReason: {reason}",
        phase.name,
    )
    with one_runner(opened.paths, repo):
        _refuse_half_done(opened)
        book = project.read(opened, repo)
        _require_locked(book, phase)
        differing, again = _relock_facts(opened, repo, book, phase)
        case = _Case(opened, repo, book, phase, book.state.phase(phase_id), _now(opened, repo, book, phase))
        return _decide(case, "relock", "LOCKED", reason, tty, again, f"Phase {phase_id} {phase.name}: relocked")


def _refuse_half_done(opened: Project) -> None:
    """What a killed run left has to be finished before it can be decided on."""
    if recovery.is_due(opened.paths):
        raise EnvironmentFaultError(
            "a run is at work here, or was killed and left an outcome half recorded",
            remedy="python -m phases run --next finishes it; then decide",
        )


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


def waiting_checkpoint(opened: Project, repo: Repo, book: Book, phase: Phase) -> Checkpoint:
    """Commit C of a phase that waits, after everything it binds was compared with what stands now.

    Raises:
        IntegrityError: C is not in HEAD's history, or progress.txt, the plan, gates, runner or results differ from C.
    """
    current = book.state.phase(phase.id)
    found = approval.find_checkpoint(
        repo, phase.id, current.halted or 0, checkpoint.request_path(opened.paths, phase.id)
    )
    if found is None:
        raise IntegrityError(
            "checkpoint-missing", f"no commit in HEAD's history holds the checkpoint of phase {phase.id}"
        )
    if found.request_sha256 != current.request:
        raise IntegrityError(
            "request-changed",
            f"{found.request_path} in commit {found.commit[:12]} is not the review request that the ledger names",
        )
    if durable.sha256(opened.paths.progress.read_bytes()) != found.progress_sha256:
        raise IntegrityError(
            "ledger-moved",
            f"progress.txt is not what commit {found.commit[:12]} holds: entries came after the checkpoint",
            remedy="python -m phases run --next makes a new checkpoint",
        )
    frozen = [
        *approval.FROZEN,
        checkpoint.lock_path(opened.paths, phase.id).rsplit("/", 1)[0],
        *(opened.paths.results(item.id) for item in phase.features),
    ]
    changed = repo.changed(found.commit, frozen)
    if changed:
        raise IntegrityError(
            "checkpoint-stale",
            f"differs from what was reviewed (commit {found.commit[:12]}): {', '.join(changed[:5])}",
            remedy=f"git diff {found.commit[:12]} -- {changed[0]}; bring it back, or reject the phase",
        )
    return found


def _outside(at: Checkpoint, repo: Repo) -> str:
    """Commits of others since the checkpoint; allowed, and listed."""
    lines = repo.count_outside(at.commit)
    text = f"checkpoint: commit {at.commit[:12]}, entry {at.entry:04d}, request sha256:{at.request_sha256[:16]}…"
    return text + "".join(f"\n  since then: {line}" for line in lines)


def _now(opened: Project, repo: Repo, book: Book, phase: Phase) -> Checkpoint:
    """What a rejection or relock binds: the checkpoint if the phase waits, else HEAD and the newest lock there."""
    current = book.state.phase(phase.id)
    if current.halted is not None:
        path = checkpoint.request_path(opened.paths, phase.id)
        found = approval.find_checkpoint(repo, phase.id, current.halted, path)
    else:
        head = repo.head()
        progress = ledger.parse(repo.blob(head, "progress.txt") or b"")
        last = progress.entries[-1].seq if progress.entries else 0
        found = approval.checkpoint_at(repo, head, phase.id, last, checkpoint.lock_path(opened.paths, phase.id))
    if found is None:
        raise IntegrityError("checkpoint-missing", f"HEAD holds no lock and no checkpoint of phase {phase.id}")
    return found


def _require_waiting(book: Book, phase: Phase) -> None:
    met = book.state.phase(phase.id).state
    if met != "awaiting_approval":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {met}; only a phase that awaits approval can be approved",
            remedy="python -m phases status",
        )


def _require_begun(book: Book, phase: Phase) -> None:
    if book.state.phase(phase.id).state == "pending":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) has not begun; there is nothing to reject",
            remedy="python -m phases status",
        )


def _require_locked(book: Book, phase: Phase) -> None:
    current = book.state.phase(phase.id)
    if current.lock is None or current.state == "approved":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {current.state} and holds no lock to change",
            remedy="python -m phases status",
        )


def _runs_again(phase: Phase, feature: str | None) -> list[str]:
    """All features of a phase, or one and everything in the phase that depends on it."""
    if feature is None:
        return [item.id for item in phase.features]
    if feature not in {item.id for item in phase.features}:
        known = ", ".join(item.id for item in phase.features)
        raise UsageError(
            f"phase {phase.id} has no feature {feature!r}; it has {known}", remedy="python -m phases status"
        )
    return dependants(phase.features, {feature})


def dependants(features: Sequence[Feature], chosen: set[str]) -> list[str]:
    """The chosen features and everything among `features` that needs one of them, in the plan's order."""
    grown = set(chosen)
    while more := {item.id for item in features if grown & set(item.needs)} - grown:
        grown |= more
    return [item.id for item in features if item.id in grown]


def _relock_facts(opened: Project, repo: Repo, book: Book, phase: Phase) -> tuple[list[str], list[str]]:
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


def _decide(case: _Case, result: str, kind: str, reason: str, tty: str, again: list[str], message: str) -> str:
    opened, repo, phase = case.project, case.repo, case.phase
    preflight.check_repository(repo)
    decided = sum(
        fact.startswith(f"{approval.FOLDER}/phase-{phase.id}.") for fact in approval.recorded(case.book.ledger)
    )
    path = approval.next_path(opened.paths, phase.id, decided + 1)
    number = int(path.rsplit(".", 2)[1])
    presence = {
        "user": getpass.getuser(),
        "uid": os.getuid(),
        "tty": tty,
        "host": socket.gethostname(),
        "gitIdentity": repo.identity(),
    }
    data = approval.record(
        case.at,
        result=result,
        number=number,
        phase_name=phase.name,
        root_commit=repo.root_commit(),
        genesis=case.book.ledger.entries[0].self_hash,
        reason=reason,
        presence=presence,
        features=again,
        time=ledger.now(),
    )
    located = entries.Located(durable.sha256(data), path)
    who = f"by {printable(getpass.getuser())} at {tty} on {presence['host']}, assurance presence"
    why = entries.reasons([reason] if reason else [])
    files = {path: data}
    if kind == "LOCKED":
        lock = checkpoint.compose_lock(opened, repo, phase)
        lock_path = checkpoint.lock_path(opened.paths, phase.id)
        files[lock_path] = lock.data
        lines = entries.locked(
            entries.Located(lock.digest, lock_path),
            repo.head(),
            again,
            (f"relocked {who}", *why, located.line("record")),
        )
    else:
        request = (f"request sha256:{case.at.request_sha256} {case.at.request_path}",) if case.current.halted else ()
        lines = (
            who,
            *why,
            *request,
            f"checkpoint {case.at.commit}",
            f"head {repo.head()}",
            located.line("record"),
            *entries.runs_again(again),
        )
    fault.point("decided")
    entry: Entry = ledger.seal(case.book.ledger, kind, tuple(lines), time=ledger.now(), phase=phase.id)
    trailers = checkpoint.trailers(phase.id)
    record.commit(
        opened.paths, repo, case.book.ledger, record.Record(record.new_txn(), (entry,), message, trailers, files)
    )
    return path
