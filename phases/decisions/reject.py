"""reject: send a phase back. Its lock is released; its features become pending."""

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
from phases.record.decision_record import DecisionResult
from phases.record.project import Project
from phases.record.states import PhaseState
from phases.record.waivers import dependants


def reject(
    project: Project, phase_id: int, summary: str, *, reason: str, feature: str | None
) -> str:
    """Reject a phase, or one feature of it and what depends on it; return the record's path."""
    return decide(project, phase_id, summary, partial(_examine, reason=reason, feature=feature))


def _examine(context: DecisionContext, *, reason: str, feature: str | None) -> Proposal:
    phase = context.phase
    require_presence_allowed(context)
    chosen = {item.id for item in phase.features}
    if feature is not None:
        require_feature(phase, feature)
        chosen = {feature}
    if context.status.state == PhaseState.PENDING:
        raise UsageError(
            f"phase {phase.id} ({phase.name}) has not begun; there is nothing to reject",
            hint="python -m phases status",
        )
    reset = dependants(phase.features, chosen)
    return Proposal(
        result=DecisionResult.FAIL,
        question=f"Reject phase {phase.id}; reset: {', '.join(reset)}\nReason: {reason}",
        reason=reason,
        reset=tuple(reset),
    )
