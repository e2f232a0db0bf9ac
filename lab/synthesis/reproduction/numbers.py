"""Measurements of the reproduction: pure functions of what was observed."""

from __future__ import annotations

from lab.result import Measurement
from lab.synthesis.reproduction.measured import (
    ComparedRow,
    Outcome,
    ReproductionObservations,
)


def measurements(observations: ReproductionObservations) -> dict[str, Measurement]:
    """Return all measurements."""
    replayed = observations.replayed
    rows = [row for _, row in observations.rows]
    candidates = observations.draw.candidates
    replayable = sum(candidate.way is not None for candidate in candidates)
    exact = Measurement.of_exact
    return {
        "features_drawn": exact(len(replayed), "features"),
        "features_reproduced": exact(sum(one.is_reproduced for one in replayed), "features"),
        "features_failed": exact(sum(bool(one.failure) for one in replayed), "features"),
        "rows": exact(len(rows), "rows"),
        "rows_not_reproduced": exact(_count(rows, Outcome.DIFFERENT), "rows"),
        "rows_bit_equal": exact(_count(rows, Outcome.EQUAL), "rows"),
        "rows_within_tolerance": exact(_count(rows, Outcome.WITHIN), "rows"),
        "rows_promised": exact(sum(row.is_promised for row in rows), "rows"),
        "values_compared": exact(sum(row.values for row in rows), "values"),
        "largest_difference": Measurement.of_estimate(
            max((row.difference for row in rows), default=None), ""
        ),
        "replayable_share": exact(replayable / len(candidates)),
        "replay_seconds": Measurement.of_estimate(sum(one.seconds for one in replayed), "s"),
        "run_seconds": Measurement.of_estimate(sum(one.seconds_whole for one in replayed), "s"),
    }


def _count(rows: list[ComparedRow], outcome: Outcome) -> int:
    return sum(row.outcome is outcome for row in rows)
