"""What is waived together, and how each feature was before, in words."""

from __future__ import annotations

from collections.abc import Sequence

from phases.plan.schema import Feature, Phase, Plan
from phases.record.state import FeatureStatus, State
from phases.record.states import FeatureState


def states_before_waiver(plan: Plan, state: State, phase: Phase, feature_id: str) -> dict[str, str]:
    """Return a feature and everything of its phase that needs it and is not done.

    Each id -> its state before, as its WAIVED entry says it.
    """
    status = state.phase(phase.id)
    item = status.feature(feature_id)
    needs = waived_needs(plan, state, feature_id)
    waived = {feature_id: describe_state(item)}
    if needs:
        waived[feature_id] = f"{item.state}; it needs {', '.join(needs)}, which was waived"
    for name in dependants(phase.features, {feature_id}):
        dependant = status.feature(name)
        if name != feature_id and not dependant.is_done:
            description = describe_state(dependant)
            waived[name] = f"{description}; it needs {feature_id} and is waived with it"
    return waived


def waived_needs(plan: Plan, state: State, feature_id: str) -> list[str]:
    """Return which of the features that a feature needs were waived."""
    _, feature = plan.feature(feature_id)
    states = state.features
    return [need for need in feature.needs if states[need].state == FeatureState.WAIVED]


def describe_state(item: FeatureStatus) -> str:
    """Return `failed, 3 attempts under this lock`."""
    if item.attempts == 0:
        attempts = "no attempt"
    elif item.attempts == 1:
        attempts = "1 attempt"
    else:
        attempts = f"{item.attempts} attempts"
    return f"{item.state}, {attempts} under this lock"


def dependants(features: Sequence[Feature], chosen: set[str]) -> list[str]:
    """Return the chosen features and everything that needs one of them, in the plan's order."""
    grown = set(chosen)
    while True:
        more = {feature.id for feature in features if grown & set(feature.needs)} - grown
        if not more:
            return [feature.id for feature in features if feature.id in grown]
        grown |= more
