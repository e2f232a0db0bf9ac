"""Measurements of several features; the intervals and small sums that decide questions. Pure."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

from lab.result import ContractError, Measurement

# feature -> name of the measurement -> measurement
Evidence = Mapping[str, Mapping[str, Measurement]]

NAME = re.compile(r"[A-Z][A-Za-z0-9-]*-\d+\.[a-z][a-z0-9_]*")
OPERATION = re.compile(rf"({NAME.pattern})(?: ([-/]) ({NAME.pattern}))?")


def find(evidence: Evidence, place: str) -> Measurement:
    """Give the measurement that FEATURE.name means; ContractError if it was not measured."""
    feature, _, name = place.partition(".")
    if feature not in evidence:
        msg = f"{place}: no result of {feature} (given: {', '.join(sorted(evidence)) or 'none'})"
        raise ContractError(msg)
    if name not in evidence[feature]:
        msg = (
            f"{place}: {feature} has no measurement {name!r}; it has "
            f"{', '.join(sorted(evidence[feature]))}"
        )
        raise ContractError(msg)
    return evidence[feature][name]


def names(text: str) -> tuple[str, ...]:
    """Give every FEATURE.name in a text, each once, in order."""
    return tuple(dict.fromkeys(NAME.findall(text)))


def calculate(evidence: Evidence, operation: str) -> Measurement:
    """Give `A`, or the difference or quotient of two (`A - B`, `A / B`).

    A difference of two samples with as many values is paired, value by value: all samples of this
    lab are one value per seed, in the order of the seeds. Everything else has no standard error
    rather than a guessed one: two results share seeds and evaluation examples, and the rule for
    independent ones does not hold.
    """
    parts = OPERATION.fullmatch(operation)
    if parts is None:
        msg = f"{operation!r}; wanted FEATURE.name, or two of them with ` - ` or ` / ` between"
        raise ContractError(msg)
    first = find(evidence, parts[1])
    if parts[2] is None:
        return first
    second = find(evidence, parts[3])
    a, b = first.value, second.value
    if not is_number(a) or not is_number(b) or (parts[2] == "/" and b == 0):
        return Measurement.of_estimate(None, first.unit)
    if parts[2] == "-":
        if first.values and second.values and len(first.values) == len(second.values) > 1:
            pairs = zip(first.values, second.values, strict=True)
            return Measurement.of_sample([one - other for one, other in pairs], first.unit)
        return Measurement.of_estimate(a - b, first.unit)  # type: ignore[operator]
    unit = "times" if first.unit == second.unit else f"{first.unit} per {second.unit}"
    return Measurement.of_estimate(a / b, unit)  # type: ignore[operator]


def interval(measurement: Measurement) -> tuple[float, float] | None:
    """Give the 95 % interval value ± t(0.975, n - 1) · stderr.

    An exact value is its own; None where there is none.
    """
    value, stderr, n = measurement.value, measurement.stderr, measurement.n
    if not is_number(value):
        return None
    if measurement.exact:
        return float(value), float(value)  # type: ignore[arg-type]
    if not is_number(stderr) or stderr < 0:  # type: ignore[operator]
        return None
    if not isinstance(n, int) or n < 2:
        return None
    half = t_quantile(n - 1) * stderr  # type: ignore[operator]
    return value - half, value + half  # type: ignore[operator,return-value]


@functools.cache
def t_quantile(df: int) -> float:
    """Give the 0.975 quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


def is_number(value: object) -> bool:
    """Say whether a value is a finite number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
