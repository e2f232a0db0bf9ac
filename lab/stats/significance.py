"""Compare a tuned model with its base item by item: tests, ranks, and the Pareto frontier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000  # of a bootstrap; its standard error is then accurate to about 2 %


def mcnemar(before: np.ndarray, after: np.ndarray) -> tuple[int, int, float]:
    """Return items lost, items won, and the exact two-sided p of McNemar's test (1947).

    before, after: [N], 0 or 1. The hypothesis is that half of the items that changed were lost,
    so the test is the binomial one of the lost among them.
    """
    from scipy import stats

    lost = int(((before == 1) & (after == 0)).sum())
    won = int(((before == 0) & (after == 1)).sum())
    if lost + won == 0:
        return lost, won, 1.0
    return lost, won, float(stats.binomtest(lost, lost + won).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for their number, in their order (Holm 1979).

    The k-th smallest of m (k from 0) is multiplied by m − k, and is never below a smaller one.
    scipy has the adjustments for the false discovery rate, but not this one.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for k, i in enumerate(np.argsort(p_values, kind="stable")):
        scaled = (len(p_values) - k) * p_values[i]
        largest = max(largest, min(1.0, scaled))
        adjusted[i] = largest
    return adjusted


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of x [M] with each row of y [..., M], as [...].

    It is 0 where all values of a side are equal. `scipy.stats.spearmanr` gives NaN there and takes
    no stack of rows, which a bootstrap needs.
    """
    from scipy import stats

    x_ranks = stats.rankdata(x)  # [M]
    y_ranks = stats.rankdata(y, axis=-1)  # [..., M]
    a = x_ranks - x_ranks.mean()
    b = y_ranks - y_ranks.mean(-1, keepdims=True)
    scale = np.sqrt((a**2).sum() * (b**2).sum(-1))
    correlation: np.ndarray = np.divide(
        (a * b).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0
    )
    return correlation


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], units: int) -> float:
    """Return the standard error of a statistic over resampled units (Efron 1979).

    statistic: from unit indices [RESAMPLES, units], drawn with replacement, to a value each,
    [RESAMPLES]. The draws are those of numpy's default_rng(0).
    """
    from scipy import stats

    def of_resamples(indices: np.ndarray, axis: int) -> np.ndarray:
        del axis  # always the last
        return statistic(indices)

    result: Any = stats.bootstrap(
        (np.arange(units),),
        of_resamples,
        n_resamples=RESAMPLES,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.standard_error)


def frontier(learning: Sequence[float], forgetting: Sequence[float]) -> list[int]:
    """Return the indices of the models on the Pareto frontier.

    A model is on it if no other learned at least as much and forgot no more, one of them strictly.
    """
    pairs = list(zip(learning, forgetting, strict=True))

    def is_dominated(gain: float, loss: float) -> bool:
        for other_gain, other_loss in pairs:
            no_worse = other_gain >= gain and other_loss <= loss
            better = other_gain > gain or other_loss < loss
            if no_worse and better:
                return True
        return False

    return [i for i, (gain, loss) in enumerate(pairs) if not is_dominated(gain, loss)]
