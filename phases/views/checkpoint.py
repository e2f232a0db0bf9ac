"""The summary that the approver reads before a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from phases.base.text import format_count, printable
from phases.plan.schema import Phase
from phases.record.project import Project, load_unverified
from phases.record.state import FeatureState, FeatureStatus, PhaseStatus
from phases.record.statement import DocumentError
from phases.record.verdict import Verdict
from phases.views.status import coverage_text, override_lines, phase_heading, receipt_name


@dataclass(frozen=True)
class VerdictDetails:
    """What of a stored verdict the approver sees."""

    passed: int
    """Checks of the gate that passed."""
    killed: int
    mutants: int
    exempt: tuple[str, ...]
    """Kinds of outputs that the plan exempts from mutation."""
    claimed: tuple[str, ...]
    """Measurements that the gate neither recomputes nor bounds."""
    predictions: tuple[str, ...]
    """`HELD: the total is 14`."""

    @property
    def checks_text(self) -> str:
        """`3 passed; mutants 6/6 killed`."""
        return f"{self.passed} passed; mutants {self.killed}/{self.mutants} killed"


def verdict_details(verdict: Verdict) -> VerdictDetails:
    """Return what of a stored verdict the approver sees."""
    gate = verdict.gate
    claimed: tuple[str, ...] = ()
    if gate.measurement_coverage is not None:
        claimed = gate.measurement_coverage.claimed
    predictions = [f"{item.outcome}: {item.claim}" for item in verdict.predicate.predictions]
    return VerdictDetails(
        passed=len(verdict.predicate.passed_tests),
        killed=sum(mutant.killed for mutant in gate.mutants),
        mutants=len(gate.mutants),
        exempt=gate.exempt,
        claimed=claimed,
        predictions=tuple(predictions),
    )


def checkpoint_summary(project: Project, phase: Phase) -> str:
    """Return the summary of a phase, with the verdicts that are stored in the work tree."""
    # Unverified: the decision itself reads the record again and verifies it.
    status = load_unverified(project).state.phase(phase.id)
    details = {}
    for feature in status.features:
        if feature.state != FeatureState.VERIFIED:
            continue
        path = project.root / project.paths.results(feature.id) / "verdict.json"
        try:
            details[feature.id] = verdict_details(Verdict.decode(path.read_bytes()))
        except (FileNotFoundError, DocumentError):
            # A decision refuses results that differ from the commit; the summary only omits them.
            continue
    return checkpoint_text(status, details, project.plan.results)


def checkpoint_text(
    status: PhaseStatus, details: Mapping[str, VerdictDetails], results: str
) -> str:
    """Return the summary of a phase. Pure.

    Args:
        status: the phase as the ledger has it.
        details: feature id -> what its stored verdict says.
        results: the folder of the results.
    """
    lines = [phase_heading(status), *override_lines(status.overrides), *_retry_lines(status), ""]
    for feature in status.features:
        lines += _feature_lines(feature, details.get(feature.id), results)
    if status.request:
        lines += ["", f"review request sha256:{status.request}"]
    return "\n".join(printable(line, 400) for line in lines)


def _retry_lines(status: PhaseStatus) -> list[str]:
    """Return what took more than one attempt: the approver sees what was tried until it passed."""
    lines = []
    for feature in status.features:
        if feature.started > 1:
            lines.append(f"  {feature.id}: {feature.started} attempts in all")
    if status.exit_attempts:
        lines.append(f"  exit gates: failed {format_count(status.exit_attempts, 'time')}")
    if lines:
        lines = ["", "tried more than once:", *lines]
    return lines


def _feature_lines(
    feature: FeatureStatus, details: VerdictDetails | None, results: str
) -> list[str]:
    # 1. What the gate judged, and before it what it did not have to.
    lines = [f"{feature.id} {feature.title}: {feature.state}, attempt {feature.started}"]
    if details and details.exempt:
        lines.append(f"    exempt by the plan: {', '.join(details.exempt)}")
    if details:
        lines.append(f"    checks: {details.checks_text}")

    # 2. Measurements and predictions.
    coverage = coverage_text(feature)
    if coverage and details and details.claimed:
        coverage += f"; only claimed: {', '.join(details.claimed)}"
    if coverage:
        lines.append(f"    {coverage}")
    if details:
        lines += [f"    prediction {prediction}" for prediction in details.predictions]

    # 3. The receipt, which names everything else by digest.
    if feature.receipt and feature.state == FeatureState.VERIFIED:
        path = f"{results}/{feature.id}/receipt.json"
        lines.append(f"    receipt {receipt_name(feature)}  {path}")
    return lines
