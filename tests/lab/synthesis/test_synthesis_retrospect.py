"""Scoring again: lab and gate, each by code of its own, agree with the runner on every claim."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gates.shared import deciding as self_assessment
from lab.contract import ContractError, Measurement
from lab.synthesis import retrospect
from lab.synthesis.retrospect import Claim
from phases.judge import predictions
from phases.plan.schema import Prediction
from tests.lab.synthesis import track

numbers = st.one_of(st.integers(-5, 5), st.floats(-5, 5).map(lambda x: round(x, 2)))
exact = st.one_of(numbers, st.booleans(), st.sampled_from(["healthy", "flat"]), st.none()).map(
    Measurement.of_exact
)
estimates = st.builds(
    lambda value, stderr, n: Measurement.of_estimate(value, "nats", stderr=stderr, n=n),
    st.one_of(numbers, st.none()),
    st.one_of(st.none(), st.floats(0, 2)),
    st.one_of(st.none(), st.integers(1, 6)),
)
measurements = st.one_of(exact, estimates)
orders = st.tuples(st.sampled_from(["<", "<=", ">", ">="]), numbers)
equals = st.tuples(
    st.sampled_from(["==", "!="]), st.one_of(numbers, st.booleans(), st.sampled_from(["healthy"]))
)
within = st.tuples(st.just("within"), st.tuples(numbers, numbers).map(sorted))


@given(st.one_of(orders, equals, within), measurements, st.one_of(st.none(), measurements))
@example((">", 0.5), Measurement.of_sample([0.6, 0.7, 0.8], ""), None)
@example(("==", 4), Measurement.of_exact(4), Measurement.of_exact(1.0))
@example(
    (">", 0),
    Measurement.of_estimate(1.0, "", stderr=0.0, n=2),
    Measurement.of_sample([1.0, 1.1], ""),
)
def test_three_scorers_agree(
    stated: tuple[str, Any], met: Measurement, lead: Measurement | None
) -> None:
    comparator, value = stated
    margin = None if lead is None else "lead"
    claim = Claim("FEAT-001", "c", "words", "met", comparator, value, margin, "")
    found = {"met": met} | ({} if lead is None else {"lead": lead})
    raw = {name: item.to_json() for name, item in found.items()}
    prediction = Prediction.model_construct(
        id="c", claim="words", measurement="met", comparator=comparator, value=value, margin=margin
    )
    wanted = predictions.score(prediction, raw).outcome
    assert retrospect.score(claim, found).outcome == wanted
    stated_as = {"measurement": "met", "comparator": comparator, "value": value, "margin": margin}
    assert self_assessment.score(stated_as, raw) == wanted


def test_each_outcome_has_its_number_in_words() -> None:
    measured = track.measured()
    scored = {s.claim.id: s for s in (
        retrospect.score(c, measured[c.feature])
        for c in retrospect.claims(track.plan(), track.FEATURES)
    )}  # fmt: skip
    assert {name: item.outcome for name, item in scored.items()} == {
        "stairs": "HELD", "gap": "HELD", "rate": "MISSED", "led": "HELD", "rank": "HELD",
        "unknown": "INCONCLUSIVE",
    }  # fmt: skip
    assert scored["rate"].met == "best_rate is 0.001000"
    assert "95 % interval 0.4654 to 0.5413" in scored["gap"].met
    assert scored["unknown"].met == "there is no measurement not_there"


def test_a_lead_that_is_not_clear_decides_nothing() -> None:
    claim = Claim("F", "c", "words", "best", "==", 3, "lead", "")
    best = Measurement.of_exact(3)
    wide, clear = (
        Measurement.of_sample([0.1, -0.1, 0.3], "nats"),
        Measurement.of_sample([0.2, 0.21, 0.19], "nats"),
    )
    assert retrospect.score(claim, {"best": best, "lead": wide}).outcome == "INCONCLUSIVE"
    assert "does not clearly lead" in retrospect.score(claim, {"best": best, "lead": wide}).met
    assert retrospect.score(claim, {"best": best, "lead": clear}).outcome == "HELD"
    assert "not there" in retrospect.score(claim, {"best": best}).met


def test_a_plan_without_the_feature_is_refused() -> None:
    with pytest.raises(
        ContractError, match=r"the plan has no feature FEAT-099 \(it has FEAT-001, FEAT-005"
    ):
        retrospect.claims(track.plan(), ["FEAT-099"])
