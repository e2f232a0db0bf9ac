"""Score predictions: what the plan claimed before the run against what was measured in it.

Exact measurements (counts, identities, choices) are compared directly. Samples are compared by
their 95 % interval, value ± t(0.975, n-1)·stderr: HELD if all of it agrees with the claim, MISSED
if all of it contradicts the claim, else INCONCLUSIVE. A missed prediction is a finding, never a
failure.
"""

from __future__ import annotations

import functools
import math
import operator
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeGuard

from phases.plan.schema import Feature, Prediction
from phases.record.verdict import ScoredPrediction

RTOL = 1e-9  # relative tolerance between exact floats
CONFIDENCE = 0.975  # of one side: a two-sided 95 % interval

_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class PredictionOutcome(StrEnum):
    """How a prediction compares with its measurement."""

    HELD = "HELD"
    MISSED = "MISSED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class PredictionScore:
    """The outcome of one prediction, and the sentence that explains it in numbers."""

    id: str
    outcome: PredictionOutcome
    reason: str


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of a measurement; both ends belong to it."""

    low: float
    high: float
    text: str
    """Name, value and interval, as reasons state them."""


class _UndecidedError(Exception):
    """The prediction is INCONCLUSIVE; the message is the reason."""


def score_all(feature: Feature, measurements: Mapping[str, Any]) -> list[ScoredPrediction]:
    """Score every prediction of a feature; return them as a verdict lists them."""
    scored_predictions = []
    for prediction in feature.predictions:
        result = score(prediction, measurements)
        scored_predictions.append(
            ScoredPrediction(
                id=prediction.id,
                claim=prediction.claim,
                outcome=result.outcome,
                reason=result.reason,
            )
        )
    return scored_predictions


def score(prediction: Prediction, measurements: Mapping[str, Any]) -> PredictionScore:
    """Score one prediction against the measurements of a result.json.

    It never raises: what cannot be compared is INCONCLUSIVE, and the reason says why.
    """
    try:
        _require_clear_margin(prediction, measurements)
        measurement = _get_measurement(measurements, prediction.measurement)
        if measurement.get("exact") is True:
            is_held, reason = _compare_exact(prediction, measurement.get("value"))
        else:
            interval = _make_interval(prediction.measurement, measurement)
            is_held, reason = _compare_interval(prediction, interval)
    except _UndecidedError as error:
        return PredictionScore(prediction.id, PredictionOutcome.INCONCLUSIVE, str(error))
    outcome = PredictionOutcome.HELD if is_held else PredictionOutcome.MISSED
    return PredictionScore(prediction.id, outcome, reason)


def _get_measurement(measurements: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    measurement = measurements.get(name)
    if isinstance(measurement, Mapping):
        return measurement
    raise _UndecidedError(f"no measurement {name}")


def _require_clear_margin(prediction: Prediction, measurements: Mapping[str, Any]) -> None:
    """Require that the margin of the best of several is clearly above 0, if the plan names one."""
    if prediction.margin is None:
        return
    measurement = _get_measurement(measurements, prediction.margin)
    margin = _make_interval(prediction.margin, measurement)
    if margin.low <= 0:
        raise _UndecidedError(
            f"{margin.text} is not clearly above 0, so the best is not clearly the best"
        )


#### exact measurements


def _compare_exact(prediction: Prediction, value: Any) -> tuple[bool, str]:
    """Return whether an exact value agrees with the claim, and the reason."""
    reason = f"{prediction.measurement} is {_format(value)}; claimed {_format_claim(prediction)}"
    if prediction.comparator in ("==", "!="):
        if value is None:
            raise _UndecidedError(f"{prediction.measurement} has no value")
        return is_equal(value, prediction.value) == (prediction.comparator == "=="), reason
    if not is_number(value):
        raise _UndecidedError(f"{reason}, but {_format(value)} is not a number")
    if prediction.comparator == "within":
        low, high = _bounds(prediction)
        return low <= value <= high, reason
    compare = _order(prediction)
    return compare(value, _limit(prediction)), reason


def is_equal(actual: Any, expected: Any) -> bool:
    """Whether two exact JSON values are equal; floats may differ by the relative tolerance RTOL.

    A boolean never equals a number.
    """
    if is_number(actual) and is_number(expected):
        if isinstance(actual, int) and isinstance(expected, int):
            return actual == expected
        return math.isclose(actual, expected, rel_tol=RTOL)
    if isinstance(actual, list | tuple) and isinstance(expected, list | tuple):
        return len(actual) == len(expected) and all(map(is_equal, actual, expected))
    return type(actual) is type(expected) and bool(actual == expected)


#### samples


def _make_interval(name: str, measurement: Mapping[str, Any]) -> Interval:
    """Compute the 95 % interval from value, standard error and number of values."""
    value = measurement.get("value")
    stderr = measurement.get("stderr")
    n = measurement.get("n")
    if not is_number(value):
        raise _UndecidedError(f"{name}: got the value {_format(value)}; expected a number")
    if not (is_number(stderr) and stderr >= 0 and _is_integer(n) and n >= 2):
        raise _UndecidedError(
            f"{name} is {_format(value)} without a standard error of at least two values"
        )
    half = t_quantile(CONFIDENCE, n - 1) * stderr
    low = value - half
    high = value + half
    interval = f"95 % interval {_format(low)} to {_format(high)}, n = {n}"
    return Interval(low, high, f"{name} {_format(value)} ({interval})")


def _compare_interval(prediction: Prediction, interval: Interval) -> tuple[bool, str]:
    """Return whether an interval agrees with the claim or contradicts it, and the reason."""
    reason = f"{interval.text}; claimed {_format_claim(prediction)}"
    if prediction.comparator in ("==", "!="):
        raise _UndecidedError(
            f"{reason}: a measurement with spread is never exactly a number; claim `within`"
        )
    if prediction.comparator == "within":
        low, high = _bounds(prediction)
        agrees = low <= interval.low and interval.high <= high
        contradicts = interval.high < low or interval.low > high
    else:
        compare = _order(prediction)
        limit = _limit(prediction)
        ends = {compare(interval.low, limit), compare(interval.high, limit)}
        agrees = ends == {True}
        contradicts = ends == {False}
    if not agrees and not contradicts:
        raise _UndecidedError(f"{reason}: the interval has values on both sides")
    return agrees, reason


#### the parts of a claim


def _order(prediction: Prediction) -> Callable[[Any, Any], bool]:
    if prediction.comparator not in _ORDERS:
        raise _UndecidedError(
            f"got the comparator {prediction.comparator!r}; expected == != < <= > >= or within"
        )
    return _ORDERS[prediction.comparator]


def _limit(prediction: Prediction) -> int | float:
    """Return the number that the claim compares with."""
    value: Any = prediction.value
    if not is_number(value):
        raise _UndecidedError(
            f"claimed {_format_claim(prediction)}; expected a number after {prediction.comparator}"
        )
    return value


def _bounds(prediction: Prediction) -> tuple[float, float]:
    """Return the ends of the interval that the claim names."""
    match prediction.value:
        case [low, high] if is_number(low) and is_number(high) and low <= high:
            return low, high
    raise _UndecidedError(f"claimed {_format_claim(prediction)}; expected [low, high] after within")


def _format_claim(prediction: Prediction) -> str:
    return f"{prediction.comparator} {_format(prediction.value)}"


def _format(value: Any) -> str:
    """Return a JSON value as a reason states it: floats with six digits."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite int or float; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> TypeGuard[int]:
    """Whether it is an int; booleans are not."""
    return isinstance(value, int) and not isinstance(value, bool)


