"""Means and ratios over tokens that come in examples, with the standard error of such clusters."""

from __future__ import annotations

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
    """Return the ratio of two sums over tokens; all arguments are [N].

    Examples are the independent units, their tokens are not: r = Σ x / Σ y;
    se(r) = sqrt(k/(k−1) · Σ_i (X_i − r·Y_i)²) / |Σ y| over k examples, X_i and Y_i their sums. It
    is the linearised ratio estimator (Cochran 1977, Sampling Techniques, section 6.4).
    """
    x = np.bincount(example_ids, weights=numerators)  # [k]
    y = np.bincount(example_ids, weights=denominators)  # [k]
    k = len(y)
    total = float(y.sum())
    value = float(x.sum()) / total
    squares = float(((x - value * y) ** 2).sum())
    stderr = math.sqrt(k / (k - 1) * squares) / abs(total)
    return Mean(value, stderr, k)


def token_mean(values: np.ndarray, example_ids: np.ndarray) -> Mean:
    """Return the mean over tokens [N], as the ratio of their sum to their number (see `ratio`)."""
    return ratio(values, np.ones_like(values, dtype=np.float64), example_ids)
