"""The minimum interesting experiment: sized by effect and spread, chosen by what it costs."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gates.shared import deciding as self_assessment
from lab.contract import ContractError, Measurement
from lab.synthesis import smallest
from lab.synthesis.smallest import Candidate


def candidate(name: str = "a", examples: int = 100) -> Candidate:
    return Candidate(name, "Is it?", f"F-1.{name}", examples, "above", "below")


def sized(examples: int = 100, **values: tuple[float, ...]) -> list[smallest.Sized]:
    found = {"F-1": {name: Measurement.of_sample(of, "nats") for name, of in values.items()}}
    return [smallest.size(candidate(name, examples), found) for name in values]


def test_seeds_that_are_enough_by_hand() -> None:
    # sd 0.1: t(0.975, 1) = 12.706 wants |effect| > 12.706 · 0.1 / √2 = 0.898,
    # t(0.975, 2) = 4.303 wants 0.248
    assert smallest.enough(0.90, 0.1) == 2
    assert smallest.enough(0.89, 0.1) == 3
    assert smallest.enough(-0.25, 0.1) == 3 and smallest.enough(0.247, 0.1) == 4
    assert smallest.enough(0.0, 0.1) is None
    assert smallest.enough(1e-9, 0.1) is None, "a thousand seeds are not enough"
    assert smallest.enough(0.1, 0.0) == 2


@settings(deadline=None)  # the first call loads a table of quantiles
@given(st.floats(0.01, 3), st.floats(0.001, 3))
def test_enough_seeds_are_just_enough(effect: float, spread: float) -> None:
    k = smallest.enough(effect, spread)

    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)

    if k is None:
        assert half(smallest.MOST_SEEDS) >= effect * (1 - 1e-9)
    else:
        assert half(k) < effect * (1 + 1e-9) and (k == 2 or half(k - 1) >= effect * (1 - 1e-9))


def test_the_sign_gives_the_answer_and_noise_gives_none() -> None:
    above, below, noise = sized(a=(0.5, 0.52, 0.48), b=(-0.5, -0.52, -0.48), c=(0.1, -0.2, 0.15))
    assert (above.decided, above.verdict, above.seeds, above.examples) == (True, "above", 2, 200)
    assert (below.decided, below.verdict) == (True, "below")
    assert (noise.decided, noise.verdict) == (False, "these runs cannot tell")
    assert noise.seeds is not None and noise.seeds > 3


def test_the_cheapest_decided_one_wins_and_of_equals_the_clearest() -> None:
    cheap, dear = sized(a=(0.5, 0.52, 0.48))[0], sized(1000, b=(0.9, 0.91, 0.89))[0]
    assert smallest.minimum([dear, cheap]) is cheap
    faint, clear = sized(c=(0.5, 0.52, 0.48), d=(0.5, 0.501, 0.499))
    assert smallest.minimum([faint, clear]) is clear
    (open_,) = sized(1, e=(0.1, -0.2, 0.15))
    assert smallest.minimum([open_, dear]) is dear, "an undecided one is no answer, however cheap"
    assert smallest.minimum([open_]) is open_
    once = smallest.size(candidate("f"), {"F-1": {"f": Measurement.of_estimate(0.3, "nats")}})
    assert (once.decided, once.seeds, once.examples) == (False, None, None)
    assert smallest.minimum([once, open_]) is open_


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.floats(-1, 1), min_size=2, max_size=4), min_size=1
    )
)
def test_the_gate_sizes_and_chooses_alike(values: dict[str, list[float]]) -> None:
    mine = sized(**{name: tuple(of) for name, of in values.items()})
    raw = {"F-1": {item.candidate.name: item.effect.to_json() for item in mine}}
    theirs = [self_assessment.sized(item.candidate.__dict__, raw) for item in mine]
    assert [(t["decided"], t["seeds"], t["examples"]) for t in theirs] == [
        (m.decided, m.seeds, m.examples) for m in mine
    ]
    assert mine[self_assessment.minimum(theirs)] == smallest.minimum(mine)


def test_a_track_without_a_candidate_or_with_half_of_one_is_refused() -> None:
    with pytest.raises(ContractError, match="there is no candidate"):
        smallest.candidates([])
    with pytest.raises(ContractError, match="positive"):
        smallest.candidates(
            [{"name": "a", "question": "?", "of": "F-1.a", "examples": 1, "negative": "n"}]
        )
