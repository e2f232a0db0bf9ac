"""approve, reject, relock: the human's verbs. Each asks at the controlling terminal first and records afterwards.

Approving starts nothing. What a decision writes: `decision`; the fourth verb: `waive`.
"""

from __future__ import annotations

from phases.base import durable
from phases.base.paths import lock_path, request_path
from phases.decisions import decision, terminal
from phases.decisions.decision import (
    Decision,
    DecisionContext,
    dependants,
    known_phase,
    refuse_half_done,
    refuse_signed,
    standing,
)
from phases.errors import IntegrityError, UsageError
from phases.git.one_runner import one_runner
from phases.git.repo import Repo
from phases.plan.schema import Phase
from phases.record import approvals
from phases.record.approvals import Checkpoint
from phases.record.project import Project, Snapshot, load_verified
from phases.run import preflight
from phases.run.plan_locks import lock_diff


def approve(project: Project, phase_id: int, summary: str) -> str:
    """Opens the next phase by a person's word; returns the record's path.

    Raises:
        WaitingForHumanError: nobody was there, or the answer was another; nothing was recorded.
        UsageError: the phase does not wait for an approval.
        IntegrityError: what was reviewed is not what stands.
    """
    phase = known_phase(project, phase_id)
    refuse_signed(project)
    repo = project.repo()
    refuse_half_done(project)
    snapshot = load_verified(project, repo)
    _require_waiting(snapshot, phase)
    terminal_summary = (
        f"{summary}\n{_outside(waiting_checkpoint(project, repo, snapshot, phase), repo)}"
    )
    tty = terminal.challenge(terminal_summary, phase.name)
    with one_runner(project.paths, repo):
        refuse_half_done(project)
        snapshot = load_verified(project, repo)
        _require_waiting(snapshot, phase)
        case = DecisionContext(
            project, repo, snapshot, phase, waiting_checkpoint(project, repo, snapshot, phase)
        )
        return decision.record_it(
            case, Decision("pass", "APPROVED", tty, f"Phase {phase_id} {phase.name}: approved")
        )


def reject(project: Project, phase_id: int, reason: str, feature: str | None, summary: str) -> str:
    """Sends a phase back: its features (or one and what depends on it) become pending, its lock is released."""
    phase = known_phase(project, phase_id)
    again = _runs_again(phase, feature)
    repo = project.repo()
    refuse_half_done(project)
    snapshot = load_verified(project, repo)
    _require_begun(snapshot, phase)
    tty = terminal.challenge(
        f"{summary}\nReject phase {phase_id}; runs again: {', '.join(again)}\nReason: {reason}",
        phase.name,
    )
    with one_runner(project.paths, repo):
        refuse_half_done(project)
        snapshot = load_verified(project, repo)
        _require_begun(snapshot, phase)
        case = DecisionContext(
            project, repo, snapshot, phase, standing(project, repo, snapshot, phase)
        )
        message = f"Phase {phase_id} {phase.name}: rejected"
        return decision.record_it(
            case, Decision("fail", "REJECTED", tty, message, reason, tuple(again))
        )


def relock(project: Project, phase_id: int, reason: str, summary: str) -> str:
    """Locks a changed plan within a phase; features whose part of the plan changed run again."""
    phase = known_phase(project, phase_id)
    repo = project.repo()
    refuse_half_done(project)
    snapshot = load_verified(project, repo)
    _require_locked(snapshot, phase)
    preflight.check_equals_head(repo, project.plan, phase, None)
    differing, again = decision.relock_facts(project, repo, snapshot, phase)
    shown = (
        lock_diff(repo, snapshot.ledger, phase_id, differing) if differing else "\nnothing differs"
    )
    tty = terminal.challenge(
        f"{summary}\nRelock phase {phase_id}: {', '.join(differing) or 'attempts start anew'}{shown}\n"
        f"runs again: {', '.join(again) or 'none'}\nReason: {reason}",
        phase.name,
    )
    with one_runner(project.paths, repo):
        refuse_half_done(project)
        snapshot = load_verified(project, repo)
        _require_locked(snapshot, phase)
        decision.refuse_moved(
            (differing, again), decision.relock_facts(project, repo, snapshot, phase)
        )
        case = DecisionContext(
            project, repo, snapshot, phase, standing(project, repo, snapshot, phase)
        )
        message = f"Phase {phase_id} {phase.name}: relocked"
        return decision.record_it(
            case, Decision("relock", "LOCKED", tty, message, reason, tuple(again))
        )


