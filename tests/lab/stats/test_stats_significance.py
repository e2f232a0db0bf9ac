"""Tests and ranks against scipy's, by law, and in cases whose outcome is known."""

import numpy as np
import pytest
from scipy import stats

from lab.stats import significance as comparing


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 6), (5, 5), (9, 2), (30, 13)])
def test_mcnemar_is_a_binomial_test_of_the_items_that_changed(lost, won):
    before = np.array([1] * lost + [0] * won + [1, 0, 1, 0])
    after = np.array([0] * lost + [1] * won + [1, 0, 1, 0])
    found = comparing.mcnemar(before, after)
    wanted = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert found == (lost, won, pytest.approx(wanted))


def test_holm_by_hand():
    assert comparing.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert comparing.holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_never_turns_the_order_round():
    p = np.random.default_rng(0).random(30)
    adjusted = np.array(comparing.holm(p.tolist()))
    assert (adjusted >= p).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_spearman_is_scipys_with_ties_too():
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 5, 12), draw.integers(0, 5, (4, 12))
    wanted = [stats.spearmanr(x, row).statistic for row in y]
    assert comparing.spearman(x, y) == pytest.approx(wanted)
    assert comparing.spearman(np.array([1, 2, 3]), np.array([5, 5, 5])) == 0


def test_bootstrap_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(2).normal(size=200)
    found = comparing.bootstrap(lambda drawn: values[drawn].mean(1), 200)
    assert found == pytest.approx(values.std() / np.sqrt(200), rel=0.1)
    assert comparing.bootstrap(lambda drawn: np.zeros(len(drawn)), 200) == 0


def test_frontier_keeps_who_is_not_beaten():
    assert comparing.frontier([1, 2, 3, 2], [0.1, 0.2, 0.3, 0.25]) == [0, 1, 2]
    assert comparing.frontier([1, 2], [0.5, 0.1]) == [1]
    assert comparing.frontier([1, 1], [0.5, 0.5]) == [0, 1]
