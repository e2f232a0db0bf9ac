"""Means, tests and rank correlations of FEAT-008's gate, by their definitions: slow and plain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def mean(values: Any) -> dict[str, Any]:
    count = len(values)
    centre = math.fsum(values) / count
    spread = math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (count - 1) / count)
    return {"value": centre, "stderr": spread, "n": count}


def per_token(values: Any, example_ids: Any) -> dict[str, Any]:
    """Give the mean over tokens, its standard error over example_ids (Cochran's linearised ratio)."""
    sums: dict[int, list[float]] = {}
    for value, owner in zip(values.tolist(), example_ids.tolist(), strict=True):
        sums.setdefault(owner, []).append(value)
    groups, count = len(sums), len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((math.fsum(group) - mean * len(group)) ** 2 for group in sums.values())
    return {"value": mean, "stderr": math.sqrt(groups / (groups - 1) * spread) / count, "n": groups}


def mcnemar(before: Any, after: Any) -> tuple[int, int, float]:
    """Give items lost, won, and twice the chance of so few of the rarer in as many coin throws."""
    lost = int(sum(a > b for a, b in zip(before, after, strict=True)))
    won = int(sum(a < b for a, b in zip(before, after, strict=True)))
    tail = sum(math.comb(lost + won, i) for i in range(min(lost, won) + 1)) / 2 ** (lost + won)
    return lost, won, min(1.0, 2 * tail)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    ordered, found, before = sorted(p_values, key=lambda name: p_values[name]), {}, 0.0
    for place, name in enumerate(ordered):
        before = found[name] = max(before, min(1.0, p_values[name] * (len(ordered) - place)))
    return found


def _ranks(values: Any) -> Any:
    """Give ranks along the last axis, equal values at the middle of theirs."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    upto = (values[..., None, :] <= values[..., :, None]).sum(-1)
    return (below + upto + 1) / 2


def _spearman(x: Sequence[float], y: Any) -> Any:
    import numpy as np

    a, b = _ranks(np.array(x)), _ranks(y)
    a, b = a - a.mean(), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum() * (b * b).sum(-1))
    return np.where(scale > 0, (a * b).sum(-1) / np.where(scale > 0, scale, 1), 0.0)


def correlation(x: Sequence[float], units: int, means: Callable[[Any], Any]) -> dict[str, Any]:
    """Give Spearman of x with means(units drawn [D, units]) -> [D, models], and its spread.

    The spread is that over 1000 draws.
    """
    import numpy as np

    drawn = np.random.default_rng(0).integers(0, units, (1000, units))
    value = float(_spearman(x, means(np.arange(units)[None]))[0])
    return {"value": value, "stderr": float(np.std(_spearman(x, means(drawn)), ddof=1)), "n": units}
