"""What was predicted and what held: the predictions of a plan, scored on results. Pure.

The rule is that of docs/prd-format.md.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.present.numbers import interval, quantity
from lab.result import ContractError, Measurement
from lab.synthesis.evidence import confidence_interval, is_number

OUTCOMES = ("HELD", "MISSED", "INCONCLUSIVE")
COMPARATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Prediction:
    """A prediction of a feature, as the plan states it."""

    feature: str
    id: str
    claim: str
    measurement: str
    comparator: str
    value: Any
    margin: str | None
    source: str


@dataclass(frozen=True)
class PredictionScore:
    """A prediction, its outcome (one of OUTCOMES), and the number that decided it, in words."""

    prediction: Prediction
    outcome: str
    reason: str


def read_predictions(plan: Mapping[str, Any], features: Iterable[str]) -> tuple[Prediction, ...]:
    """Return the predictions of some features of a plan (parsed JSON), in the plan's order.

    Raises:
        ContractError: a feature is not in the plan.
    """
    planned = {feature["id"]: feature for phase in plan["phases"] for feature in phase["features"]}
    predictions = []
    for name in features:
        if name not in planned:
            msg = (
                f"the plan has no feature {name} (it has {', '.join(planned)}); name the right "
                "plan among the inputs"
            )
            raise ContractError(msg)
        for entry in planned[name].get("predictions", ()):
            prediction = Prediction(
                feature=name,
                id=entry["id"],
                claim=entry["claim"],
                measurement=entry["measurement"],
                comparator=entry["comparator"],
                value=entry["value"],
                margin=entry.get("margin"),
                source=entry.get("source", ""),
            )
            predictions.append(prediction)
    return tuple(predictions)


def score_prediction(
    prediction: Prediction, measurements: Mapping[str, Measurement]
) -> PredictionScore:
    """Compare a prediction with its feature's measurements.

    What cannot be compared is INCONCLUSIVE.
    """
    # 1. A claim about the best of several needs a best that clearly leads.
    margin = prediction.margin
    if margin is not None and not _is_clearly_positive(measurements.get(margin)):
        text = quantity(measurements[margin]) if margin in measurements else "not there"
        reason = f"{margin} is {text}: the best does not clearly lead"
        return PredictionScore(prediction, "INCONCLUSIVE", reason)

    # 2. The measurement itself.
    measurement = measurements.get(prediction.measurement)
    if measurement is None:
        reason = f"there is no measurement {prediction.measurement}"
        return PredictionScore(prediction, "INCONCLUSIVE", reason)
    bounds = confidence_interval(measurement)
    reason = f"{prediction.measurement} is {quantity(measurement)}"
    if measurement.exact:
        verdict = _compare_exact(prediction, measurement.value)
    else:
        verdict = _compare_interval(prediction, bounds)
        if bounds is not None:
            reason += f", 95 % interval {interval(measurement, *bounds)}"

    # 3. True: as claimed; False: the opposite; None: not decided.
    outcome = {True: "HELD", False: "MISSED", None: "INCONCLUSIVE"}[verdict]
    return PredictionScore(prediction, outcome, reason)


def _is_clearly_positive(lead: Measurement | None) -> bool:
    """Return whether a lead's whole interval is above 0; an exact lead has none: False."""
    if lead is None:
        return False
    estimate = Measurement.of_estimate(lead.value, lead.unit, stderr=lead.stderr, n=lead.n)
    bounds = confidence_interval(estimate)
    return bounds is not None and bounds[0] > 0


def _compare_exact(prediction: Prediction, value: Any) -> bool | None:
    """Return whether an exact value is as claimed; None if they cannot be compared."""
    if prediction.comparator in ("==", "!="):
        if value is None:
            return None
        return _is_equal(value, prediction.value) == (prediction.comparator == "==")
    if not is_number(value):
        return None
    return _ci_verdict(prediction, value, value)


def _is_equal(actual: Any, expected: Any) -> bool:
    if not is_number(actual) or not is_number(expected):
        return type(actual) is type(expected) and bool(actual == expected)
    if isinstance(actual, int) and isinstance(expected, int):
        return actual == expected
    return math.isclose(actual, expected, rel_tol=1e-9)


def _compare_interval(prediction: Prediction, bounds: tuple[float, float] | None) -> bool | None:
    """Return whether an estimate is as claimed; no interval decides that it equals a value."""
    if bounds is None or prediction.comparator in ("==", "!="):
        return None
    return _ci_verdict(prediction, *bounds)


def _ci_verdict(prediction: Prediction, low: float, high: float) -> bool | None:
    """Return True: the interval is wholly on the claimed side; False: the other; None: both."""
    if prediction.comparator == "within":
        first, last = prediction.value
        if first <= low and high <= last:
            return True
        if high < first or low > last:
            return False
        return None
    compare = COMPARATORS[prediction.comparator]
    verdict = compare(low, prediction.value)
    if compare(high, prediction.value) != verdict:
        return None
    return verdict
