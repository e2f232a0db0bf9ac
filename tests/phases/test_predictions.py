"""Scores of predictions: cases computed by hand, tables of Student's t, and laws."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.judge.predictions import score, score_all, t_central, t_quantile
from phases.plan.schema import Feature, Prediction


def exact(value):
    return {"value": value, "unit": "", "exact": True}


def sample(value, stderr, n=3):
    return {"value": value, "unit": "nats", "stderr": stderr, "n": n, "values": [value] * n}


def predict(measurement, comparator, value, margin=None, *, name="best-lr"):
    """Make a prediction without the plan's validation: `score` must cope with every value."""
    return Prediction.model_construct(
        id=name,
        claim="…",
        measurement=measurement,
        comparator=comparator,
        value=value,
        margin=margin,
    )


def outcome(comparator, value, measurement, margin=None, **others):
    prediction = predict("m", comparator, value, margin)
    return score(prediction, {"m": measurement, **others}).outcome


#### Student's t


@pytest.mark.parametrize(
    ("df", "table"),  # two-sided 95 %, as printed in statistical tables
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228),
     (29, 2.045), (30, 2.042), (60, 2.000), (120, 1.980), (1000, 1.962), (1001, 1.962),
     (10**7, 1.960)],
)  # fmt: skip
def test_quantile_as_tabulated(df, table):
    assert t_quantile(0.975, df) == pytest.approx(table, abs=6e-4)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 50, 255, 1000, 1001, 5000])
@pytest.mark.parametrize("p", [0.6, 0.975, 0.9995])
def test_quantile_agrees_with_scipy(p, df):
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-11)


@settings(deadline=None)
@given(st.floats(0.51, 0.999), st.integers(1, 200))
def test_quantile_inverts_the_distribution(p, df):
    assert t_central(t_quantile(p, df), df) == pytest.approx(2 * p - 1, abs=1e-12)


def test_closed_forms():
    assert t_central(1, 1) == pytest.approx(0.5)  # Cauchy
    assert t_central(math.sqrt(2), 2) == pytest.approx(math.sqrt(0.5))


#### exact measurements


@pytest.mark.parametrize(
    ("comparator", "value", "actual", "expected"),
    [
        ("==", 0.001, 0.001, "HELD"),
        ("==", 0.3, 0.1 + 0.2, "HELD"),  # float noise
        ("==", 0.3, 0.3 * (1 + 1e-8), "MISSED"),
        ("==", 3, 3.0, "HELD"),
        ("==", 1, True, "MISSED"),
        ("==", True, True, "HELD"),
        ("!=", "adam", "sgd", "HELD"),
        ("==", "1", 1, "MISSED"),
        ("==", 2**53, 2**53 + 1, "MISSED"),
        ("==", [1, 2], [1, 2], "HELD"),
        ("==", [1, 2], [1, 2, 3], "MISSED"),
        ("==", 1, None, "INCONCLUSIVE"),
        ("<", 3, 3, "MISSED"),
        ("<=", 3, 3, "HELD"),
        (">", 3, 4, "HELD"),
        (">=", 3, 2, "MISSED"),
        ("<", 3, "two", "INCONCLUSIVE"),
        ("<", 3, True, "INCONCLUSIVE"),
        ("<", "three", 2, "INCONCLUSIVE"),
        ("within", (1, 2), 2, "HELD"),
        ("within", [1, 2], 2.001, "MISSED"),
        ("within", 2, 2, "INCONCLUSIVE"),
        ("within", [2, 1], 1.5, "INCONCLUSIVE"),
        ("~", 3, 3, "INCONCLUSIVE"),
    ],
)
def test_exact(comparator, value, actual, expected):
    assert outcome(comparator, value, exact(actual)) == expected


#### samples: 2.0 with stderr 0.1 of three values reaches from 1.5697 to 2.4303


@pytest.mark.parametrize(
    ("comparator", "value", "expected"),
    [
        ("<", 2.44, "HELD"),
        ("<", 2.42, "INCONCLUSIVE"),
        ("<", 1.58, "INCONCLUSIVE"),
        ("<", 1.56, "MISSED"),
        (">=", 1.56, "HELD"),
        (">=", 2.44, "MISSED"),
        (">", 2.0, "INCONCLUSIVE"),
        ("within", (1.5, 2.5), "HELD"),
        ("within", (1.6, 2.5), "INCONCLUSIVE"),
        ("within", (1.9, 2.1), "INCONCLUSIVE"),
        ("within", (2.5, 3.0), "MISSED"),
        ("within", (0.0, 1.5), "MISSED"),
        ("==", 2.0, "INCONCLUSIVE"),
        ("!=", 3.0, "INCONCLUSIVE"),
    ],
)
def test_sample(comparator, value, expected):
    assert outcome(comparator, value, sample(2.0, 0.1)) == expected


