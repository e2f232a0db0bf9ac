"""Scoring predictions: what was claimed before the run against what was measured in it.

Exact measurements (counts, identities, choices) compare directly. Samples compare by the 95 % interval
value ± t(0.975, n-1)·stderr: HELD if it lies wholly on the claimed side, MISSED if wholly on the other side, else
INCONCLUSIVE. A missed prediction is a finding, never a failure.
"""

from __future__ import annotations

import functools
import math
import operator
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from phases.plan.schema import Feature

Outcome = Literal["HELD", "MISSED", "INCONCLUSIVE"]

RTOL = 1e-9  # relative tolerance between exact floats
CONFIDENCE = 0.975  # of one side: a two-sided 95 % interval

_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Claim:
    """A prediction as the plan states it; `value` is (lo, hi) for the comparator `within`."""

    id: str
    claim: str
    measurement: str
    comparator: str
    value: Any
    margin: str | None = None
    """A measurement that must be clearly above 0 for the claim to be decided: the lead of the best of several."""


@dataclass(frozen=True)
class PredictionScore:
    """How a claim fared, with the sentence that says why in numbers."""

    id: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Interval:
    """A measurement's 95 % interval, both ends inclusive."""

    low: float
    high: float
    words: str


class _UndecidedError(Exception):
    """Nothing can be said; the message says why."""


def score(claim: Claim, measurements: Mapping[str, Any]) -> PredictionScore:
    """Compare one claim with the measurements of a result.json; what cannot be compared is INCONCLUSIVE."""
    try:
        _require_margin(claim, measurements)
        measurement = _find(measurements, claim.measurement)
        if measurement.get("exact") is True:
            held, words = _compare_exact(claim, measurement.get("value"))
        else:
            held, words = _compare_interval(claim, _interval(claim.measurement, measurement))
    except _UndecidedError as error:
        return PredictionScore(claim.id, "INCONCLUSIVE", str(error))
    return PredictionScore(claim.id, "HELD" if held else "MISSED", words)


