"""why ID: why a feature is in its state, and whether it would run now and why. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from phases.errors import UsageError
from phases.plan.schema import Feature, Phase, Plan
from phases.record import entries
from phases.record.ledger import OUTCOMES, EntryKind
from phases.record.project import Snapshot
from phases.record.state import FeatureStatus, PhaseStatus, next_step
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
from phases.views.log import entry_sentence, select_entries
from phases.views.plan import run_reason
from phases.views.stale import NOTHING_STALE, Stale
from phases.views.status import NextAction, attempts_text, next_action


@dataclass(frozen=True)
class Explanation:
    """Why a feature is in its state, and whether it would run now."""

    id: str
    state: FeatureState
    runs: bool
    stale: tuple[str, ...]
    """What changed since it was verified."""
    sentences: tuple[str, ...]
    next: NextAction


def explain_feature(
    plan: Plan, snapshot: Snapshot, feature_id: str, *, stale: Stale = NOTHING_STALE
) -> Explanation:
    """Return the explanation; UsageError if the plan has no such feature."""
    phase, feature = find_feature(plan, feature_id)
    phase_status = snapshot.state.phase(phase.id)
    status = phase_status.feature(feature_id)
    step = next_step(plan, snapshot.state)

    # What stops the whole phase comes before what stops this feature.
    obstacle = _phase_obstacle(step, phase_status) or _feature_obstacle(step, status)
    if obstacle:
        runs, sentence = False, f"It would not run: {obstacle}."
    else:
        runs, sentence = _run_sentence(snapshot, step, status, feature)
    sentences = [_state_sentence(snapshot, status), sentence]
    changes = tuple(stale.get(feature_id, ()))
    if changes:
        sentences.insert(1, f"Stale: {'; '.join(changes)}.")
    if feature.exempt:
        sentences.append(f"Exempt by the plan: {'; '.join(map(str, feature.exempt))}.")
    return Explanation(
        id=feature_id,
        state=status.state,
        runs=runs,
        stale=changes,
        sentences=tuple(sentences),
        next=next_action(step),
    )


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return the object that `why ID --json` prints."""
    return asdict(explanation)


def explanation_text(explanation: Explanation) -> str:
    """Return the explanation for a reader; the last line is the next command, if there is one."""
    lines = list(explanation.sentences)
    if explanation.next.command:
        lines.append(f"next: {explanation.next.command}")
    return "\n".join(lines)


def find_feature(plan: Plan, feature_id: str) -> tuple[Phase, Feature]:
    """Return a feature and its phase; UsageError naming the features that the plan has."""
    try:
        return plan.feature(feature_id)
    except KeyError:
        ids: list[str] = []
        for phase in plan.phases:
            ids += [feature.id for feature in phase.features]
        message = f"no feature {feature_id!r} in the plan; it has {', '.join(ids)}"
        raise UsageError(message, hint="python -m phases status") from None


#### sentences


def _state_sentence(snapshot: Snapshot, status: FeatureStatus) -> str:
    """Return why the feature is in its state: its newest entry, and what that says."""
    # 1. The newest entry.
    history = select_entries(snapshot.ledger, feature=status.id)
    if not history:
        return f"{status.id} is {status.state}: nothing is recorded of it yet."
    newest = history[-1]
    sentences = [
        f"{status.id} is {status.state}.",
        f"Entry {newest.seq:04d}: {entry_sentence(newest)}",
    ]

    # 2. A reset is an entry of the phase, so the feature's own entries do not show it.
    has_ended = newest.kind in (*OUTCOMES, EntryKind.WAIVED)
    if status.state == FeatureState.PENDING and has_ended:
        sentences.append("Since then it was reset.")

    # 3. What has no outcome: it cost no attempt, and was begun again.
    if status.interruptions:
        sentences.append(f"{attempts_text(status)}.")

    # 4. The reasons that the entry gives.
    reasons = []
    for line in newest.lines:
        if entries.FAILING.parse(line) or entries.REASON.parse(line):
            reasons.append(line)
    if reasons:
        sentences.append(f"The entry says: {'; '.join(reasons)}.")
    return " ".join(sentences)


def _phase_obstacle(step: Step, phase: PhaseStatus) -> str | None:
    """Return why no feature of the phase would run, or None."""
    if isinstance(step, Done):
        return "every phase is approved"
    if phase.state == PhaseState.APPROVED:
        return f"phase {phase.id} is approved; only `reject {phase.id}` reopens it"
    if step.phase != phase.id:
        return f"phase {phase.id} is not open yet; phase {step.phase} is"
    if isinstance(step, AwaitApproval):
        return f"phase {phase.id} waits for its approver"
    return None


def _feature_obstacle(step: Step, status: FeatureStatus) -> str | None:
    """Return why the feature itself would not run in its open phase, or None."""
    if status.is_done:
        force = f"`run --feature {status.id} --force` runs it again"
        return f"it is {status.state}; {force}"
    if isinstance(step, AttemptsSpent) and step.feature == status.id:
        commands = " or ".join(f"`{command}`" for command in next_commands(step))
        spent = f"its {step.attempts} attempts under this plan lock are spent"
        return f"{spent}; the approver types {commands}"
    return None


def _run_sentence(
    snapshot: Snapshot, step: Step, status: FeatureStatus, feature: Feature
) -> tuple[bool, str]:
    """Return whether the feature would run, and what it waits for, where nothing forbids it."""
    # 1. What it needs.
    states = {name: item.state for name, item in snapshot.state.features.items()}
    missing = [name for name in feature.needs if states[name] != FeatureState.VERIFIED]
    if missing:
        needs = ", ".join(f"{name}, which is {states[name]}" for name in missing)
        is_waived = any(states[name] == FeatureState.WAIVED for name in missing)
        if isinstance(step, Blocked) or is_waived:
            return False, f"It cannot run: it needs {needs}, and a waived feature has no results."
        if isinstance(step, RunFeature):
            return True, f"It needs {needs}; it runs once they are verified."
        return False, f"It needs {needs}; it waits for them."

    # 2. Its place in the run.
    if isinstance(step, AttemptsSpent):
        spent = f"the attempts of {step.feature} are spent"
        return False, f"It would not run yet: {spent}, and the approver decides about that first."
    if isinstance(step, RunFeature) and step.feature != status.id:
        run = f"in the same run as {step.feature}, after it"
        return True, f"It would run {run}: {run_reason(status)}."
    return True, f"It would run next: {run_reason(status)}."