def waiting_checkpoint(
    project: Project, repo: Repo, snapshot: Snapshot, phase: Phase
) -> Checkpoint:
    """Commit C of a phase that waits, after everything it binds was compared with what stands now.

    Raises:
        IntegrityError: C is not in HEAD's history, or progress.txt, the plan, gates, runner or results differ from C.
    """
    current = snapshot.state.phase(phase.id)
    found = approvals.find_checkpoint(
        repo, phase.id, current.halted or 0, request_path(project.paths, phase.id)
    )
    if found is None:
        raise IntegrityError(
            "checkpoint-missing",
            f"no commit in HEAD's history holds the checkpoint of phase {phase.id}",
        )
    if found.request_sha256 != current.request:
        raise IntegrityError(
            "request-changed",
            f"{found.request_path} in commit {found.commit[:12]} is not the review request that the ledger names",
        )
    if durable.sha256(project.paths.progress.read_bytes()) != found.progress_sha256:
        raise IntegrityError(
            "ledger-moved",
            f"progress.txt is not what commit {found.commit[:12]} holds: entries came after the checkpoint",
            hint="python -m phases run --next makes a new checkpoint",
        )
    frozen = [
        *approvals.FROZEN,
        lock_path(project.paths, phase.id).rsplit("/", 1)[0],
        *(project.paths.results(item.id) for item in phase.features),
    ]
    changed = repo.changed(found.commit, frozen)
    if changed:
        raise IntegrityError(
            "checkpoint-stale",
            f"differs from what was reviewed (commit {found.commit[:12]}): {', '.join(changed[:5])}",
            hint=f"git diff {found.commit[:12]} -- {changed[0]}; bring it back, or reject the phase",
        )
    return found


def _outside(at: Checkpoint, repo: Repo) -> str:
    """Commits of others since the checkpoint; allowed, and listed."""
    lines = repo.count_outside(at.commit)
    text = f"checkpoint: commit {at.commit[:12]}, entry {at.entry:04d}, request sha256:{at.request_sha256[:16]}…"
    return text + "".join(f"\n  since then: {line}" for line in lines)


def _require_waiting(snapshot: Snapshot, phase: Phase) -> None:
    met = snapshot.state.phase(phase.id).state
    if met != "awaiting_approval":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {met}; only a phase that awaits approval can be approved",
            hint="python -m phases status",
        )


def _require_begun(snapshot: Snapshot, phase: Phase) -> None:
    if snapshot.state.phase(phase.id).state == "pending":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) has not begun; there is nothing to reject",
            hint="python -m phases status",
        )


def _require_locked(snapshot: Snapshot, phase: Phase) -> None:
    current = snapshot.state.phase(phase.id)
    if current.lock is None or current.state == "approved":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {current.state} and holds no lock to change",
            hint="python -m phases status",
        )


def _runs_again(phase: Phase, feature: str | None) -> list[str]:
    """All features of a phase, or one and everything in the phase that depends on it."""
    if feature is None:
        return [item.id for item in phase.features]
    if feature not in {item.id for item in phase.features}:
        known = ", ".join(item.id for item in phase.features)
        raise UsageError(
            f"phase {phase.id} has no feature {feature!r}; it has {known}",
            hint="python -m phases status",
        )
    return dependants(phase.features, {feature})