def test_bounds_are_inclusive():
    assert outcome("<=", 2.0, sample(2.0, 0.0)) == "HELD"
    assert outcome("<", 2.0, sample(2.0, 0.0)) == "MISSED"
    assert outcome("within", (2.0, 2.0), sample(2.0, 0.0)) == "HELD"


@pytest.mark.parametrize(
    "measurement",
    [
        {"value": 2.0, "unit": ""},
        {"value": 2.0, "stderr": None, "n": None},
        {"value": 2.0, "stderr": 0.1},
        {"value": 2.0, "stderr": 0.1, "n": 1},
        {"value": None, "stderr": 0.1, "n": 3},
        {"value": 2.0, "stderr": -0.1, "n": 3},
        {"value": float("nan"), "stderr": 0.1, "n": 3},
        {"value": 2.0, "stderr": float("inf"), "n": 3},
        {"value": "low", "stderr": 0.1, "n": 3},
        {"value": 2.0, "exact": "yes"},
        2.0,
    ],
)
def test_without_a_spread_nothing_is_decided(measurement):
    assert outcome("<", 100, measurement) == "INCONCLUSIVE"


def test_an_unknown_measurement_is_named():
    result = score(predict("best_lr", "==", 1, name="best-lr"), {})
    assert (result.id, result.outcome) == ("best-lr", "INCONCLUSIVE")
    assert result.reason == "no measurement best_lr"


def test_the_best_of_several_must_lead():
    best = exact(0.001)
    assert outcome("==", 0.001, best, "lead", lead=sample(0.5, 0.1)) == "HELD"
    assert outcome("==", 0.01, best, "lead", lead=sample(0.5, 0.1)) == "MISSED"
    assert outcome("==", 0.001, best, "lead", lead=sample(0.4, 0.1)) == "INCONCLUSIVE"
    assert outcome("==", 0.01, best, "lead", lead=sample(0.4, 0.1)) == "INCONCLUSIVE"
    assert outcome("==", 0.001, best, "lead", lead=exact(0.5)) == "INCONCLUSIVE"
    assert outcome("==", 0.001, best, "lead") == "INCONCLUSIVE"


def test_the_reason_is_a_sentence_with_the_numbers():
    result = score(predict("loss", "<", 2.5), {"loss": sample(2.0, 0.1)})
    assert result.reason == "loss 2 (95 % interval 1.56973 to 2.43027, n = 3); claimed < 2.5"


def test_every_prediction_of_a_feature_is_scored_in_its_order():
    predictions = (predict("loss", "<", 2.5, name="low"), predict("n", "==", 4, name="four"))
    feature = Feature.model_construct(predictions=predictions)
    low, four = score_all(feature, {"loss": sample(2.0, 0.1), "n": exact(3)})
    assert (low.id, low.claim, low.outcome) == ("low", "…", "HELD")
    assert (four.id, four.outcome, four.reason) == ("four", "MISSED", "n is 3; claimed == 4")


#### laws

finite = st.floats(-1e6, 1e6)
FLIPPED = {"HELD": "MISSED", "MISSED": "HELD", "INCONCLUSIVE": "INCONCLUSIVE"}


@settings(deadline=None)
@given(finite, st.floats(0, 1e3), st.integers(2, 50), finite)
def test_a_claim_and_its_opposite_exclude_each_other(value, stderr, n, limit):
    measurement = sample(value, stderr, n)
    for comparator, opposite in (("<", ">="), (">", "<=")):
        expected = FLIPPED[outcome(comparator, limit, measurement)]
        assert outcome(opposite, limit, measurement) == expected


@settings(deadline=None)
@given(finite, st.floats(0, 1e3), st.integers(2, 50), finite, finite)
def test_within_is_both_of_its_sides(value, stderr, n, a, b):
    low, high = sorted((a, b))
    measurement = sample(value, stderr, n)
    sides = {outcome(">=", low, measurement), outcome("<=", high, measurement)}
    within = outcome("within", (low, high), measurement)
    assert (within == "HELD") == (sides == {"HELD"})
    assert (within == "MISSED") == ("MISSED" in sides)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
fields = st.sampled_from(["value", "stderr", "n", "exact", "values"])
malformed = st.dictionaries(fields, leaves | st.lists(st.floats())) | st.none()


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["m", "lead"]), malformed),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "within", ""]),
    leaves | st.lists(st.floats(), max_size=2),
    st.none() | st.just("lead"),
)
def test_scoring_never_raises(measurements, comparator, value, margin):
    assert score(predict("m", comparator, value, margin), measurements).reason
