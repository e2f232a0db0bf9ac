"""The minimum interesting experiment: which question needs the fewest examples to be decided? Pure.

A comparison of two settings is run once per seed, and its effect is the mean over seeds of the
paired differences. Where nothing is trained, one model reads each text in both settings: a text is
in the place of a seed, a token in that of a training example (`Units` of a track). The comparison
is decided when the 95 % interval effect ± t(0.975, k - 1) · sd / √k excludes 0, with sd the
standard deviation of the differences between seeds. So the standard deviation that was measured
says how few seeds would have been enough. This is planning after the fact, with an sd from few
seeds that is itself uncertain: an estimate for the next experiment, not a test of this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.result import ContractError, Measurement
from lab.synthesis.evidence import Evidence, calculate, confidence_interval, t_quantile

MAX_SEEDS = 1000  # beyond, "not with this many runs" is the answer


@dataclass(frozen=True)
class Candidate:
    """A comparison of two settings.

    name: a short one; question: in words; of: its effect, an expression for `calculate`; examples:
    training examples (or what else the track counts) that both settings together see per seed (or
    text); if_positive, if_negative: what an effect above or below 0 means; once: examples that are
    needed beside, however many seeds there are.
    """

    name: str
    question: str
    of: str
    examples: int
    if_positive: str
    if_negative: str
    once: int = 0

    @property
    def feature(self) -> str:
        """The feature that measured it."""
        return self.of.partition(".")[0]


@dataclass(frozen=True)
class CandidateResult:
    """A candidate with its measured effect: whether it is decided, the seeds and examples needed.

    seeds, examples: None where MAX_SEEDS would not have been enough, or the effect has no interval.
    """

    candidate: Candidate
    effect: Measurement
    decided: bool
    seeds: int | None
    examples: int | None

    @property
    def answer(self) -> str:
        """The answer to the candidate's question, in words."""
        if not self.decided:
            return "these runs cannot tell"
        if self.effect.number > 0:
            return self.candidate.if_positive
        return self.candidate.if_negative


def read_candidates(entries: Iterable[Mapping[str, Any]]) -> tuple[Candidate, ...]:
    """Return the candidates of a track's file.

    Raises:
        ContractError: there is no candidate, or one is incomplete.
    """
    try:
        candidates = tuple(Candidate(**entry) for entry in entries)
    except TypeError as error:
        msg = f"a candidate for the minimum interesting experiment: {error}"
        raise ContractError(msg) from error
    if not candidates:
        msg = "there is no candidate for the minimum interesting experiment; expected at least one"
        raise ContractError(msg)
    return candidates


def evaluate_candidate(candidate: Candidate, evidence: Evidence) -> CandidateResult:
    """Return whether a candidate was decided, and how few seeds would have been enough."""
    effect = calculate(evidence, candidate.of)
    # An exact effect has no spread between seeds: as an estimate it gets no interval.
    estimate = Measurement.of_estimate(effect.value, effect.unit, stderr=effect.stderr, n=effect.n)
    interval = confidence_interval(estimate)
    if interval is None or effect.stderr is None or effect.n is None:
        return CandidateResult(candidate, effect, decided=False, seeds=None, examples=None)
    # stderr = sd / √n, so the standard deviation between seeds is stderr · √n.
    deviation = effect.stderr * math.sqrt(effect.n)
    seeds = fewest_seeds(effect.number, deviation)
    examples = None
    if seeds is not None:
        examples = candidate.once + seeds * candidate.examples
    low, high = interval
    excludes_zero = not low <= 0 <= high
    return CandidateResult(candidate, effect, decided=excludes_zero, seeds=seeds, examples=examples)


def fewest_seeds(effect: float, deviation: float) -> int | None:
    """Return the fewest seeds, at least 2, whose 95 % interval around `effect` excludes 0.

    deviation: the standard deviation between seeds, in the effect's unit. None above MAX_SEEDS.
    """
    for k in range(2, MAX_SEEDS + 1):
        if t_quantile(k - 1) * deviation < abs(effect) * math.sqrt(k):
            return k
    return None


def find_minimum(results: Iterable[CandidateResult]) -> CandidateResult:
    """Return the decided candidate with the fewest examples, else the one nearest to a decision.

    Of two that need as many, the one whose effect is the larger multiple of its standard error.
    """

    def key(result: CandidateResult) -> tuple[bool, float, float]:
        examples = math.inf
        if result.examples is not None:
            examples = result.examples
        size = 0.0
        if result.effect.value:
            size = abs(result.effect.number)
        multiple = size / (result.effect.stderr or 1e-300)  # no error: an infinite multiple
        return not result.decided, examples, -multiple

    return min(results, key=key)
