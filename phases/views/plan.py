"""plan: what `run --next` would do and why, as text and as JSON.

Pure, but for the gates' files that `planned_weak_gates` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phases.plan.schema import Plan
from phases.plan.weak_gates import WeakGate, find_weak_gates
from phases.record.project import Snapshot
from phases.record.state import FeatureStatus, next_step
from phases.record.states import FeatureState
from phases.record.steps import AttemptsSpent, AwaitApproval, Blocked, Done, Step
from phases.views.stale import NOTHING_STALE, Stale
from phases.views.status import next_action, next_lines


@dataclass(frozen=True)
class PlannedFeature:
    """A feature that `run --next` would run, with what its author expects of it."""

    id: str
    title: str
    reason: str
    runs: str | None
    """Its module or command."""
    minutes: float
    memory_gb: float
    exempt: tuple[str, ...]
    """Files whose damage its gate may overlook, and why."""


@dataclass(frozen=True)
class StaleFeature:
    """A verified feature of the open phase that `run --next` would not run again."""

    id: str
    changes: tuple[str, ...]
    """What changed since it was verified."""
    command: str
    """What runs it again."""


def planned_weak_gates(plan: Plan, snapshot: Snapshot, root: Path) -> list[WeakGate]:
    """Return the weak ones of the feature and exit gates that `run --next` would run."""
    step = next_step(plan, snapshot.state)
    if isinstance(step, Done | AwaitApproval | AttemptsSpent | Blocked):
        return []
    features = [feature.id for feature in _planned_features(plan, snapshot, step)]
    return find_weak_gates(plan.phase(step.phase), features, root)


def plan_json(
    plan: Plan,
    snapshot: Snapshot,
    *,
    stale: Stale = NOTHING_STALE,
    weak_gates: Sequence[WeakGate] = (),
) -> dict[str, Any]:
    """Return the object that `plan --json` prints."""
    step = next_step(plan, snapshot.state)
    features: list[PlannedFeature] = []
    phase = None
    if not isinstance(step, Done):
        phase = step.phase
    if not isinstance(step, AwaitApproval):
        features = _planned_features(plan, snapshot, step)
    return {
        "phase": phase,
        "features": [asdict(feature) for feature in features],
        "stale": [asdict(feature) for feature in _stale_features(snapshot, step, stale)],
        "weak_gates": [asdict(weak_gate) for weak_gate in weak_gates],
        "next": asdict(next_action(step)),
    }


def plan_text(
    plan: Plan,
    snapshot: Snapshot,
    *,
    stale: Stale = NOTHING_STALE,
    weak_gates: Sequence[WeakGate] = (),
) -> str:
    """Return what `run --next` would do and why, with expected minutes and memory."""
    # 1. It runs nothing where the approver has to act first.
    step = next_step(plan, snapshot.state)
    stale_lines = []
    for item in _stale_features(snapshot, step, stale):
        stale_lines.append(f"  stale   {item.id}: {'; '.join(item.changes)}")
        stale_lines.append(f"          `{item.command}` runs it again")
    if isinstance(step, Done):
        return "run --next would run nothing: every phase is approved."
    if isinstance(step, AwaitApproval | AttemptsSpent | Blocked):
        reason, *commands = next_lines(step, plan.results)
        if isinstance(step, AwaitApproval):
            reason = f"phase {step.phase} awaits your approval."
        return "\n".join([f"run --next would run nothing: {reason}", *stale_lines, *commands])

    # 2. What it runs, in order.
    phase = plan.phase(step.phase)
    features = _planned_features(plan, snapshot, step)
    lines = [f"run --next would run phase {phase.id}, {phase.name}, up to its checkpoint:"]
    lines += [f"  setup   {command}" for command in phase.setup]
    lines += [f"  entry   {gate.name}" for gate in phase.entry]
    for feature in features:
        cost = f"about {feature.minutes:g} min, {feature.memory_gb:g} GB"
        lines.append(f"  {feature.id:<10} {feature.title:<36} {feature.runs}")
        lines.append(f"             {cost}; {feature.reason}")
        lines += [f"             exempt: {exemption}" for exemption in feature.exempt]
    lines += [f"  exit    {gate.name}" for gate in phase.exit]
    lines += stale_lines
    for weak_gate in weak_gates:
        gate = f"{weak_gate.of} gate {weak_gate.gate}"
        lines.append(f"  weak    {gate}: {weak_gate.reason} (docs/gates.md)")

    # 3. What all of it costs.
    minutes = sum(feature.minutes for feature in features)
    memory_gb = max((feature.memory_gb for feature in features), default=0)
    cost = f"in all about {minutes:g} min, at most {memory_gb:g} GB"
    lines.append(f"{cost}; then it halts for your approval of phase {phase.id}")
    return "\n".join(lines)


def _planned_features(plan: Plan, snapshot: Snapshot, step: Step) -> list[PlannedFeature]:
    """Return the features of the step's phase that are not done."""
    if isinstance(step, Done):
        return []
    phase_status = snapshot.state.phase(step.phase)
    features = []
    for feature in plan.phase(step.phase).features:
        # Verified and waived features do not run again by themselves.
        status = phase_status.feature(feature.id)
        if status.is_done:
            continue
        planned = PlannedFeature(
            id=feature.id,
            title=feature.title,
            reason=run_reason(status),
            runs=feature.module or feature.command,
            minutes=feature.expect.minutes,
            memory_gb=feature.expect.memory_gb,
            exempt=tuple(map(str, feature.exempt)),
        )
        features.append(planned)
    return features


def _stale_features(snapshot: Snapshot, step: Step, stale: Stale) -> list[StaleFeature]:
    """Return the features of the step's phase that are verified and stale."""
    if isinstance(step, Done):
        return []
    features = []
    for status in snapshot.state.phase(step.phase).features:
        if status.id in stale:
            command = f"python -m phases run --feature {status.id} --force"
            features.append(StaleFeature(status.id, tuple(stale[status.id]), command))
    return features


def run_reason(feature: FeatureStatus) -> str:
    """Return why a feature that is not done would run."""
    if feature.state in (FeatureState.FAILED, FeatureState.ERRORED):
        return f"attempt {feature.started} {feature.state}"
    if feature.state == FeatureState.RUNNING:
        return "the last run was killed"
    if feature.started == 0:
        return "not run yet"
    return "interrupted or reset"
