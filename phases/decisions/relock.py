"""relock: lock a changed plan within a phase. Features whose part of it changed become pending."""

from __future__ import annotations

from functools import partial

from phases.decisions.decide import decide
from phases.decisions.proposal import (
    DecisionContext,
    Proposal,
    require_presence_allowed,
)
from phases.errors import UsageError
from phases.plan.lock import gate_scope
from phases.plan.schema import Feature, Plan
from phases.record.decision_record import DecisionResult
from phases.record.project import Project
from phases.record.states import PhaseState
from phases.record.waivers import dependants
from phases.run.plan_locks import committed_lock, lock_changes, lock_diff
from phases.run.preflight import check_work_tree


def relock(project: Project, phase_id: int, summary: str, *, reason: str) -> str:
    """Lock a phase's plan as HEAD has it; return the record's path."""
    return decide(project, phase_id, summary, partial(_examine, reason=reason))


def _examine(context: DecisionContext, *, reason: str) -> Proposal:
    project, repo, phase = context.project, context.repo, context.phase
    status = context.status
    require_presence_allowed(context)

    # 1. The phase holds a lock, and the plan is committed.
    if status.lock is None or status.state == PhaseState.APPROVED:
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {status.state} and has no lock to change",
            hint="python -m phases status",
        )
    check_work_tree(context.tree, project.plan, phase, phase.features)

    # 2. What changed, and what is reset by it.
    lock = committed_lock(context.tree, phase.id)
    changes = lock_changes(project, repo, context.snapshot, lock)
    reset = _reset_features(context, set(changes))
    effect = "attempts are counted anew\nnothing differs"
    if changes:
        diff = lock_diff(repo, context.status.lock_commit, changes)
        effect = f"{', '.join(changes)}{diff}"
    question = (
        f"Relock phase {phase.id}: {effect}\nreset: {', '.join(reset) or 'none'}\nReason: {reason}"
    )
    return Proposal(
        result=DecisionResult.RELOCK,
        question=question,
        reason=reason,
        reset=tuple(reset),
    )


def _reset_features(context: DecisionContext, changes: set[str]) -> list[str]:
    """Return the features that are done and are touched by a change, or depend on one that is."""
    touched = set()
    plan = context.project.plan
    for feature in context.phase.features:
        if any(_is_component(plan, feature, name) for name in changes):
            touched.add(feature.id)
    done = {item.id for item in context.status.features if item.is_done}
    return [name for name in dependants(context.phase.features, touched) if name in done]


def _is_component(plan: Plan, feature: Feature, name: str) -> bool:
    """Say whether a component of the lock decides about this feature."""
    if name in ("plan: defaults", "plan: results", "runner", f"plan: {feature.id}", feature.config):
        return True
    if name.startswith("input: "):
        return name.removeprefix("input: ") in feature.inputs
    return name.startswith("gates/") and bool(gate_scope(plan, feature.gate, [name]))
