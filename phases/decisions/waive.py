"""approve --waive: let a phase go on without a feature that fails.

So no one has to weaken a gate to go on. Its failed attempts stay as they are; it has no results for
features that need it, the exit gates see no folder of it, and every view says first that it was
waived, by whom and why.
"""

from __future__ import annotations

from functools import partial

from phases.decisions.decide import decide
from phases.decisions.proposal import (
    DecisionContext,
    Proposal,
    require_feature,
    require_presence_allowed,
)
from phases.errors import UsageError
from phases.plan.schema import Phase, Plan
from phases.record import entries
from phases.record.decision_record import DecisionResult
from phases.record.ledger import OUTCOMES, Ledger
from phases.record.project import Project
from phases.record.state import State, next_step
from phases.record.states import FeatureState, PhaseState
from phases.record.waivers import states_before_waiver, waived_needs
from phases.run.plan_locks import require_lock_unchanged
from phases.run.preflight import check_work_tree

MEANING = (
    "Waived means: the phase goes on without it. It stays unverified, its failed attempts stay in "
    "the record, the exit gates see nothing of it, and every view says so first. It does not "
    "approve the phase."
)


def waive(project: Project, phase_id: int, summary: str, *, feature: str, reason: str) -> str:
    """Waive a feature of the open phase; return the record's path.

    Raises:
        WaitingForHumanError: no one answered, or with other words; nothing was recorded.
        UsageError: the feature has not failed, or the phase is not open.
        IntegrityError: the plan is not what the phase was locked on.
    """
    return decide(project, phase_id, summary, partial(_examine, feature_id=feature, reason=reason))


def _examine(context: DecisionContext, *, feature_id: str, reason: str) -> Proposal:
    project, phase = context.project, context.phase

    # 1. The feature may be waived.
    require_presence_allowed(context)
    waived = waivable_features(project.plan, context.snapshot.state, phase, feature_id)
    check_work_tree(context.tree, project.plan, phase, phase.features)
    require_lock_unchanged(project, context.tree, context.snapshot, phase)

    # 2. What the approver should know.
    listing = "".join(f"\n  {name}: {state}" for name, state in waived.items())
    newest = _newest_reasons(context.snapshot.ledger, feature_id)
    attempt = "".join(f"\n  {line}" for line in newest) or " nothing"
    return Proposal(
        result=DecisionResult.WAIVE,
        question=(
            f"Waive in phase {phase.id}:{listing}\n"
            f"What its newest attempt said:{attempt}\n{MEANING}\nReason: {reason}"
        ),
        reason=reason,
        waived=waived,
    )


def waivable_features(plan: Plan, state: State, phase: Phase, feature_id: str) -> dict[str, str]:
    """Return the feature and what of its phase cannot run without it: id -> state before. Pure.

    Raises:
        UsageError: the phase is not the open one, or the feature neither failed nor needs a waived
            one.
    """
    # 1. The phase is open.
    status = state.phase(phase.id)
    step = next_step(plan, state)
    is_open = getattr(step, "phase", None) == phase.id
    if not is_open or status.state == PhaseState.AWAITING_APPROVAL:
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {status.state}; "
            "only a feature of the open phase can be waived",
            hint="python -m phases status",
        )
    require_feature(phase, feature_id)

    # 2. The feature failed, or cannot run because of an earlier waiver.
    item = status.feature(feature_id)
    has_failed = item.state in (FeatureState.FAILED, FeatureState.ERRORED)
    cannot_run = item.state == FeatureState.PENDING and waived_needs(plan, state, feature_id)
    if not has_failed and not cannot_run:
        raise UsageError(
            f"{feature_id} is {item.state}; only a feature that failed or errored can be waived",
            hint=f"python -m phases why {feature_id}",
        )
    return states_before_waiver(plan, state, phase, feature_id)


def _newest_reasons(ledger: Ledger, feature_id: str) -> list[str]:
    """Return why the feature's newest attempt was not verified, in the entry's own lines."""
    newest = None
    for entry in ledger.entries:
        if entry.feature == feature_id and entry.kind in OUTCOMES:
            newest = entry
    if newest is None:
        return []
    formats = (
        entries.GATE,
        entries.MEASUREMENT_COVERAGE,
        entries.MUTANTS,
        entries.FAILING,
        entries.REASON,
    )
    return [line for line in newest.lines if any(item.parse(line) for item in formats)]
