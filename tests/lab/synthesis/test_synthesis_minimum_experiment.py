"""The minimum interesting experiment: sized by effect and spread, chosen by what it costs."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gates.shared import deciding
from lab.contract import ContractError, Measurement
from lab.synthesis import minimum_experiment
from lab.synthesis.minimum_experiment import (
    Candidate,
    CandidateResult,
    evaluate_candidate,
    fewest_seeds,
    find_minimum,
)


def candidate(name: str = "a", examples: int = 100) -> Candidate:
    return Candidate(
        name=name,
        question="Is it?",
        of=f"F-1.{name}",
        examples=examples,
        if_positive="above",
        if_negative="below",
    )


def evaluate(examples: int = 100, **samples: tuple[float, ...]) -> list[CandidateResult]:
    """Evaluate one candidate for each sample."""
    measurements = {name: Measurement.of_sample(of, "nats") for name, of in samples.items()}
    evidence = {"F-1": measurements}
    return [evaluate_candidate(candidate(name, examples), evidence) for name in samples]


def test_seeds_that_are_enough_by_hand() -> None:
    # sd 0.1: t(0.975, 1) = 12.706 needs |effect| > 12.706 · 0.1 / √2 = 0.898,
    # t(0.975, 2) = 4.303 needs 0.248
    assert fewest_seeds(0.90, 0.1) == 2
    assert fewest_seeds(0.89, 0.1) == 3
    assert fewest_seeds(-0.25, 0.1) == 3
    assert fewest_seeds(0.247, 0.1) == 4
    assert fewest_seeds(0.0, 0.1) is None
    assert fewest_seeds(1e-9, 0.1) is None, "a thousand seeds are not enough"
    assert fewest_seeds(0.1, 0.0) == 2


@settings(deadline=None)  # the first call loads a table of quantiles
@given(st.floats(0.01, 3), st.floats(0.001, 3))
def test_enough_seeds_are_just_enough(effect: float, deviation: float) -> None:
    k = fewest_seeds(effect, deviation)

    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)

    if k is None:
        assert half(minimum_experiment.MAX_SEEDS) >= effect * (1 - 1e-9)
    else:
        assert half(k) < effect * (1 + 1e-9)
        assert k == 2 or half(k - 1) >= effect * (1 - 1e-9)


def test_the_sign_gives_the_answer_and_noise_gives_none() -> None:
    above, below, noise = evaluate(a=(0.5, 0.52, 0.48), b=(-0.5, -0.52, -0.48), c=(0.1, -0.2, 0.15))
    assert (above.decided, above.answer, above.seeds, above.examples) == (True, "above", 2, 200)
    assert (below.decided, below.answer) == (True, "below")
    assert (noise.decided, noise.answer) == (False, "these runs cannot tell")
    assert noise.seeds is not None and noise.seeds > 3


def test_the_cheapest_decided_one_wins_and_of_equals_the_clearest() -> None:
    (cheap,) = evaluate(a=(0.5, 0.52, 0.48))
    (expensive,) = evaluate(1000, b=(0.9, 0.91, 0.89))
    assert find_minimum([expensive, cheap]) is cheap
    faint, clear = evaluate(c=(0.5, 0.52, 0.48), d=(0.5, 0.501, 0.499))
    assert find_minimum([faint, clear]) is clear
    (undecided,) = evaluate(1, e=(0.1, -0.2, 0.15))
    assert find_minimum([undecided, expensive]) is expensive, "no answer, however cheap"
    assert find_minimum([undecided]) is undecided
    evidence = {"F-1": {"f": Measurement.of_estimate(0.3, "nats")}}
    one_run = evaluate_candidate(candidate("f"), evidence)
    assert (one_run.decided, one_run.seeds, one_run.examples) == (False, None, None)
    assert find_minimum([one_run, undecided]) is undecided


def test_what_is_needed_once_is_counted_once() -> None:
    (result,) = evaluate(a=(0.5, 0.52, 0.48))
    evidence = {"F-1": {"a": result.effect}}
    with_more = evaluate_candidate(replace(result.candidate, once=50), evidence)
    assert (result.seeds, result.examples) == (2, 200)
    assert (with_more.seeds, with_more.examples) == (2, 250)
    in_gate = deciding.evaluate_candidate(
        vars(with_more.candidate), {"F-1": {"a": result.effect.to_json()}}
    )
    assert in_gate.examples == 250


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.floats(-1, 1), min_size=2, max_size=4), min_size=1
    )
)
def test_the_gate_evaluates_and_chooses_alike(samples: dict[str, list[float]]) -> None:
    in_lab = evaluate(**{name: tuple(values) for name, values in samples.items()})
    raw = {"F-1": {result.candidate.name: result.effect.to_json() for result in in_lab}}
    in_gate = [deciding.evaluate_candidate(vars(result.candidate), raw) for result in in_lab]
    assert [(r.decided, r.seeds, r.examples) for r in in_gate] == [
        (r.decided, r.seeds, r.examples) for r in in_lab
    ]
    for gate_result, lab_result in zip(in_gate, in_lab, strict=True):
        assert gate_result.answer(vars(lab_result.candidate)) == lab_result.answer
    assert in_lab[deciding.find_minimum(in_gate)] == find_minimum(in_lab)


def test_a_track_without_a_candidate_or_with_half_of_one_is_refused() -> None:
    with pytest.raises(ContractError, match="there is no candidate"):
        minimum_experiment.read_candidates([])
    half = {"name": "a", "question": "?", "of": "F-1.a", "examples": 1, "if_negative": "n"}
    with pytest.raises(ContractError, match="if_positive"):
        minimum_experiment.read_candidates([half])
