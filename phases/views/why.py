"""Why a feature is in its state, and whether it would run now and why: in sentences. Pure."""

from __future__ import annotations

from typing import Any

from phases.errors import UsageError
from phases.plan.outline import FeatureLike, PhaseLike, PlanLike
from phases.record import state
from phases.record.ledger import Entry
from phases.record.project import Snapshot
from phases.record.state import FeatureStatus, PhaseStatus, next_step
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunFeature,
    Step,
    next_commands,
)
from phases.views.sentences import sentence
from phases.views.status import next_action, reason


def find(plan: PlanLike, feature_id: str) -> tuple[PhaseLike, FeatureLike]:
    """The feature and its phase; UsageError naming those that there are."""
    for phase in plan.phases:
        for feature in phase.features:
            if feature.id == feature_id:
                return phase, feature
    known = ", ".join(feature.id for phase in plan.phases for feature in phase.features)
    raise UsageError(
        f"no feature {feature_id!r} in the PRD; it has {known}", hint="python -m phases status"
    )


def why(plan: PlanLike, snapshot: Snapshot, feature_id: str) -> dict[str, Any]:
    """`why ID --json`: id, state, whether it would run now, and the sentences."""
    phase, feature = find(plan, feature_id)
    current = snapshot.state.phase(phase.id)
    item = current.feature(feature_id)
    step = next_step(plan, snapshot.state)
    runs, told = _would_run(snapshot, step, current, item, feature)
    return {
        "id": item.id,
        "state": item.state,
        "runs": runs,
        "sentences": [_stands(snapshot, item), told],
        "next": next_action(step),
    }


def text(told: dict[str, Any]) -> str:
    """The same for a person."""
    command = told["next"]["command"]
    return "\n".join([*told["sentences"], *([f"next: {command}"] if command else [])])


def entries_of(snapshot: Snapshot, feature_id: str) -> list[Entry]:
    """Every entry about a feature."""
    return [entry for entry in snapshot.ledger.entries if entry.feature == feature_id]


def _stands(snapshot: Snapshot, item: FeatureStatus) -> str:
    """Why it is in its state."""
    newest = next(iter(reversed(entries_of(snapshot, item.id))), None)
    if newest is None:
        return f"{item.id} is {item.state}: nothing is recorded of it yet."
    because = [line for line in newest.lines if line.startswith(("failing ", "reason "))]
    said = f"{item.id} is {item.state}. Entry {newest.seq:04d}: {sentence(newest)}"
    if item.state == "pending" and newest.kind in (*state.OUTCOMES, "WAIVED"):
        said += " Since then a person sent it back."
    return said + (f" It said: {'; '.join(because)}." if because else "")


def _would_run(
    snapshot: Snapshot, step: Step, current: PhaseStatus, item: FeatureStatus, feature: FeatureLike
) -> tuple[bool, str]:
    """Whether `run --next` would run it, and why, in a sentence."""
    if isinstance(step, Done):
        return False, "It would not run: every phase is approved."
    if current.state == "approved":
        return (
            False,
            f"It would not run: phase {current.id} is approved; only `reject {current.id}` reopens it.",
        )
    if isinstance(step, AwaitApproval) and step.phase == current.id:
        return False, f"It would not run: phase {current.id} waits for a person's approval."
    if step.phase != current.id:
        return (
            False,
            f"It would not run: phase {current.id} is not open yet; phase {step.phase} is.",
        )
    if item.is_done:
        return (
            False,
            f"It would not run: it is {item.state}; `run --feature {item.id} --force` runs it again.",
        )
    if isinstance(step, AttemptsSpent) and step.feature == item.id:
        ways = " or ".join(f"`{way}`" for way in next_commands(step))
        return (
            False,
            f"It would not run: its {step.attempts} attempts under this plan lock are spent; a person types {ways}.",
        )
    missing = [need for need in feature.needs if _state_of(snapshot, need) != "verified"]
    if missing:
        return _waits(snapshot, step, missing)
    if isinstance(step, RunFeature) and step.feature == item.id:
        return True, f"It would run next: {reason(item)}."
    if isinstance(step, AttemptsSpent):
        return (
            False,
            f"It would not run yet: the attempts of {step.feature} are spent, and a person decides about it first.",
        )
    return (
        True,
        f"It would run in the same run as {getattr(step, 'feature', 'the others')}, after it: {reason(item)}.",
    )


def _waits(snapshot: Snapshot, step: Step, missing: list[str]) -> tuple[bool, str]:
    needs = ", ".join(f"{name}, which is {_state_of(snapshot, name)}" for name in missing)
    if isinstance(step, Blocked) or "waived" in {_state_of(snapshot, name) for name in missing}:
        return False, f"It cannot run: it needs {needs}, and a waived feature gives nothing."
    runs = isinstance(step, RunFeature)
    return runs, f"It needs {needs}; " + (
        "it runs once they are verified." if runs else "it waits for them."
    )


def _state_of(snapshot: Snapshot, feature_id: str) -> str:
    return next(
        item.state
        for phase in snapshot.state.phases
        for item in phase.features
        if item.id == feature_id
    )
