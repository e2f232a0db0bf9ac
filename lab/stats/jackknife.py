"""The standard error of a number that is no mean: compute it again with each unit left out."""

from collections.abc import Callable, Sequence

import numpy as np


def jackknife(count: int, compute: Callable[[np.ndarray], float | None]) -> float | None:
    """Standard error of `compute(all units)`; None where it cannot be computed without one of them.

    Args:
        count: units, at least 2.
        compute: gets the indices of the units to use, [count − 1], and gives the number
            from them alone.

    sqrt((n − 1)/n · Σ (v_i − mean)²), v_i the number without unit i (Tukey 1958, Ann. Math.
    Stat. 29, 614).
    """
    units = np.arange(count)
    without = [compute(np.delete(units, i)) for i in range(count)]
    known = [value for value in without if value is not None]
    return spread(known) if len(known) == count else None


def spread(without: Sequence[float]) -> float:
    """The formula of `jackknife`, from the n values that each leave one unit out."""
    values = np.asarray(without, dtype=np.float64)
    return float(np.sqrt((len(values) - 1) / len(values) * ((values - values.mean()) ** 2).sum()))
