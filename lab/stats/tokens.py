"""Means and ratios of tokens that come in examples, with the standard error of such clusters."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean or ratio, its standard error, and the number of independent units (examples)."""

    value: float
    stderr: float
    n: int


def ratio(numerators: np.ndarray, denominators: np.ndarray, example_ids: np.ndarray) -> Mean:
    """Ratio of two sums over tokens [N]; examples are the independent units, their tokens are not.

    r = Σ x / Σ y; se(r) = sqrt(k/(k−1) · Σ_i (X_i − r·Y_i)²) / |Σ y| over k examples, X_i and Y_i
    their sums: the linearised ratio estimator (Cochran 1977, Sampling Techniques, section 6.4).
    """
    above, below = (
        np.bincount(example_ids, weights=numerators),
        np.bincount(example_ids, weights=denominators),
    )
    k, total = len(below), float(below.sum())
    value = float(above.sum()) / total
    spread = float(((above - value * below) ** 2).sum())
    return Mean(value, math.sqrt(k / (k - 1) * spread) / abs(total), k)


def token_mean(values: np.ndarray, example_ids: np.ndarray) -> Mean:
    """Mean over tokens [N]: their sum's ratio to their number, see `ratio`."""
    return ratio(values, np.ones_like(values, dtype=np.float64), example_ids)
