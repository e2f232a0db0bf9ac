"""Scoring by interval, by hand-computed cases, by tables and by law."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.judge.predictions import Claim, score, t_central, t_quantile


def exact(value):
    return {"value": value, "unit": "", "exact": True}


def sample(value, stderr, n=3):
    return {"value": value, "unit": "nats", "stderr": stderr, "n": n, "values": [value] * n}


def outcome(comparator, value, measurement, margin=None, **others):
    claim = Claim("id", "words", "m", comparator, value, margin)
    return score(claim, {"m": measurement, **others}).outcome


#### Student's t


@pytest.mark.parametrize(
    ("df", "table"),  # two-sided 95 %, as printed in statistical tables
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (29, 2.045), (30, 2.042),
     (60, 2.000), (120, 1.980), (1000, 1.962), (1001, 1.962), (10**7, 1.960)],
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


def test_known_closed_forms():
    assert t_central(1, 1) == pytest.approx(0.5)  # Cauchy
    assert t_central(math.sqrt(2), 2) == pytest.approx(math.sqrt(0.5))


#### exact measurements


@pytest.mark.parametrize(
    ("comparator", "value", "met", "wanted"),
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
def test_exact(comparator, value, met, wanted):
    assert outcome(comparator, value, exact(met)) == wanted


#### samples: 2.0 with stderr 0.1 of three values reaches from 1.5697 to 2.4303


@pytest.mark.parametrize(
    ("comparator", "value", "wanted"),
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
def test_sample(comparator, value, wanted):
    assert outcome(comparator, value, sample(2.0, 0.1)) == wanted


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
    scored = score(Claim("best-lr", "…", "best_lr", "==", 1), {})
    assert (scored.id, scored.outcome, scored.reason) == (
        "best-lr",
        "INCONCLUSIVE",
        "no measurement best_lr",
    )


def test_the_best_of_several_must_lead():
    best = exact(0.001)
    assert outcome("==", 0.001, best, "lead", lead=sample(0.5, 0.1)) == "HELD"
    assert outcome("==", 0.01, best, "lead", lead=sample(0.5, 0.1)) == "MISSED"
    assert outcome("==", 0.001, best, "lead", lead=sample(0.4, 0.1)) == "INCONCLUSIVE"
    assert outcome("==", 0.01, best, "lead", lead=sample(0.4, 0.1)) == "INCONCLUSIVE"
    assert outcome("==", 0.001, best, "lead", lead=exact(0.5)) == "INCONCLUSIVE"
    assert outcome("==", 0.001, best, "lead") == "INCONCLUSIVE"


def test_the_reason_is_a_sentence_with_the_numbers():
    reason = score(Claim("x", "…", "loss", "<", 2.5), {"loss": sample(2.0, 0.1)}).reason
    assert reason == "loss 2 (95 % interval 1.56973 to 2.43027, n = 3); claimed < 2.5"


#### laws

finite = st.floats(-1e6, 1e6)
FLIPPED = {"HELD": "MISSED", "MISSED": "HELD", "INCONCLUSIVE": "INCONCLUSIVE"}


@settings(deadline=None)
@given(finite, st.floats(0, 1e3), st.integers(2, 50), finite)
def test_a_claim_and_its_opposite_exclude_each_other(value, stderr, n, limit):
    measurement = sample(value, stderr, n)
    for comparator, opposite in (("<", ">="), (">", "<=")):
        assert (
            outcome(opposite, limit, measurement)
            == FLIPPED[outcome(comparator, limit, measurement)]
        )


@settings(deadline=None)
@given(finite, st.floats(0, 1e3), st.integers(2, 50), finite, finite)
def test_within_is_both_of_its_sides(value, stderr, n, a, b):
    low, high = sorted((a, b))
    measurement = sample(value, stderr, n)
    sides = {outcome(">=", low, measurement), outcome("<=", high, measurement)}
    within = outcome("within", (low, high), measurement)
    assert (within == "HELD") == (sides == {"HELD"})
    assert (within == "MISSED") == ("MISSED" in sides)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["m", "lead"]),
        st.dictionaries(
            st.sampled_from(["value", "stderr", "n", "exact", "values"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=3)
            | st.lists(st.floats()),
        )
        | st.none(),
    ),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "within", ""]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.floats(), max_size=2),
    st.none() | st.just("lead"),
)
def test_scoring_never_raises(measurements, comparator, value, margin):
    assert score(Claim("x", "…", "m", comparator, value, margin), measurements).reason
