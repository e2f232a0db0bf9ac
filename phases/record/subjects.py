"""Subjects of the runner's commits: what `git log` shows.

The runner writes them; `audit` makes them again and compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from phases.base.text import printable
from phases.plan.schema import Feature, Phase
from phases.record.decision_record import Assurance, Decision, DecisionResult
from phases.record.verdict import Verdict

MAX_SUBJECT = 120  # characters of an outcome's subject, which ends with a reason

_DECIDED = {
    DecisionResult.PASS: "approved",
    DecisionResult.FAIL: "rejected",
    DecisionResult.RELOCK: "relocked",
    DecisionResult.WAIVE: "waived",
}


def outcome_subject(
    feature: Feature, state: str, verdict: Verdict | None, reasons: Sequence[str]
) -> str:
    """Return the subject of VERIFIED, FAILED or ERRORED of a feature."""
    passed = len(verdict.passed_tests) if verdict else 0
    detail = reasons[0] if reasons else f"{passed} checks"
    return printable(f"{feature.id} {feature.title}: {state} ({detail})", MAX_SUBJECT)


def interrupted_subject(feature_id: str, title: str) -> str:
    """Return the subject of INTERRUPTED."""
    return f"{feature_id} {title}: interrupted"


def halted_subject(phase: Phase) -> str:
    """Return the subject of HALTED."""
    return f"Phase {phase.id} {phase.name}: awaiting approval"


def exit_failed_subject(phase: Phase) -> str:
    """Return the subject of FAILED of a phase itself."""
    return f"Phase {phase.id} {phase.name}: exit gates failed"


def decision_subject(decision: Decision, waived_title: str = "") -> str:
    """Return the subject of a decision.

    Args:
        decision: what its record says.
        waived_title: the title of the first feature that it waives.
    """
    about = f"Phase {decision.phase.id} {decision.phase.name}"
    if decision.waived:
        about = f"{decision.waived[0]} {waived_title}"
    subject = f"{about}: {_DECIDED[decision.result]}"
    if decision.assurance == Assurance.SCRIPTED:
        subject += " by a script (sample run)"
    return subject
