"""MeasurementCoverage: which measurements a gate really judges.

recomputed: a change of 5 % of this measurement alone is caught. bounded: only ten times as much and its negative are
(time and memory can be no more). claimed: the number stands there on the experiment's word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from phases.judge.measurements import Change

CoverageLevel = Literal["recomputed", "bounded", "claimed"]


@dataclass(frozen=True)
class MeasurementCoverage:
    """Names of the measurements by what the gate knows of them."""

    recomputed: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()

    @property
    def fraction(self) -> float | None:
        """(recomputed + bounded) / all, between 0 and 1; None without measurements."""
        judged = len(self.recomputed) + len(self.bounded)
        return judged / (judged + len(self.claimed)) if judged or self.claimed else None


def classify(caught: Callable[[Change], bool]) -> CoverageLevel:
    """The level of one measurement; `caught` runs the gate on one change and is asked no more than needed."""
    if caught("small"):
        return "recomputed"
    return "bounded" if caught("large") and caught("negative") else "claimed"


def collect(levels: Iterable[tuple[str, CoverageLevel]]) -> MeasurementCoverage:
    """MeasurementCoverage from each measurement's name and level, names kept in their order."""
    pairs = list(levels)

    def at(level: CoverageLevel) -> tuple[str, ...]:
        return tuple(name for name, met in pairs if met == level)

    return MeasurementCoverage(at("recomputed"), at("bounded"), at("claimed"))
