"""Compare two settings seed by seed: mean difference, t interval, and test of equivalence.

Runs of one seed start from the same adapter and see the same examples in the same order, so their
difference is free of what the seed alone does. With three seeds the interval is wide
(t(0.975, 2) = 4.30): show every difference beside it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDING = 1e-14  # a spread below this share of the mean is rounding
UNDERFLOW = 1e-150  # the square of a smaller spread is 0 in double precision


@dataclass(frozen=True)
class Paired:
    """The differences first − second, one per seed, and the paired t test of their mean.

    stderr: sd / √n with n − 1 in sd; interval: of the mean, at the confidence asked for; p_value:
    two-sided, of the hypothesis that the mean is 0.
    """

    differences: tuple[float, ...]
    mean: float
    stderr: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t tests: is |mean| below `margin`?

    TOST; Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657. p_value: the larger of the two
    tests' p values; interval: of confidence 1 − 2·alpha, which is inside (−margin, margin) exactly
    where p_value < alpha; equivalent: whether p_value < alpha.
    """

    margin: float
    p_value: float
    interval: tuple[float, float]
    equivalent: bool


def paired(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> Paired:
    """Compare two settings by their values of the same seeds, in the same order.

    Raises:
        ValueError: fewer than two seeds, different numbers of seeds on the two sides, or a value
            that is not finite.
    """
    from scipy import stats

    if len(first) != len(second) or len(first) < 2:
        msg = (
            f"got {len(first)} values beside {len(second)}; expected the same seeds on both "
            "sides, at least 2"
        )
        raise ValueError(msg)
    differences = tuple(float(a) - float(b) for a, b in zip(first, second, strict=True))
    if not all(math.isfinite(d) for d in differences):
        msg = f"got differences {differences}; expected finite numbers"
        raise ValueError(msg)

    mean = statistics.fmean(differences)
    stderr = statistics.stdev(differences) / math.sqrt(len(differences))
    if _are_alike(differences):
        # The t statistic would be 0/0 or infinite: the mean alone decides.
        return Paired(differences, mean, stderr, (mean, mean), float(mean == 0.0))
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(confidence)
    return Paired(differences, mean, stderr, (float(low), float(high)), float(test.pvalue))


def equivalence(differences: Sequence[float], margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Test whether the mean of paired differences is inside ±margin.

    The differences are `Paired.differences`; margin is > 0, in their unit. Where several pairs must
    all be equivalent (ranks, say), test each at the same alpha and require all of them: such an
    intersection of tests needs no correction (Berger 1982, Technometrics 24, 295).

    Raises:
        ValueError: the margin is not above 0, or see `paired`.
    """
    from scipy import stats

    if margin <= 0:
        msg = (
            f"got margin {margin}; expected a number above 0, the largest difference that does "
            "not matter"
        )
        raise ValueError(msg)
    comparison = paired(differences, [0.0] * len(differences), confidence=1 - 2 * alpha)
    # Of the two tests, that against the nearer end of ±margin has the larger p.
    mean = comparison.mean
    if _are_alike(differences):
        distance = margin - abs(mean)
        p_value = float(distance < 0.0)
        if distance == 0.0:
            p_value = 0.5
    elif mean >= 0.0:
        p_value = float(stats.ttest_1samp(differences, margin, alternative="less").pvalue)
    else:
        p_value = float(stats.ttest_1samp(differences, -margin, alternative="greater").pvalue)
    return Equivalence(margin, p_value, comparison.interval, p_value < alpha)


def _are_alike(differences: Sequence[float]) -> bool:
    """Return whether the differences have no spread beyond rounding.

    scipy's tests give NaN or a warning for them.
    """
    spread = max(differences) - min(differences)
    return bool(spread <= ROUNDING * abs(statistics.fmean(differences)) or spread < UNDERFLOW)
