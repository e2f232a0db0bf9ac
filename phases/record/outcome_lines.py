"""The lines of an entry about an attempt, made from its documents.

The runner writes them; `audit` makes them again and compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from phases.base.text import printable
from phases.plan.schema import Feature
from phases.record import entries
from phases.record.entries import GateSummary, RecordedFile
from phases.record.receipt import Receipt
from phases.record.result import ReportedMeasurements
from phases.record.verdict import AttemptRecord, Verdict

SHOWN_PROGRAM = 120  # characters
REPEATED = " (a repeated attempt)"


def started_lines(
    program: str, *, attempt: int, seed: int, profile: str, sandbox: str, head: str, txn: str
) -> tuple[str, ...]:
    """Return the lines of STARTED: what is about to run, and on which commit."""
    started = entries.STARTED.format(
        attempt=attempt, what=printable(program), seed=seed, profile=profile, sandbox=sandbox
    )
    return (started, entries.HEAD.format(commit=head), entries.TRANSACTION.format(txn=txn))


def verified_lines(
    feature: Feature,
    receipt: Receipt,
    verdict: Verdict,
    reported: ReportedMeasurements,
    *,
    discarded: Sequence[str],
    is_first: bool,
    receipt_file: RecordedFile,
    verdict_file: RecordedFile,
) -> tuple[str, ...]:
    """Return the lines of VERIFIED.

    Args:
        feature: the feature, by the plan that ran.
        receipt: the attempt's receipt.
        verdict: the verdict on its outputs.
        reported: what its result.json reports.
        discarded: the lines on what the experiment changed in its copy, which nothing else says.
        is_first: whether the feature was never verified before.
        receipt_file: where the receipt is committed.
        verdict_file: where the verdict is committed.
    """
    outcomes = [prediction.outcome for prediction in verdict.predicate.predictions]
    predictions = entries.prediction_lines(outcomes)
    if not is_first:
        predictions = tuple(f"{line}{REPEATED}" for line in predictions)
    return (
        _ran_line(feature, receipt),
        *discarded,
        *entries.measured_lines(reported),
        *predictions,
        *gate_lines(feature.gate.name, verdict),
        receipt_file.line(entries.RECEIPT),
        verdict_file.line(entries.VERDICT),
    )


def attempt_lines(
    feature: Feature,
    record: AttemptRecord,
    measured: Sequence[str],
    *,
    discarded: Sequence[str],
    record_file: RecordedFile,
) -> tuple[str, ...]:
    """Return the lines of FAILED or ERRORED of a feature.

    Args:
        feature: the feature, by the plan that ran.
        record: what the attempt left.
        measured: the line on what it measured; its outputs are not committed.
        discarded: see `verified_lines`.
        record_file: where the record is committed.
    """
    judged: tuple[str, ...] = ()
    if record.verdict is not None:
        judged = gate_lines(feature.gate.name, record.verdict)
    return (
        _ran_line(feature, record.receipt),
        *discarded,
        *measured,
        *judged,
        *entries.reason_lines(record.reasons),
        record_file.line(entries.ATTEMPT_RECORD),
    )


def _ran_line(feature: Feature, receipt: Receipt) -> str:
    parameters = receipt.parameters
    return ran_line(
        feature.program,
        _seconds(receipt),
        attempt=parameters.attempt,
        seed=parameters.seed,
        profile=parameters.profile,
        sandbox=receipt.tier,
    )


def ran_line(
    program: str, seconds: float, *, attempt: int, seed: int, profile: str, sandbox: str
) -> str:
    """Return the line on what was run, and for how long."""
    return entries.RAN.format(
        what=printable(program, SHOWN_PROGRAM),
        seconds=whole_seconds(seconds),
        attempt=attempt,
        seed=seed,
        profile=profile,
        sandbox=sandbox,
    )


def _seconds(receipt: Receipt) -> float:
    seconds = receipt.process.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return 0.0
    return seconds


def whole_seconds(seconds: float) -> int:
    """Return how long something took as readers see it: whole seconds, at least 1."""
    return max(1, round(seconds))


def gate_lines(name: str, verdict: Verdict) -> tuple[str, ...]:
    """Return the lines on what a gate found: in numbers, then the checks that failed."""
    failed = [(check, verdict.gate.messages.get(check, "")) for check in verdict.failed_tests]
    return (*gate_summary(name, verdict).lines, *entries.failing_lines(failed))


def gate_summary(name: str, verdict: Verdict) -> GateSummary:
    """Return what an entry says of a verdict in numbers."""
    coverage = verdict.gate.measurement_coverage
    counts = None
    if coverage is not None:
        recomputed, bounded = len(coverage.recomputed), len(coverage.bounded)
        total = recomputed + bounded + len(coverage.claimed)
        counts = (recomputed, bounded, total) if total else None
    required = verdict.gate.required_mutants
    return GateSummary(
        name=name,
        passed=len(verdict.passed_tests),
        failed=len(verdict.failed_tests),
        coverage=counts,
        killed=sum(mutant.killed for mutant in required),
        mutants=len(required),
        digest_only=verdict.gate.digest_only,
        exempt=tuple(map(str, verdict.gate.exempt)),
    )
