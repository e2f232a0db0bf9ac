"""What the next questions are made from, and what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lab.result import Measurement, Result
from lab.synthesis.retrospect import PredictionScore


class Kind(StrEnum):
    """Why a question is asked."""

    MISSED = "missed"  # a prediction was decided against
    OPEN = "open"  # its interval is on both sides of the claim
    UNREPEATED = "unrepeated"  # it has no interval, because nothing was repeated
    WIDE = "wide"  # a headline number with a wide interval


@dataclass(frozen=True)
class Claim:
    """A comparison of a measurement with a value, as a prediction of a plan states it.

    value: of `within` the two limits.
    """

    measurement: str
    comparator: str
    value: Any


@dataclass(frozen=True)
class Repeats:
    """What `n` of a measurement counts (`word`), how many there were, how many are needed.

    before: None where nothing was repeated; needed: None where no number within reach is enough.
    """

    word: str
    before: int | None
    needed: int | None


@dataclass(frozen=True)
class Change:
    """A setting that the next experiment changes; `word` "seed" has no numbers."""

    word: str
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a next experiment takes: seconds, bytes at its peak, and by which rule."""

    seconds: float
    bytes: float
    source: str


@dataclass(frozen=True)
class Candidate:
    """A next experiment.

    id: of the prediction that it comes from, or the measurement; claimed: by the plan; measured:
    then; expected: what is claimed of the next experiment before it runs; one of change and repeats
    is there; bits: what its answer is expected to tell; cost: None if it is out of reach.
    """

    kind: Kind
    feature: str
    id: str
    claimed: Claim | None
    measured: Measurement
    expected: Claim
    bits: float
    change: Change | None = None
    repeats: Repeats | None = None
    cost: Cost | None = None

    @property
    def name(self) -> str:
        """Return FEATURE.measurement."""
        return f"{self.feature}.{self.expected.measurement}"

    @property
    def bits_per_hour(self) -> float:
        """Return what it tells per hour; 0 if it is out of reach."""
        if self.cost is None:
            return 0.0
        return 3600 * self.bits / self.cost.seconds

    @property
    def hours(self) -> float:
        """Return the hours that it takes; infinite if it is out of reach."""
        return math.inf if self.cost is None else self.cost.seconds / 3600


@dataclass(frozen=True)
class Unplanned:
    """A prediction that did not hold and from which no experiment follows, with the reason."""

    feature: str
    id: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Width:
    """The half-width of a headline number's interval, as a share of `scale` [the number's unit]."""

    feature: str
    measurement: str
    half: float
    scale: float

    @property
    def relative(self) -> float:
        """Return the share."""
        return self.half / self.scale


@dataclass(frozen=True)
class Source:
    """A feature among the inputs: its result, its receipt's digest, what its process took.

    seconds, bytes: of the run that was verified.
    """

    result: Result
    receipt: str
    seconds: float
    bytes: float


@dataclass(frozen=True)
class NextQuestions:
    """Everything that is asked, the best first, and what it is made from.

    widths: of all headline numbers that have an interval, the widest first.
    """

    sources: Mapping[str, Source]
    scores: tuple[PredictionScore, ...]
    candidates: tuple[Candidate, ...]
    unplanned: tuple[Unplanned, ...]
    widths: tuple[Width, ...]

    @property
    def affordable(self) -> tuple[Candidate, ...]:
        """Return the candidates that are within reach, the best first."""
        return tuple(one for one in self.candidates if one.cost is not None)