def _find(measurements: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = measurements.get(name)
    if isinstance(found, Mapping):
        return found
    raise _UndecidedError(f"no measurement {name}")


def _require_margin(claim: Claim, measurements: Mapping[str, Any]) -> None:
    if claim.margin is None:
        return
    lead = _interval(claim.margin, _find(measurements, claim.margin))
    if lead.low <= 0:
        raise _UndecidedError(
            f"{lead.words} is not clearly above 0, so the best is not clearly the best"
        )


#### exact measurements


def _compare_exact(claim: Claim, value: Any) -> tuple[bool, str]:
    words = f"{claim.measurement} is {_show(value)}; claimed {_claimed(claim)}"
    if claim.comparator in ("==", "!="):
        if value is None:
            raise _UndecidedError(f"{claim.measurement} has no value")
        return equal(value, claim.value) == (claim.comparator == "=="), words
    if not is_number(value):
        raise _UndecidedError(f"{words}, but {_show(value)} is no number")
    if claim.comparator == "within":
        low, high = _bounds(claim)
        return low <= value <= high, words
    return bool(_order(claim)(value, _limit(claim))), words


def equal(met: Any, wanted: Any) -> bool:
    """Equality of exact JSON values: numbers within RTOL of each other, a boolean never equal to a number."""
    if is_number(met) and is_number(wanted):
        if isinstance(met, int) and isinstance(wanted, int):
            return met == wanted
        return math.isclose(met, wanted, rel_tol=RTOL)
    if isinstance(met, list | tuple) and isinstance(wanted, list | tuple):
        return len(met) == len(wanted) and all(map(equal, met, wanted))
    return type(met) is type(wanted) and bool(met == wanted)


#### samples


def _interval(name: str, measurement: Mapping[str, Any]) -> Interval:
    value, stderr, n = (measurement.get(field) for field in ("value", "stderr", "n"))
    if not is_number(value):
        raise _UndecidedError(f"{name} has no value that is a number, but {_show(value)}")
    if (
        not is_number(stderr)
        or stderr < 0
        or not isinstance(n, int)
        or isinstance(n, bool)
        or n < 2
    ):
        raise _UndecidedError(
            f"{name} is {_show(value)} without a standard error of at least two values"
        )
    half = t_quantile(CONFIDENCE, n - 1) * stderr
    low, high = value - half, value + half
    return Interval(
        low, high, f"{name} {_show(value)} (95 % interval {_show(low)} to {_show(high)}, n = {n})"
    )


def _compare_interval(claim: Claim, met: Interval) -> tuple[bool, str]:
    words = f"{met.words}; claimed {_claimed(claim)}"
    if claim.comparator in ("==", "!="):
        raise _UndecidedError(
            f"{words}: a measurement with spread is never exactly a number; claim `within`"
        )
    if claim.comparator == "within":
        low, high = _bounds(claim)
        inside, outside = low <= met.low and met.high <= high, met.high < low or met.low > high
    else:
        order, limit = _order(claim), _limit(claim)
        sides = {order(met.low, limit), order(met.high, limit)}
        inside, outside = sides == {True}, sides == {False}
    if inside or outside:
        return inside, words
    raise _UndecidedError(f"{words}: the interval lies on both sides")


def _order(claim: Claim) -> Any:
    if claim.comparator not in _ORDER:
        raise _UndecidedError(
            f"comparator {claim.comparator!r}; wanted one of == != < <= > >= within"
        )
    return _ORDER[claim.comparator]


def _limit(claim: Claim) -> float:
    if not is_number(claim.value):
        raise _UndecidedError(
            f"claimed {_claimed(claim)}; wanted a number after {claim.comparator}"
        )
    return claim.value


def _bounds(claim: Claim) -> tuple[float, float]:
    match claim.value:
        case [low, high] if is_number(low) and is_number(high) and low <= high:
            return low, high
    raise _UndecidedError(f"claimed {_claimed(claim)}; wanted [low, high] after within")


def _claimed(claim: Claim) -> str:
    return f"{claim.comparator} {_show(claim.value)}"


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_show, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """A finite int or float; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


#### Student's t


@functools.cache
def t_quantile(p: float, df: int) -> float:
    """The p-quantile (0.5 < p < 1) of Student's t with `df` >= 1 degrees of freedom.

    Up to 1000 degrees by bisection on the distribution's finite series, above by its expansion around the normal
    quantile, which there is exact to 12 digits. Source: Abramowitz and Stegun, Handbook of Mathematical Functions,
    26.7.3, 26.7.4 and 26.7.5.
    """
    z = statistics.NormalDist().inv_cdf(p)
    if df > 1000:
        g1 = (z**3 + z) / 4
        g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
        return z + g1 / df + g2 / df**2 + g3 / df**3 + g4 / df**4
    low, high = z, 2 * z
    while t_central(high, df) < 2 * p - 1:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if t_central(middle, df) < 2 * p - 1 else (low, middle)
    return high


def t_central(t: float, df: int) -> float:
    """P(|T| <= t) for Student's t with `df` degrees of freedom: Abramowitz and Stegun 26.7.3 (odd), 26.7.4 (even)."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    if df == 1:
        return 2 * angle / math.pi
    first = (
        1 + df % 2
    )  # the series runs over cos^1, cos^3 … for odd df and over cos^0, cos^2 … for even df
    term = total = cosine if first == 2 else 1.0
    for k in range(first, df - 2, 2):
        term *= k / (k + 1) * cosine * cosine
        total += term
    return sine * total if first == 1 else 2 / math.pi * (angle + sine * total)


def score_all(feature: Feature, measurements: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every prediction of a feature, scored against its measurements."""
    scored = []
    for item in feature.predictions:
        claim = Claim(
            item.id, item.claim, item.measurement, item.comparator, item.value, item.margin
        )
        result = score(claim, measurements)
        scored.append(
            {"id": item.id, "claim": item.claim, "outcome": result.outcome, "reason": result.reason}
        )
    return scored