#### Student's t


@functools.cache
def t_quantile(p: float, df: int) -> float:
    """Return the p-quantile (0.5 < p < 1) of Student's t with `df` >= 1 degrees of freedom.

    Up to 1000 degrees by bisection on the distribution's finite series; above, by its expansion
    around the normal quantile, which is exact to 12 digits there. Source: Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.3, 26.7.4 and 26.7.5.
    """
    z = statistics.NormalDist().inv_cdf(p)
    # 1. Many degrees of freedom: the expansion.
    if df > 1000:
        g1 = (z**3 + z) / 4
        g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
        return z + g1 / df + g2 / df**2 + g3 / df**3 + g4 / df**4
    # 2. Few: double the upper end until it is beyond the quantile, then bisect to the last bit.
    low = z
    high = 2 * z
    while t_central(high, df) < 2 * p - 1:
        low = high
        high = 2 * high
    middle = (low + high) / 2
    while middle not in (low, high):
        if t_central(middle, df) < 2 * p - 1:
            low = middle
        else:
            high = middle
        middle = (low + high) / 2
    return high


def t_central(t: float, df: int) -> float:
    """Return P(|T| <= t) for Student's t with `df` degrees of freedom.

    Source: Abramowitz and Stegun, 26.7.3 (odd `df`) and 26.7.4 (even `df`).
    """
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    if df == 1:
        return 2 * angle / math.pi
    # The series has the terms cos^1, cos^3, … for odd df and cos^0, cos^2, … for even df.
    is_odd = df % 2 == 1
    term = cosine if is_odd else 1.0
    total = term
    for k in range(1 + is_odd, df - 2, 2):
        term *= k / (k + 1) * cosine * cosine
        total += term
    if is_odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
