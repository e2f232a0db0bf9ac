"""From a judgement to its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phases.judge.measurement_coverage import MeasurementCoverage
from phases.judge.mutation import Judgement
from phases.record.statement import ResourceDescriptor, file_subjects
from phases.record.states import FeatureState
from phases.record.verdict import (
    CoverageReport,
    ExemptionReport,
    GateReport,
    JudgementSeconds,
    MutantReport,
    ScoredPrediction,
    Verdict,
    VerdictPredicate,
    VerdictResult,
)


def verdict_of(
    judgement: Judgement,
    *,
    outputs: Mapping[str, str],
    configuration: Sequence[ResourceDescriptor],
    predictions: Sequence[ScoredPrediction] = (),
) -> Verdict:
    """Return the judgement as a verdict.

    Args:
        judgement: what the gate found.
        outputs: path -> SHA-256 of what was judged: the subject.
        configuration: what judged it, by name and digest.
        predictions: the feature's predictions, scored.
    """
    run = judgement.true_run
    passed = judgement.state == FeatureState.VERIFIED
    gate = GateReport(
        state=judgement.state,
        reasons=judgement.reasons,
        exempt=tuple(
            ExemptionReport(files=exemption.files, reason=exemption.reason)
            for exemption in judgement.exempt
        ),
        digest_only=judgement.digest_only,
        messages={check.id: check.message for check in run.checks if not check.passed},
        nonce=judgement.nonce,
        outcome=run.outcome,
        exit_code=run.exit_code,
        signal=run.signal,
        mutants=tuple(
            MutantReport(
                kind=mutant.mutation.kind,
                target=mutant.mutation.target,
                killed=mutant.killed,
                outcome=mutant.outcome,
                killed_by=mutant.killed_by,
                reason=mutant.reason,
            )
            for mutant in judgement.mutants
        ),
        measurement_coverage=_coverage_report(judgement.coverage),
        seconds=JudgementSeconds(true_run=round(run.seconds, 3), all=round(judgement.seconds, 3)),
    )
    report = VerdictPredicate(
        result=VerdictResult.PASSED if passed else VerdictResult.FAILED,
        configuration=tuple(configuration),
        passed_tests=tuple(check.id for check in run.checks if check.passed),
        failed_tests=run.failing,
        gate=gate,
        predictions=tuple(predictions),
    )
    return Verdict(subject=file_subjects(outputs), predicate=report)


def _coverage_report(coverage: MeasurementCoverage | None) -> CoverageReport | None:
    if coverage is None:
        return None
    return CoverageReport(
        fraction=coverage.fraction,
        recomputed=coverage.recomputed,
        bounded=coverage.bounded,
        claimed=coverage.claimed,
    )
