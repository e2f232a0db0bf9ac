"""Measurement coverage: which measurements a gate really judges.

recomputed: the gate fails if this measurement alone is changed by 5 %.
bounded: it fails only for ten times as much, and for the negative of that (time and memory cannot
be judged better).
claimed: it passes either way; the number rests on the experiment's word alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from phases.judge.measurements import Change


class CoverageLevel(StrEnum):
    """How well a gate judges one measurement."""

    RECOMPUTED = "recomputed"
    BOUNDED = "bounded"
    CLAIMED = "claimed"


@dataclass(frozen=True)
class MeasurementCoverage:
    """Names of the measurements by level."""

    recomputed: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()

    @property
    def fraction(self) -> float | None:
        """(recomputed + bounded) / all, between 0 and 1; None without measurements."""
        judged = len(self.recomputed) + len(self.bounded)
        total = judged + len(self.claimed)
        if not total:
            return None
        return judged / total


def classify(is_killed: Callable[[Change], bool]) -> CoverageLevel:
    """Return the level of one measurement.

    `is_killed` runs the gate on one change, and is called no more often than needed.
    """
    if is_killed(Change.SMALL):
        return CoverageLevel.RECOMPUTED
    if is_killed(Change.LARGE) and is_killed(Change.NEGATIVE):
        return CoverageLevel.BOUNDED
    return CoverageLevel.CLAIMED


def group_by_level(levels: Iterable[tuple[str, CoverageLevel]]) -> MeasurementCoverage:
    """Group (name, level) pairs by level; names keep their order."""
    groups: dict[CoverageLevel, list[str]] = {level: [] for level in CoverageLevel}
    for name, level in levels:
        groups[level].append(name)
    return MeasurementCoverage(
        recomputed=tuple(groups[CoverageLevel.RECOMPUTED]),
        bounded=tuple(groups[CoverageLevel.BOUNDED]),
        claimed=tuple(groups[CoverageLevel.CLAIMED]),
    )
