"""Scoring again: lab and gate, each by code of its own, agree with the runner on every claim."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gates.shared import deciding
from lab.contract import ContractError, Measurement
from lab.synthesis import retrospect
from lab.synthesis.retrospect import Prediction
from phases.judge import predictions
from phases.plan import schema
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


def prediction(
    comparator: str, value: Any, *, measurement: str, margin: str | None = None
) -> Prediction:
    return Prediction(
        feature="FEAT-001",
        id="c",
        claim="words",
        measurement=measurement,
        comparator=comparator,
        value=value,
        margin=margin,
        source="",
    )


@given(st.one_of(orders, equals, within), measurements, st.one_of(st.none(), measurements))
@example((">", 0.5), Measurement.of_sample([0.6, 0.7, 0.8], ""), None)
@example(("==", 4), Measurement.of_exact(4), Measurement.of_exact(1.0))
@example(
    (">", 0),
    Measurement.of_estimate(1.0, "", stderr=0.0, n=2),
    Measurement.of_sample([1.0, 1.1], ""),
)
def test_three_scorers_agree(
    claim: tuple[str, Any], measurement: Measurement, lead: Measurement | None
) -> None:
    comparator, value = claim
    margin = None
    evidence = {"score": measurement}
    if lead is not None:
        margin = "lead"
        evidence["lead"] = lead
    raw = {name: item.to_json() for name, item in evidence.items()}

    # 1. The runner.
    stated = {"measurement": "score", "comparator": comparator, "value": value, "margin": margin}
    planned = schema.Prediction.model_construct(id="c", claim="words", **stated)
    expected = predictions.score(planned, raw).outcome

    # 2. The lab and the gate.
    own = prediction(comparator, value, measurement="score", margin=margin)
    assert retrospect.score_prediction(own, evidence).outcome == expected
    assert deciding.score_prediction(stated, raw) == expected


def test_each_outcome_has_its_number_in_words() -> None:
    evidence = track.measurements()
    scores = {}
    for own in retrospect.read_predictions(track.plan(), track.FEATURES):
        scores[own.id] = retrospect.score_prediction(own, evidence[own.feature])
    assert {name: score.outcome for name, score in scores.items()} == {
        "stairs": "HELD",
        "gap": "HELD",
        "rate": "MISSED",
        "led": "HELD",
        "rank": "HELD",
        "unknown": "INCONCLUSIVE",
    }
    assert scores["rate"].reason == "best_rate is 0.001000"
    assert "95 % interval 0.4654 to 0.5413" in scores["gap"].reason
    assert scores["unknown"].reason == "there is no measurement not_there"


def test_value_and_interval_are_stated_in_one_unit() -> None:
    own = prediction("<", 600, measurement="time")
    score = retrospect.score_prediction(
        own, {"time": Measurement.of_sample([234.0, 240.0, 246.0], "s")}
    )
    assert score.reason == "time is 4.000 ± 0.058 min (n = 3), 95 % interval 3.752 to 4.248 min"


def test_a_lead_that_is_not_clear_decides_nothing() -> None:
    own = prediction("==", 3, measurement="best", margin="lead")
    best = Measurement.of_exact(3)
    wide = Measurement.of_sample([0.1, -0.1, 0.3], "nats")
    clear = Measurement.of_sample([0.2, 0.21, 0.19], "nats")
    unclear_score = retrospect.score_prediction(own, {"best": best, "lead": wide})
    assert unclear_score.outcome == "INCONCLUSIVE"
    assert "does not clearly lead" in unclear_score.reason
    assert retrospect.score_prediction(own, {"best": best, "lead": clear}).outcome == "HELD"
    assert "not there" in retrospect.score_prediction(own, {"best": best}).reason


def test_a_plan_without_the_feature_is_refused() -> None:
    with pytest.raises(
        ContractError, match=r"the plan has no feature FEAT-099 \(it has FEAT-001, FEAT-005"
    ):
        retrospect.read_predictions(track.plan(), ["FEAT-099"])
