"""approve, reject, relock: the human's verbs. Each asks at the controlling terminal first and records afterwards.

Approving starts nothing. What a decision writes: `decision`; the fourth verb: `waive`.
"""

from __future__ import annotations

from phases.base import durable
from phases.decisions import decision, terminal
from phases.record import approvals as approval, project
from phases.run import checkpoint, preflight
from phases.record.approvals import Checkpoint
from phases.decisions.decision import Case, Decision, dependants, known_phase, refuse_half_done, refuse_signed, standing
from phases.errors import IntegrityError, UsageError
from phases.git.one_runner import one_runner
from phases.plan.schema import Phase
from phases.record.project import Book, Project
from phases.git.repo import Repo


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
    refuse_half_done(opened)
    book = project.read(opened, repo)
    _require_waiting(book, phase)
    terminal_summary = f"{summary}\n{_outside(waiting_checkpoint(opened, repo, book, phase), repo)}"
    tty = terminal.challenge(terminal_summary, phase.name)
    with one_runner(opened.paths, repo):
        refuse_half_done(opened)
        book = project.read(opened, repo)
        _require_waiting(book, phase)
        case = Case(opened, repo, book, phase, waiting_checkpoint(opened, repo, book, phase))
        return decision.record_it(case, Decision("pass", "APPROVED", tty, f"Phase {phase_id} {phase.name}: approved"))


def reject(opened: Project, phase_id: int, reason: str, feature: str | None, summary: str) -> str:
    """Sends a phase back: its features (or one and what depends on it) become pending, its lock is released."""
    phase = known_phase(opened, phase_id)
    again = _runs_again(phase, feature)
    repo = opened.repo()
    refuse_half_done(opened)
    book = project.read(opened, repo)
    _require_begun(book, phase)
    tty = terminal.challenge(
        f"{summary}\nReject phase {phase_id}; runs again: {', '.join(again)}\nReason: {reason}", phase.name
    )
    with one_runner(opened.paths, repo):
        refuse_half_done(opened)
        book = project.read(opened, repo)
        _require_begun(book, phase)
        case = Case(opened, repo, book, phase, standing(opened, repo, book, phase))
        message = f"Phase {phase_id} {phase.name}: rejected"
        return decision.record_it(case, Decision("fail", "REJECTED", tty, message, reason, tuple(again)))


def relock(opened: Project, phase_id: int, reason: str, summary: str) -> str:
    """Locks a changed plan within a phase; features whose part of the plan changed run again."""
    phase = known_phase(opened, phase_id)
    repo = opened.repo()
    refuse_half_done(opened)
    book = project.read(opened, repo)
    _require_locked(book, phase)
    preflight.check_equals_head(repo, opened.prd, phase, None)
    differing, again = decision.relock_facts(opened, repo, book, phase)
    shown = checkpoint.lock_diff(repo, book.ledger, phase_id, differing) if differing else "\nnothing differs"
    tty = terminal.challenge(
        f"{summary}\nRelock phase {phase_id}: {', '.join(differing) or 'attempts start anew'}{shown}\n"
        f"runs again: {', '.join(again) or 'none'}\nReason: {reason}",
        phase.name,
    )
    with one_runner(opened.paths, repo):
        refuse_half_done(opened)
        book = project.read(opened, repo)
        _require_locked(book, phase)
        decision.refuse_moved((differing, again), decision.relock_facts(opened, repo, book, phase))
        case = Case(opened, repo, book, phase, standing(opened, repo, book, phase))
        message = f"Phase {phase_id} {phase.name}: relocked"
        return decision.record_it(case, Decision("relock", "LOCKED", tty, message, reason, tuple(again)))


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
