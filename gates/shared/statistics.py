"""Means, tests and rank correlations by their definitions: slow and plain, without scipy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def mean(values: Any) -> dict[str, Any]:
    """Return the mean of independent values and its standard error sd / √n, n − 1 in sd."""
    count = len(values)
    centre = math.fsum(values) / count
    squares = math.fsum((v - centre) ** 2 for v in values)
    return {"value": centre, "stderr": math.sqrt(squares / (count - 1) / count), "n": count}


def jackknife_stderr(left_out: Sequence[float]) -> float:
    """Return the standard error of a number from its values without each of the n units.

    sqrt((n − 1)/n · Σ (v_i − mean)²) (Tukey 1958).
    """
    count = len(left_out)
    centre = math.fsum(left_out) / count
    squares = math.fsum((value - centre) ** 2 for value in left_out)
    return math.sqrt((count - 1) / count * squares)


def per_token(values: Any, example_ids: Any) -> dict[str, Any]:
    """Return the mean over tokens and its standard error over examples.

    Cochran's linearised ratio; values, example_ids: [tokens].
    """
    # 1. The values of each example.
    by_example: dict[int, list[float]] = {}
    for value, example in zip(values.tolist(), example_ids.tolist(), strict=True):
        by_example.setdefault(example, []).append(value)
    examples = by_example.values()

    # 2. The mean over all tokens, and how far each example's sum is from it.
    count = len(values)
    k = len(by_example)
    centre = math.fsum(values) / count
    squares = math.fsum((math.fsum(group) - centre * len(group)) ** 2 for group in examples)
    return {"value": centre, "stderr": math.sqrt(k / (k - 1) * squares) / count, "n": k}


def mcnemar(before: Any, after: Any) -> tuple[int, int, float]:
    """Return items lost, items won, and the exact two-sided p of McNemar's test.

    p is twice the chance that a fair coin, thrown lost + won times, shows the rarer side no more
    often.
    """
    lost = int(sum(a > b for a, b in zip(before, after, strict=True)))
    won = int(sum(a < b for a, b in zip(before, after, strict=True)))
    throws = lost + won
    tail = sum(math.comb(throws, i) for i in range(min(lost, won) + 1)) / 2**throws
    return lost, won, min(1.0, 2 * tail)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Return the p values adjusted by Holm, the smallest first."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    largest = 0.0
    for k, name in enumerate(ordered):
        largest = max(largest, min(1.0, p_values[name] * (len(ordered) - k)))
        adjusted[name] = largest
    return adjusted


def correlation(x: Sequence[float], units: int, means: Callable[[Any], Any]) -> dict[str, Any]:
    """Return Spearman's correlation of x with means of units, and its bootstrapped error.

    x: [models]; means: from unit indices [D, units] to [D, models]. The error is the standard
    deviation over 1000 resamples.
    """
    import numpy as np

    value = float(_spearman(x, means(np.arange(units)[None]))[0])
    resamples = np.random.default_rng(0).integers(0, units, (1000, units))
    stderr = float(np.std(_spearman(x, means(resamples)), ddof=1))
    return {"value": value, "stderr": stderr, "n": units}


def _spearman(x: Sequence[float], y: Any) -> Any:
    """Return the rank correlation of x [M] with each row of y [..., M]; 0 without a spread."""
    import numpy as np

    x_ranks = _ranks(np.array(x))
    y_ranks = _ranks(y)
    a = x_ranks - x_ranks.mean()
    b = y_ranks - y_ranks.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum() * (b * b).sum(-1))
    positive = np.where(scale > 0, scale, 1)
    return np.where(scale > 0, (a * b).sum(-1) / positive, 0.0)


def _ranks(values: Any) -> Any:
    """Return ranks along the last axis [..., M], from 1; equal values have their middle rank."""
    others = values[..., None, :]  # [..., 1, M]
    each = values[..., :, None]  # [..., M, 1]
    below = (others < each).sum(-1)  # [..., M]
    up_to = (others <= each).sum(-1)
    return (below + up_to + 1) / 2
