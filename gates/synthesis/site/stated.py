"""How numbers are written on the site's pages, in words of its own: values, intervals, outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gates.shared.deciding import confidence_interval, score_prediction
from gates.shared.documents import written

Measurement = Mapping[str, Any]
SIZES = {
    "bytes": (("GiB", 2**30, 2**30), ("MiB", 2**20, 2**20), ("KiB", 2**10, 2**10)),
    "s": (("min", 60, 120),),
}


def number(value: Any, digits: int = 4) -> str:
    """Return a value to `digits` significant digits; a count whole, a text as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return written(value, digits)


def count(n: int, noun: str) -> str:
    """Return a count with its noun: `1 word`, `2 words`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def quantity(measurement: Measurement) -> str:
    """Return value, standard error, unit and n."""
    unit, size = _readable(measurement)
    text = number(_divided(measurement["value"], size))
    stderr = measurement.get("stderr")
    if stderr is not None:
        text += f" ± {number(_divided(stderr, size), 2)}"
    if unit:
        text += f" {unit}"
    if measurement.get("n") is not None:
        text += f" (n = {measurement['n']:,})"
    return text


def interval(measurement: Measurement) -> str:
    """Return the 95 % interval in the unit of the value; empty where there is none."""
    bounds = confidence_interval(measurement)
    if bounds is None:
        return ""
    unit, size = _readable(measurement)
    low, high = (number(_divided(bound, size)) for bound in bounds)
    return f"{low} to {high} {unit}"


def interval_cell(measurement: Measurement) -> str:
    """Return what the column of intervals says."""
    if measurement.get("exact"):
        return "exact"
    return interval(measurement) or "not known"


def outcome_and_reason(
    prediction: Mapping[str, Any], measurements: Mapping[str, Measurement]
) -> tuple[str, str]:
    """Return a prediction's outcome, and the number that decided it, in words."""
    outcome = score_prediction(prediction, measurements)
    margin, name = prediction.get("margin"), prediction["measurement"]
    if margin is not None:
        lead = measurements.get(margin)
        bounds = confidence_interval(lead, as_sample=True)
        if bounds is None or bounds[0] <= 0:
            shown = "not there" if lead is None else quantity(lead)
            return outcome, f"{margin} is {shown}: the best does not clearly lead"
    if name not in measurements:
        return outcome, f"there is no measurement {name}"
    reason = f"{name} is {quantity(measurements[name])}"
    if not measurements[name].get("exact") and interval(measurements[name]):
        reason += f", 95 % interval {interval(measurements[name])}"
    return outcome, reason


def _readable(measurement: Measurement) -> tuple[str, int]:
    value, unit = measurement["value"], measurement.get("unit", "")
    if isinstance(value, int | float):
        for larger, size, least in SIZES.get(unit, ()):
            if abs(value) >= least:
                return larger, size
    return unit, 1


def _divided(value: Any, size: int) -> Any:
    return value if size == 1 else value / size
