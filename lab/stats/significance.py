"""A tuned model against its base, item by item, text by text: tests, ranks, who is unbeaten."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import bdtr
from scipy.stats import rankdata

RESAMPLES = 1000  # of a bootstrap; its standard error is then known to about 2 %


def mcnemar(before: np.ndarray, after: np.ndarray) -> tuple[int, int, float]:
    """Items lost and won, and the exact two-sided p of McNemar's test (1947).

    The hypothesis: of those that changed, half were lost. before, after: [N], 0 or 1. The p of a
    fair coin's lost + won throws, doubled and at most 1.
    """
    lost, won = int(((before == 1) & (after == 0)).sum()), int(((before == 0) & (after == 1)).sum())
    changed = lost + won
    return lost, won, min(1.0, 2 * float(bdtr(min(lost, won), changed, 0.5))) if changed else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p adjusted for being one of many (Holm 1979).

    Times the number still in the race, never below a smaller.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, i in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = least
    return adjusted


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of x [M] with each row of y [..., M].

    0 where all values of a side are equal.
    """
    a, b = rankdata(x), rankdata(y, axis=-1)
    a, b = a - a.mean(), b - b.mean(-1, keepdims=True)
    spread = np.sqrt((a**2).sum() * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), spread, out=np.zeros_like(spread), where=spread > 0)


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], units: int) -> float:
    """Standard error of a statistic by drawing its `units` again with replacement (Efron 1979).

    statistic: from drawn indices [RESAMPLES, units] to a value each. The draws are those of
    numpy's default_rng(0).
    """
    drawn = np.random.default_rng(0).integers(0, units, (RESAMPLES, units))
    return float(np.std(statistic(drawn), ddof=1))


def frontier(learning: Sequence[float], forgetting: Sequence[float]) -> list[int]:
    """Indices of the models that no other beats.

    None learnt at least as much and forgot no more, one of it truly.
    """
    pairs = list(zip(learning, forgetting, strict=True))
    return [
        i
        for i, (gain, loss) in enumerate(pairs)
        if not any(g >= gain and f <= loss and (g > gain or f < loss) for g, f in pairs)
    ]
