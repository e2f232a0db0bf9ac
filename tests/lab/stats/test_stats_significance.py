"""Tests and ranks against scipy's and the gate's formulas, and in cases whose outcome is known."""

import numpy as np
import pytest
from scipy import stats

from gates.shared import statistics as formulas
from lab.stats import significance


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 6), (5, 5), (9, 2), (30, 13)])
def test_mcnemar_is_a_binomial_test_of_the_items_that_changed(lost, won):
    before = np.array([1] * lost + [0] * won + [1, 0, 1, 0])
    after = np.array([0] * lost + [1] * won + [1, 0, 1, 0])
    p = 1.0
    if lost + won:
        p = stats.binomtest(lost, lost + won).pvalue
    result = significance.mcnemar(before, after)
    assert result == (lost, won, pytest.approx(p))
    assert result == pytest.approx(formulas.mcnemar(before, after), rel=1e-12)


def test_holm_by_hand():
    assert significance.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_never_turns_the_order_round():
    p = np.random.default_rng(0).random(30)
    adjusted = np.array(significance.holm(p.tolist()))
    assert (adjusted >= p).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_spearman_is_scipys_with_ties_too():
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 5, 12), draw.integers(0, 5, (4, 12))
    expected = [stats.spearmanr(x, row).statistic for row in y]
    assert significance.spearman(x, y) == pytest.approx(expected)
    assert significance.spearman(np.array([1, 2, 3]), np.array([5, 5, 5])) == 0


def test_bootstrap_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(2).normal(size=200)
    stderr = significance.bootstrap(lambda indices: values[indices].mean(1), 200)
    assert stderr == pytest.approx(values.std() / np.sqrt(200), rel=0.1)
    assert significance.bootstrap(lambda indices: np.zeros(len(indices)), 200) == 0


def test_bootstrap_has_the_draws_that_the_gate_has():
    values = np.random.default_rng(3).normal(size=(50, 6))
    x = np.arange(6.0)

    def of_means(indices):
        return significance.spearman(x, values[indices].mean(1))

    gate = formulas.correlation(list(x), 50, lambda indices: values[indices].mean(1))
    assert significance.bootstrap(of_means, 50) == pytest.approx(gate["stderr"], rel=1e-12)


def test_frontier_keeps_who_is_not_beaten():
    assert significance.frontier([1, 2, 3, 2], [0.1, 0.2, 0.3, 0.25]) == [0, 1, 2]
    assert significance.frontier([1, 2], [0.5, 0.1]) == [1]
    assert significance.frontier([1, 1], [0.5, 0.5]) == [0, 1]
