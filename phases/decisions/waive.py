"""approve --waive: a person lets a phase go on without a feature that honestly fails.

So nobody has to weaken a gate to go on. Its failed attempts stay as they are; it gives nothing to features that need
it, the exit gates see no folder of it, and every view says first that it was waived, by whom and why.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from phases.record import state
from phases.record.project import Project, Snapshot, load_verified
from phases.record.state import FeatureStatus, State, next_step
from phases.run import preflight
from phases.run.plan_locks import lock_diff

MEANING = (
    "Waived means: the phase goes on without it. It stays unverified, its failed attempts stay in the record, the exit "
    "gates see nothing of it, and every view says so first. It does not approve the phase."
)


def waive(project: Project, phase_id: int, feature: str, reason: str, summary: str) -> str:
    """Waives a feature of the open phase by a person's word; returns the record's path.

    Raises:
        WaitingForHumanError: nobody was there, or the answer was another; nothing was recorded.
        UsageError: the feature has not failed, or the phase is not open.
        IntegrityError: the plan is not what the phase was locked on.
    """
    phase = known_phase(project, phase_id)
    refuse_signed(project)
    repo = project.repo()
    refuse_half_done(project)
    snapshot = load_verified(project, repo)
    waived = _checked(project, repo, snapshot, phase, feature)
    listing = "".join(f"\n  {name}: {stood}" for name, stood in waived.items())
    last = "".join(f"\n  {line}" for line in _last_words(snapshot, feature))
    tty = terminal.challenge(
        f"{summary}\nWaive in phase {phase_id}:{listing}\nWhat its newest attempt said:{last or ' nothing'}\n"
        f"{MEANING}\nReason: {reason}",
        phase.name,
    )
    with one_runner(project.paths, repo):
        refuse_half_done(project)
        snapshot = load_verified(project, repo)
        decision.refuse_moved(waived, _checked(project, repo, snapshot, phase, feature))
        case = DecisionContext(
            project, repo, snapshot, phase, standing(project, repo, snapshot, phase)
        )
        title = project.plan.feature(feature)[1].title
        made = Decision("waive", "WAIVED", tty, f"{feature} {title}: waived", reason, waived=waived)
        return decision.record_it(case, made)


def _checked(
    project: Project, repo: Repo, snapshot: Snapshot, phase: Phase, feature: str
) -> Mapping[str, str]:
    """What would be waived, feature -> how it stands, after everything that forbids it was ruled out."""
    found = waivable(project, snapshot.state, phase, feature)
    preflight.check_equals_head(repo, project.plan, phase, None)
    differing = (
        decision.relock_facts(project, repo, snapshot, phase)[0]
        if snapshot.state.phase(phase.id).lock
        else []
    )
    if differing:
        shown = lock_diff(repo, snapshot.ledger, phase.id, differing)
        raise IntegrityError(
            "plan-changed",
            f"the plan of phase {phase.id} is not what was locked at its start: {', '.join(differing)}{shown}",
            hint=f"bring it back, or python -m phases relock {phase.id} --reason '…'",
        )
    return found


def waivable(project: Project, now: State, phase: Phase, feature: str) -> dict[str, str]:
    """The feature, and what of its phase cannot run without it: id -> how it stands. Pure.

    Raises:
        UsageError: the phase is not the open one, or the feature neither failed nor needs a waived one.
    """
    step = next_step(project.plan, now)
    current = now.phase(phase.id)
    if getattr(step, "phase", None) != phase.id or current.state == "awaiting_approval":
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {current.state}; only a feature of the open phase can be waived",
            hint="python -m phases status",
        )
    if feature not in {item.id for item in phase.features}:
        known = ", ".join(item.id for item in phase.features)
        raise UsageError(
            f"phase {phase.id} has no feature {feature!r}; it has {known}",
            hint="python -m phases status",
        )
    chosen = current.feature(feature)
    needs = {
        item.id: [need for need in item.needs if _is_waived(now, need)] for item in phase.features
    }
    if chosen.state not in ("failed", "errored") and not (
        chosen.state == "pending" and needs[feature]
    ):
        raise UsageError(
            f"{feature} is {chosen.state}; only a feature that failed or errored can be waived",
            hint=f"python -m phases why {feature}",
        )
    found = {feature: _stands(chosen, needs[feature])}
    for name in dependants(phase.features, {feature}):
        item = current.feature(name)
        if name != feature and not item.is_done:
            found[name] = f"{_stands(item, [])}; it needs {feature} and is waived with it"
    return found


def _is_waived(now: State, feature: str) -> bool:
    return any(
        item.id == feature and item.state == "waived"
        for phase in now.phases
        for item in phase.features
    )


def _stands(item: FeatureStatus, waived_needs: list[str]) -> str:
    """`failed, 3 attempts`."""
    if waived_needs:
        return f"{item.state}; it needs {', '.join(waived_needs)}, which was waived"
    attempts = (
        "no attempt"
        if not item.attempts
        else "1 attempt"
        if item.attempts == 1
        else f"{item.attempts} attempts"
    )
    return f"{item.state}, {attempts} under this lock"


def _last_words(snapshot: Snapshot, feature: str) -> list[str]:
    """Why its newest attempt was not verified, in the entry's own lines."""
    ends = [
        entry
        for entry in snapshot.ledger.entries
        if entry.feature == feature and entry.kind in state.OUTCOMES
    ]
    return (
        [line for line in ends[-1].lines if line.startswith(("failing ", "reason ", "gate "))]
        if ends
        else []
    )
