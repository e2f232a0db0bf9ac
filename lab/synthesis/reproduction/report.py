"""Findings of the reproduction: what did not reproduce comes first."""

from __future__ import annotations

from lab.present.numbers import count, number
from lab.synthesis.reproduction.measured import (
    ComparedRow,
    Outcome,
    Replayed,
    ReproductionObservations,
)


def findings(observations: ReproductionObservations) -> tuple[str, ...]:
    """Return the sentences that the numbers support."""
    different = []
    for feature, row in observations.rows:
        if row.outcome is Outcome.DIFFERENT:
            different.append(_describe_difference(feature, row))
    failed = [
        f"{one.feature} was not computed again: {one.failure}."
        for one in observations.replayed
        if one.failure
    ]
    return (
        _balance(observations),
        *different,
        *failed,
        *(_describe(one) for one in observations.replayed if not one.failure),
        _describe_draw(observations),
        *_passed_over(observations),
    )


def _balance(observations: ReproductionObservations) -> str:
    """Return how many rows did not reproduce, and how many did."""
    rows = [row for _, row in observations.rows]
    outcomes = [row.outcome for row in rows]
    promised = sum(row.is_promised for row in rows)
    return (
        f"{count(outcomes.count(Outcome.DIFFERENT), 'row')} of {number(len(rows))} did not "
        f"reproduce; {number(outcomes.count(Outcome.EQUAL))} are bit-equal, of "
        f"{number(promised)} that were promised to be, and "
        f"{number(outcomes.count(Outcome.WITHIN))} agree within their tolerance."
    )


def _describe_difference(feature: str, row: ComparedRow) -> str:
    allowed = "promised bit-equal"
    if not row.is_promised:
        allowed = f"allowed are {number(row.tolerance)}: {row.reason}"
    return (
        f"Not reproduced: {feature}, {row.quantity}; it differs by {number(row.difference)} "
        f"({allowed})."
    )


def _describe(replayed: Replayed) -> str:
    """Return what came of a feature, and in what this machine differs."""
    equal, rows = replayed.count(Outcome.EQUAL), len(replayed.rows)
    machine = "This machine is that of its receipt, as far as the receipt says."
    if replayed.changes:
        machine = f"This machine differs from its receipt's: {'; '.join(replayed.changes)}."
    return (
        f"{replayed.feature} ({replayed.title}), by {replayed.way} with the code of commit "
        f"{replayed.commit[:12]}: {number(equal)} of {count(rows, 'row')} bit-equal, "
        f"{number(replayed.count(Outcome.WITHIN))} within tolerance, "
        f"{number(replayed.count(Outcome.DIFFERENT))} not reproduced. {machine}"
    )


def _describe_draw(observations: ReproductionObservations) -> str:
    draw = observations.draw
    if draw.is_of_an_attempt:
        origin = f"the hash of its STARTED entry, {draw.started}"
    else:
        origin = "zeros, as this run is by hand or a scratch run: it proves no draw"
    return (
        f"{', '.join(one.feature for one in draw.drawn)} were drawn from "
        f"{count(len(draw.candidates), 'feature')} by {origin}."
    )


def _passed_over(observations: ReproductionObservations) -> list[str]:
    """Return a sentence for each feature that cannot be computed again, in the draw's order."""
    return [
        f"{candidate.feature} cannot be computed again: {candidate.reason}."
        for candidate in observations.draw.candidates
        if candidate.way is None
    ]
