"""The minimum interesting experiment: which question needs the fewest examples to be decided? Pure.

A comparison of two settings is run once per seed, and its effect is the mean over seeds of the
paired differences. It is decided when the 95 % interval effect ± t(0.975, k - 1) · sd / √k leaves
out 0, with sd the spread of the differences between seeds. So the spread that was measured says how
few seeds would have been enough. This is planning after the fact, with an sd from few seeds that is
itself uncertain: an estimate for the next experiment, not a test of this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.result import ContractError, Measurement
from lab.synthesis import evidence
from lab.synthesis.evidence import Evidence

MOST_SEEDS = 1000  # beyond, "not with this many runs" is the answer


@dataclass(frozen=True)
class Candidate:
    """A comparison of two settings.

    name: a short one; question: in words; of: its effect (`evidence.calculate`); examples: training
    examples that both settings together see per seed; positive, negative: what it means if the
    effect lies above or below 0.
    """

    name: str
    question: str
    of: str
    examples: int
    positive: str
    negative: str

    @property
    def feature(self) -> str:
        """Give the feature that measured it."""
        return self.of.partition(".")[0]


@dataclass(frozen=True)
class Sized:
    """A candidate with what was measured: whether it is decided, the seeds and examples needed.

    seeds, examples: None where MOST_SEEDS would not have been enough, or nothing can be said.
    """

    candidate: Candidate
    effect: Measurement
    decided: bool
    seeds: int | None
    examples: int | None

    @property
    def verdict(self) -> str:
        """Give the answer to its question, in words."""
        if not self.decided:
            return "these runs cannot tell"
        is_positive = self.effect.value > 0  # type: ignore[operator]
        return self.candidate.positive if is_positive else self.candidate.negative


def candidates(raw: Iterable[Mapping[str, Any]]) -> tuple[Candidate, ...]:
    """Read the candidates of a track's file; ContractError if there is none or one incomplete."""
    try:
        found = tuple(Candidate(**item) for item in raw)
    except TypeError as error:
        msg = f"a candidate for the minimum interesting experiment: {error}"
        raise ContractError(msg) from error
    if not found:
        msg = "there is no candidate for the minimum interesting experiment; wanted at least one"
        raise ContractError(msg)
    return found


def size(candidate: Candidate, measured: Evidence) -> Sized:
    """Say whether a candidate was decided, and how few seeds would have been enough."""
    effect = evidence.calculate(measured, candidate.of)
    ends = evidence.interval(
        Measurement.of_estimate(effect.value, effect.unit, stderr=effect.stderr, n=effect.n)
    )
    if ends is None:
        return Sized(candidate, effect, decided=False, seeds=None, examples=None)
    spread = effect.stderr * math.sqrt(effect.n)  # type: ignore[operator,arg-type]
    seeds = enough(effect.value, spread)  # type: ignore[arg-type]
    decided = not ends[0] <= 0 <= ends[1]
    return Sized(
        candidate, effect, decided, seeds, None if seeds is None else seeds * candidate.examples
    )


def enough(effect: float, spread: float) -> int | None:
    """Give the fewest seeds, 2 at least, whose 95 % interval around `effect` would leave out 0."""
    return next(
        (
            k
            for k in range(2, MOST_SEEDS + 1)
            if evidence.t_quantile(k - 1) * spread < abs(effect) * math.sqrt(k)
        ),
        None,
    )


def minimum(sized: Iterable[Sized]) -> Sized:
    """Give the decided candidate with the fewest examples, else the one nearest to being decided.

    Of two that need as many, the one whose effect is the larger multiple of its standard error.
    """

    def key(item: Sized) -> tuple[bool, float, float]:
        examples = math.inf if item.examples is None else item.examples
        effect = abs(item.effect.value or 0)  # type: ignore[arg-type]
        clear = effect / (item.effect.stderr or 1e-300)
        return not item.decided, examples, -clear

    return min(sized, key=key)
