"""Paired comparisons agree with the formulas, hold error rates, and see what pairing is for."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import stdtr, stdtrit  # Student's t: distribution function and quantile

from lab.stats.paired import equivalence, paired

VALUES = st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=8)


@given(VALUES)
def test_it_is_the_paired_t_test(pairs):
    first, second = zip(*pairs, strict=True)
    differences = np.subtract(first, second)
    assume(differences.std() > 1e-6)
    comparison = paired(first, second)
    expected = stats.ttest_rel(first, second)
    assert comparison.mean == pytest.approx(differences.mean(), abs=1e-9)
    assert comparison.p_value == pytest.approx(expected.pvalue, abs=1e-6)
    assert comparison.interval == pytest.approx(
        tuple(expected.confidence_interval(0.95)), rel=1e-6, abs=1e-6
    )


@given(VALUES)
def test_interval_and_p_follow_from_students_t(pairs):
    """By the definitions, without scipy's tests: mean ± t·stderr, and P(|T| > |mean| / stderr)."""
    first, second = zip(*pairs, strict=True)
    assume(np.subtract(first, second).std() > 1e-6)
    comparison = paired(first, second)
    degrees = len(first) - 1
    reach = stdtrit(degrees, 0.975) * comparison.stderr
    low, high = comparison.interval
    assert (low, high) == pytest.approx(
        (comparison.mean - reach, comparison.mean + reach), rel=1e-6, abs=1e-9
    )
    p_value = 2 * stdtr(degrees, -abs(comparison.mean) / comparison.stderr)
    assert comparison.p_value == pytest.approx(p_value, abs=1e-9)


@given(VALUES)
def test_exchanging_the_sides_turns_the_sign_and_nothing_else(pairs):
    first, second = zip(*pairs, strict=True)
    one, other = paired(first, second), paired(second, first)
    assert one.mean == pytest.approx(-other.mean)
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert one.p_value == pytest.approx(other.p_value)


def test_three_seeds_have_the_known_quantile():
    """The t quantile of two degrees of freedom, from a table: 4.303."""
    comparison = paired([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    reach = comparison.interval[1] - comparison.mean
    assert reach / comparison.stderr == pytest.approx(4.3027, abs=1e-4)


def test_what_the_seeds_share_does_not_hide_a_difference():
    """A control with the pairs exchanged: the same values, and nothing to be seen."""
    seeds = [0.0, 1.0, 2.0]
    better = [s + 0.10 + e for s, e in zip(seeds, (0, 0.01, -0.01), strict=True)]
    assert paired(better, seeds).p_value < 0.01
    assert paired([1.1, 2.11, 0.09], seeds).p_value > 0.5


@pytest.mark.parametrize(("first", "p_value"), [([1.0, 1.0, 1.0], 0.0), ([0.0, 0.0, 0.0], 1.0)])
def test_differences_without_spread(first, p_value):
    comparison = paired(first, [0.0] * 3)
    assert comparison.p_value == p_value
    assert comparison.interval == (first[0], first[0])


def test_differences_that_rounding_alone_tells_apart_warn_of_nothing():
    rounded = [0.1, 0.1 + 1e-17, 0.3 - 0.2]
    assert len(set(rounded)) > 1
    assert paired(rounded, [0.0] * 3).p_value == 0.0
    assert equivalence(rounded, 0.2).equivalent
    assert not equivalence(rounded, 0.05).equivalent


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.01, 1))
def test_the_test_and_the_interval_of_90_percent_say_the_same(differences, margin):
    assume(np.std(differences) > 1e-6)
    tests = equivalence(differences, margin)
    low, high = tests.interval
    assume(min(abs(low + margin), abs(high - margin)) > 1e-9)
    assert tests.equivalent == (-margin < low and high < margin)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.01, 1))
def test_equivalence_is_two_t_tests(differences, margin):
    assume(np.std(differences) > 1e-6)
    low = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    high = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert equivalence(differences, margin).p_value == pytest.approx(max(low, high), abs=1e-9)


def test_equivalence_is_not_the_absence_of_a_difference():
    assert equivalence([0.01, -0.01, 0.0], 0.1).equivalent
    noisy = [0.5, -0.5, 0.0]
    assert paired(noisy, [0.0] * 3).p_value > 0.9
    assert not equivalence(noisy, 0.1).equivalent
    assert not equivalence([0.2, 0.21, 0.19], 0.1).equivalent
    assert equivalence([0.05, 0.05, 0.05], 0.1).equivalent
    assert not equivalence([0.1, 0.1, 0.1], 0.1).equivalent


@pytest.mark.soak
def test_error_rates_are_those_promised():
    """At the margin's edge 5 % are called equivalent; without a difference 5 % called different."""
    draw = np.random.default_rng(0)
    edge = [equivalence(0.5 + 0.05 * draw.standard_normal(3), 0.5).equivalent for _ in range(4000)]
    none = [paired(draw.standard_normal(3), [0.0] * 3).p_value < 0.05 for _ in range(4000)]
    assert np.mean(edge) == pytest.approx(0.05, abs=0.012)
    assert np.mean(none) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [1.0], "at least 2"),
        ([1.0, 2.0], [1.0], "the same seeds"),
        ([1.0, float("nan")], [1.0, 1.0], "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        paired(first, second)


def test_a_margin_of_nothing_is_refused():
    with pytest.raises(ValueError, match="margin 0"):
        equivalence([0.1, 0.2], 0)
