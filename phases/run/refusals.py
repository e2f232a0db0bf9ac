"""What is to run now, and every reason to run nothing."""

from __future__ import annotations

from phases.errors import LimitReachedError, UsageError, WaitingForHumanError
from phases.plan.schema import Feature, Phase
from phases.record.project import Project
from phases.record.state import is_spent, next_step
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunFeature,
    Step,
    next_commands,
)
from phases.run.session import Session


def choose(session: Session, only: str | None, force: bool) -> Step:
    """What to do now: the next step, or the one feature that was asked for."""
    step = next_step(session.plan, session.snapshot.state)
    if only is None:
        return step
    phase, feature = _known_feature(session.project, only)
    current = session.snapshot.state.phase(phase.id)
    opened = None if isinstance(step, Done) else step.phase
    if current.state == "approved":
        raise UsageError(
            f"{only} is in phase {phase.id}, which is approved: its results stand",
            hint=f"python -m phases reject {phase.id} --reason '…' reopens it",
        )
    if phase.id != opened:
        raise UsageError(
            f"{only} is in phase {phase.id}, which is not open yet; phase {opened} is",
            hint="python -m phases status",
        )
    known = current.feature(only)
    if known.is_done and not force:
        raise UsageError(
            f"{only} is {known.state} already",
            hint=f"python -m phases run --feature {only} --force",
        )
    states = {
        item.id: item.state for each in session.snapshot.state.phases for item in each.features
    }
    missing = [need for need in feature.needs if states[need] != "verified"]
    if missing and states[missing[0]] == "waived":
        return Blocked(phase.id, only, missing[0], session.project.plan.feature(missing[0])[0].id)
    if missing:
        raise UsageError(
            f"{only} needs {', '.join(missing)} first",
            hint=f"python -m phases run --feature {missing[0]}",
        )
    if is_spent(session.plan, current, known):
        return AttemptsSpent(phase.id, only, known.attempts)
    return RunFeature(phase.id, only)


def _known_feature(opened: Project, feature_id: str) -> tuple[Phase, Feature]:
    try:
        return opened.plan.feature(feature_id)
    except KeyError:
        known = ", ".join(feature.id for phase in opened.plan.phases for feature in phase.features)
        raise UsageError(
            f"no feature {feature_id!r} in the PRD; it has {known}",
            hint="python -m phases status",
        ) from None


def refuse_while_waiting(opened: Project, step: Step, only: str | None, force: bool) -> None:
    if isinstance(step, AwaitApproval) and not (only and force):
        name, results = opened.plan.phase(step.phase).name, opened.plan.results
        raise WaitingForHumanError(
            f"Phase {step.phase} ({name}) awaits your approval; nothing was run. "
            f"To review: {results}/, progress.txt, git log",
            hint=f"python -m phases approve {step.phase}",
        )


def refuse_spent(step: Step) -> None:
    if isinstance(step, AttemptsSpent):
        what = step.feature or "the exit gates"
        raise LimitReachedError(
            f"{what} of phase {step.phase} failed {step.attempts} times under this plan lock, as often as the plan "
            "allows (attempts); nothing was run",
            hint="a person types one of: " + "; ".join(next_commands(step)),
        )


def refuse_blocked(step: Step) -> None:
    if isinstance(step, Blocked):
        raise WaitingForHumanError(
            f"{step.feature} of phase {step.phase} needs {step.waived}, which was waived and gives nothing",
            hint="a person types one of: " + "; ".join(next_commands(step)),
        )
