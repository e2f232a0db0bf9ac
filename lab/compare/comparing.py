"""Two measurements of the same name, compared. Pure.

- Exact ones are equal or not.
- Times, rates and sizes of processes belong to a machine: they are a ratio and no verdict.
- Estimates differ if the 95 % interval of their difference excludes 0. The runs count as
  independent: the variance is se1² + se2², the degrees of freedom are those of Welch (1947).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lab.result import Measurement, Scalar

EXACT = 1e-9  # relative: two floats that were counted differ by rounding alone
LEVEL = 0.975
CHANCE = 0.05  # share of the intervals that exclude 0 although nothing differs
# What is measured in these depends on the machine, and on what else runs there; so do costs that
# are computed from such numbers.
TIMES = {"s", "min", "h", "tokens/s", "GFLOP/s", "GB/s", "billion weights/s", "bits/h"}
SIZES = {"bytes", "GB"}  # unless they are counted


class Outcome(StrEnum):
    """How two measurements compare."""

    EQUAL = "equal"  # the same number, text or truth
    AGREES = "agrees"  # the interval of the difference contains 0
    DIFFERS = "differs"  # it excludes 0, or an exact value is another one
    MACHINE = "machine"  # of machines: a ratio
    UNKNOWN = "unknown"  # no number, or no interval: nothing decides


@dataclass(frozen=True)
class Comparison:
    """A measurement of both runs.

    difference: here minus there, in the measurement's unit; half: the half-width of its interval;
    ratio: here over there. None where it does not exist.
    """

    name: str
    here: Measurement
    there: Measurement
    outcome: Outcome
    difference: float | None = None
    half: float | None = None
    ratio: float | None = None

    @property
    def is_interval(self) -> bool:
        """Return whether an interval decided."""
        return self.half is not None

    @property
    def relative(self) -> float | None:
        """Return the size of the difference as a share of the number there; None of no number."""
        there = as_number(self.there.value)
        if self.difference is None or not there:
            return None
        return abs(self.difference / there)

    @property
    def size(self) -> float:
        """Return how clearly they differ: the difference in half-widths; of exact ones infinite."""
        if self.outcome != Outcome.DIFFERS:
            return 0.0
        if not self.half or self.difference is None:
            return math.inf
        return abs(self.difference) / self.half


def compare_all(
    here: Mapping[str, Measurement], there: Mapping[str, Measurement]
) -> tuple[Comparison, ...]:
    """Return the comparison of each measurement that both have, in the order of `here`."""
    return tuple(
        compare(name, measurement, there[name])
        for name, measurement in here.items()
        if name in there
    )


def compare(name: str, here: Measurement, there: Measurement) -> Comparison:
    """Return how two measurements of a name compare."""
    a, b = as_number(here.value), as_number(there.value)
    is_exact = here.exact and there.exact
    # 1. What is no number is equal or not; what could not be measured decides nothing.
    if a is None or b is None:
        outcome = Outcome.DIFFERS
        if here.value == there.value and type(here.value) is type(there.value):
            outcome = Outcome.EQUAL
        elif here.value is None or there.value is None:
            outcome = Outcome.UNKNOWN
        return Comparison(name, here, there, outcome)

    # 2. What depends on the machine.
    difference = a - b
    if here.unit in TIMES or (here.unit in SIZES and not is_exact):
        ratio = a / b if b else None
        return Comparison(name, here, there, Outcome.MACHINE, difference, ratio=ratio)

    # 3. The same number, or two exact ones.
    if math.isclose(a, b, rel_tol=EXACT):
        return Comparison(name, here, there, Outcome.EQUAL, difference)
    if is_exact:
        return Comparison(name, here, there, Outcome.DIFFERS, difference)

    # 4. Estimates.
    half = half_width(here, there)
    if half is None:
        return Comparison(name, here, there, Outcome.UNKNOWN, difference)
    outcome = Outcome.DIFFERS if abs(difference) > half else Outcome.AGREES
    return Comparison(name, here, there, outcome, difference, half)


def half_width(here: Measurement, there: Measurement) -> float | None:
    """Return the half-width of the 95 % interval of the difference of two estimates.

    An exact one has no error. None if an estimate has no standard error or n below 2, or if both
    errors are 0.
    """
    from scipy.special import stdtrit

    variance, share = 0.0, 0.0  # share: Σ variance² / (n - 1) of Welch's degrees of freedom
    for one in (here, there):
        if one.exact:
            continue
        if one.stderr is None or one.n is None or one.n < 2:
            return None
        variance += one.stderr**2
        share += one.stderr**4 / (one.n - 1)
    if variance == 0 or share == 0:
        return None
    return float(stdtrit(variance**2 / share, LEVEL)) * math.sqrt(variance)


def as_number(value: Scalar) -> float | None:
    """Return a number, or None of a text, a truth and nothing."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return None
