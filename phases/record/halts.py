"""What the runner records where a phase halts: the review request, and the lines of the entry.

The runner writes them; `audit` makes them again and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from phases.plan.schema import Gate, Phase
from phases.record import entries
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, EntryKind
from phases.record.outcome_lines import gate_lines
from phases.record.review_request import (
    GitCommit,
    PhaseName,
    Review,
    ReviewedFeature,
    ReviewRequest,
    Sha256,
)
from phases.record.state import PhaseStatus, done_counts
from phases.record.statement import ResourceDescriptor, file_subjects
from phases.record.states import FeatureState
from phases.record.verdict import PhaseVerdict


def reviewed_gates(phase: Phase) -> list[Gate]:
    """Return the gates that judged a phase and its features, sorted by name."""
    gates = {gate.name: gate for gate in phase.exit}
    for feature in phase.features:
        gates[feature.gate.name] = feature.gate
    return [gates[name] for name in sorted(gates)]


def compose_request(
    phase: Phase,
    status: PhaseStatus,
    before: Iterable[Entry],
    *,
    commit: str,
    gates: Sequence[ResourceDescriptor],
    exit_verdict: str | None,
    requested_on: str,
    txn: str,
) -> ReviewRequest:
    """Return the review request of a phase whose exit gates passed.

    Args:
        phase: the phase, by the plan that judged it.
        status: the phase by the ledger.
        before: the entries before its HALTED.
        commit: the commit whose plan and gates judged it.
        gates: `reviewed_gates`, by digest.
        exit_verdict: SHA-256 of the exit gates' verdict; None where there are none.
        requested_on: the time.
        txn: the transaction.
    """
    # 1. Features; their receipts are the subjects.
    features = []
    receipts = {}
    for item in status.features:
        receipt = item.receipt if item.state == FeatureState.VERIFIED else None
        if receipt:
            receipts[item.id] = receipt
        features.append(
            ReviewedFeature(
                id=item.id,
                title=item.title,
                state=item.state,
                receipt=receipt,
                attempts=item.attempts,
                measurement_coverage=item.coverage,
            )
        )

    # 2. How often the phase has halted before.
    halts = [entry for entry in before if (entry.kind, entry.phase) == (EntryKind.HALTED, phase.id)]
    review = Review(
        phase=PhaseName(id=phase.id, name=phase.name),
        attempt=len(halts) + 1,
        commit=GitCommit(git_commit=commit),
        lock=Sha256(sha256=status.lock or ""),
        gates=tuple(gates),
        features=tuple(features),
        exit_verdict=Sha256(sha256=exit_verdict) if exit_verdict else None,
        requested_on=requested_on,
        txn=txn,
    )
    return ReviewRequest(subject=file_subjects(receipts), predicate=review)


def exit_lines(phase: Phase, verdict: PhaseVerdict, verdict_file: RecordedFile) -> tuple[str, ...]:
    """Return the lines on what a phase's exit gates found."""
    lines: list[str] = []
    for gate, each in zip(phase.exit, verdict.verdicts, strict=True):
        lines += gate_lines(gate.name, each)
    return (*lines, verdict_file.line(entries.VERDICT))


def exit_reasons(verdict: PhaseVerdict) -> tuple[str, ...]:
    """Return why the exit gates did not pass; () if they did."""
    reasons: list[str] = []
    for each in verdict.verdicts:
        if each.gate.state != FeatureState.VERIFIED:
            reasons += each.gate.reasons or ("failed",)
    return tuple(reasons)


def halt_lines(request: RecordedFile, status: PhaseStatus, head: str) -> tuple[str, ...]:
    """Return the lines by which a HALTED entry names what waits for the approver."""
    return (
        entries.FEATURES.format(counts=done_counts(status.done.values())),
        request.line(entries.REQUEST),
        entries.HEAD.format(commit=head),
        entries.NEXT.format(command=f"python -m phases approve {status.id}"),
    )
