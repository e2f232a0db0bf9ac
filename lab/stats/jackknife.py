"""The standard error of a number that is no mean: recompute it with each unit left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def jackknife(count: int, compute: Callable[[np.ndarray], float | None]) -> float | None:
    """Return the standard error of `compute(all units)`; None where one of its values is None.

    sqrt((n − 1)/n · Σ (v_i − mean)²), v_i the number without unit i (Tukey 1958, Ann. Math.
    Stat. 29, 614).

    Args:
        count: number of units, at least 2.
        compute: from the indices of the units to use, [count − 1], to the number of those alone.
    """
    units = np.arange(count)
    values = []
    for i in range(count):
        value = compute(np.delete(units, i))
        if value is None:
            return None
        values.append(value)
    return jackknife_stderr(values)


def jackknife_stderr(values: Sequence[float]) -> float:
    """Return the standard error from the n values that each leave one unit out."""
    v = np.asarray(values, dtype=np.float64)
    return float(np.sqrt((len(v) - 1) / len(v) * ((v - v.mean()) ** 2).sum()))
