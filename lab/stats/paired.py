"""Two settings compared seed by seed: mean difference, t interval, and whether it is small enough.

Runs of one seed start from the same adapter and see the same examples in the same order, so their
difference is free of what the seed alone does. With three seeds the interval is wide
(t(0.975, 2) = 4.30): show every difference beside it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit  # Student's t: distribution function and quantile


@dataclass(frozen=True)
class Paired:
    """The differences first − second, one per seed, and the paired t test of their mean.

    stderr: sd / √n with n − 1 in sd; interval: of the mean, at the confidence asked for; p_value:
    two-sided, of the claim that the mean is 0.
    """

    differences: tuple[float, ...]
    mean: float
    stderr: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t tests: is |mean| below `margin`?

    TOST; Schuirmann 1987, J. Pharmacokinet. Biopharm. 15, 657. p_value: the larger one of the two
    tests' p values; interval: that of confidence 1 − 2·alpha, which lies within (−margin, margin)
    exactly where p_value < alpha; equivalent: whether it does.
    """

    margin: float
    p_value: float
    interval: tuple[float, float]
    equivalent: bool


def paired(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> Paired:
    """Compare two settings by their values of the same seeds, in the same order.

    Raises:
        ValueError: fewer than two seeds, another number of them on each side, or a value that
            is not finite.
    """
    if len(first) != len(second) or len(first) < 2:
        msg = (
            f"{len(first)} values beside {len(second)}; wanted the same seeds on both "
            "sides, at least 2"
        )
        raise ValueError(msg)
    differences = tuple(float(a) - float(b) for a, b in zip(first, second, strict=True))
    if not all(math.isfinite(d) for d in differences):
        msg = f"differences {differences}; wanted finite numbers"
        raise ValueError(msg)
    mean, stderr = (
        statistics.fmean(differences),
        statistics.stdev(differences) / math.sqrt(len(differences)),
    )
    reach = float(stdtrit(len(differences) - 1, (1 + confidence) / 2)) * stderr
    p_value = 2 * _above(abs(mean), stderr, len(differences))
    return Paired(differences, mean, stderr, (mean - reach, mean + reach), min(p_value, 1.0))


def equivalence(differences: Sequence[float], margin: float, *, alpha: float = 0.05) -> Equivalence:
    """Test whether the mean of paired differences is surely within ±margin.

    The differences are `Paired.differences`; margin is > 0, in their unit. Where several pairs must
    all be equivalent (ranks, say), test each at the same alpha and ask for all of them: such an
    intersection of tests needs no correction (Berger 1982, Technometrics 24, 295).
    """
    if margin <= 0:
        msg = (
            f"margin {margin}; wanted a number above 0, the largest difference that does not matter"
        )
        raise ValueError(msg)
    found = paired(differences, [0.0] * len(differences), confidence=1 - 2 * alpha)
    n = len(differences)
    p_value = max(
        _above(found.mean + margin, found.stderr, n), _above(margin - found.mean, found.stderr, n)
    )
    return Equivalence(margin, p_value, found.interval, p_value < alpha)


def _above(distance: float, stderr: float, n: int) -> float:
    """P(T > distance / stderr) for Student's t with n − 1 degrees of freedom.

    Differences that are all alike have no spread: then the distance decides alone, and at 0
    nothing is known.
    """
    if stderr == 0.0:
        return 0.5 if distance == 0.0 else float(distance < 0.0)
    return float(stdtr(n - 1, -distance / stderr))
