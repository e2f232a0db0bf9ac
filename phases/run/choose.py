"""What a run does next, and every reason to run nothing."""

from __future__ import annotations

from dataclasses import dataclass

from phases.base.failpoint import failpoint
from phases.errors import LimitReachedError, UsageError, WaitingForHumanError
from phases.plan.schema import Feature, Phase, Plan
from phases.record.pending import folders_elsewhere, has_pending_record
from phases.record.project import Project, Snapshot, load_unverified, snapshot_problems
from phases.record.state import State, is_spent, next_step
from phases.record.states import FeatureState, PhaseState
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunFeature,
    Step,
    next_commands,
)


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for."""

    only: str | None = None
    """One feature of the open phase."""
    force: bool = False
    """With `only`: run it although it is verified."""
    keep_going: bool = False
    """After a feature failed, run those that do not need it."""


def refuse_early(project: Project, request: RunRequest) -> None:
    """Turn away a run at a checkpoint before the lock is taken and git is loaded.

    An agent's loop calls again and again. This reads the project unverified, so it can only refuse;
    where anything is doubtful or unfinished, the run itself decides.
    """
    failpoint("load")
    snapshot = load_unverified(project)
    is_doubtful = (
        project.probe.is_rewound
        or snapshot.reconciled.problems
        or snapshot_problems(project, snapshot)
    )
    if not is_doubtful:
        refuse_waiting(project, snapshot, request)


def refuse_waiting(project: Project, snapshot: Snapshot, request: RunRequest) -> None:
    """Turn away a run at a checkpoint, unless a killed run left something to complete."""
    paths = project.paths
    has_record = has_pending_record(paths) or folders_elsewhere(paths)
    if not has_record and not snapshot.reconciled.needs_repair:
        _require_not_waiting(project.plan, next_step(project.plan, snapshot.state), request)


def choose_step(plan: Plan, state: State, request: RunRequest) -> Step:
    """Return the next step, or the one feature that was asked for.

    Raises:
        WaitingForHumanError, LimitReachedError: nothing may run.
        UsageError: the feature that was asked for cannot run.
    """
    failpoint("choose")
    step = next_step(plan, state)
    _require_not_waiting(plan, step, request)
    if request.only is not None:
        step = _choose_feature(plan, state, step, request.only, force=request.force)
    require_runnable(step)
    return step


def require_runnable(step: Step) -> None:
    """Raise where a human has to decide first how to go on."""
    if isinstance(step, AttemptsSpent):
        subject = step.feature or "the exit gates"
        raise LimitReachedError(
            f"{subject} of phase {step.phase} failed {step.attempts} times under this plan lock, "
            "as often as the plan allows (attempts); nothing was run",
            hint="a human types one of: " + "; ".join(next_commands(step)),
        )
    if isinstance(step, Blocked):
        raise WaitingForHumanError(
            f"{step.feature} of phase {step.phase} needs {step.waived}, "
            "which was waived and has no results",
            hint="a human types one of: " + "; ".join(next_commands(step)),
        )


def _require_not_waiting(plan: Plan, step: Step, request: RunRequest) -> None:
    if not isinstance(step, AwaitApproval) or (request.only and request.force):
        return
    name = plan.phase(step.phase).name
    raise WaitingForHumanError(
        f"Phase {step.phase} ({name}) awaits your approval; nothing was run. "
        f"To review: {plan.results}/, progress.txt, git log",
        hint=f"python -m phases approve {step.phase}",
    )


def _choose_feature(plan: Plan, state: State, step: Step, only: str, *, force: bool) -> Step:
    # 1. The feature exists and its phase is open.
    phase, feature = _find_feature(plan, only)
    status = state.phase(phase.id)
    if status.state == PhaseState.APPROVED:
        raise UsageError(
            f"{only} is in phase {phase.id}, which is approved: its results are final",
            hint=f"python -m phases reject {phase.id} --reason '…' reopens it",
        )
    open_phase = None if isinstance(step, Done) else step.phase
    if phase.id != open_phase:
        raise UsageError(
            f"{only} is in phase {phase.id}, which is not open yet; phase {open_phase} is",
            hint="python -m phases status",
        )

    # 2. It is not done, or is to be run again.
    item = status.feature(only)
    if item.is_done and not force:
        raise UsageError(
            f"{only} is {item.state} already",
            hint=f"python -m phases run --feature {only} --force",
        )

    # 3. What it needs is verified.
    states = {name: each.state for name, each in state.features.items()}
    missing = [need for need in feature.needs if states[need] != FeatureState.VERIFIED]
    if missing and states[missing[0]] == FeatureState.WAIVED:
        waived_phase, _ = plan.feature(missing[0])
        return Blocked(phase.id, only, missing[0], waived_phase.id)
    if missing:
        raise UsageError(
            f"{only} needs {', '.join(missing)} first",
            hint=f"python -m phases run --feature {missing[0]}",
        )

    # 4. It has attempts left.
    if is_spent(plan, status, item):
        return AttemptsSpent(phase.id, only, item.attempts)
    return RunFeature(phase.id, only)


def _find_feature(plan: Plan, feature_id: str) -> tuple[Phase, Feature]:
    try:
        return plan.feature(feature_id)
    except KeyError:
        ids = [feature.id for phase in plan.phases for feature in phase.features]
        raise UsageError(
            f"the plan has no feature {feature_id!r}; it has {', '.join(ids)}",
            hint="python -m phases status",
        ) from None
