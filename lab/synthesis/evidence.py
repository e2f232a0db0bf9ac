"""Measurements of several features, and the arithmetic on them that decides questions. Pure."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import TypeGuard

from lab.result import ContractError, Measurement

# feature -> name of the measurement -> measurement
Evidence = Mapping[str, Mapping[str, Measurement]]

NAME = re.compile(r"[A-Z][A-Za-z0-9-]*-\d+\.[a-z][a-z0-9_]*")
EXPRESSION = re.compile(rf"({NAME.pattern})(?: ([-/]) ({NAME.pattern}))?")


def find_measurement(evidence: Evidence, name: str) -> Measurement:
    """Return the measurement that FEATURE.name means.

    Raises:
        ContractError: the feature has no result, or its result has no such measurement.
    """
    feature, _, key = name.partition(".")
    if feature not in evidence:
        available = ", ".join(sorted(evidence)) or "none"
        msg = f"{name}: no result of {feature} (available: {available})"
        raise ContractError(msg)
    if key not in evidence[feature]:
        available = ", ".join(sorted(evidence[feature]))
        msg = f"{name}: {feature} has no measurement {key!r}; it has {available}"
        raise ContractError(msg)
    return evidence[feature][key]


def measurement_names(text: str) -> tuple[str, ...]:
    """Return every FEATURE.name in a text, each once, in order."""
    return tuple(dict.fromkeys(NAME.findall(text)))


def calculate(evidence: Evidence, expression: str) -> Measurement:
    """Return the value of `A`, `A - B` or `A / B`, where A and B are each a FEATURE.name.

    A difference of two samples with as many values is paired, value by value: all samples of this
    lab are one value per seed, in the order of the seeds. Every other result has no standard error
    rather than a guessed one: two results share seeds and evaluation examples, so the rule for
    independent estimates does not apply.

    Raises:
        ContractError: the expression has another form, or names what was not measured.
    """
    match = EXPRESSION.fullmatch(expression)
    if match is None:
        msg = (
            f"got {expression!r}; expected FEATURE.name, or two of them with ` - ` or ` / ` between"
        )
        raise ContractError(msg)
    first = find_measurement(evidence, match[1])
    operator = match[2]
    if operator is None:
        return first
    second = find_measurement(evidence, match[3])
    a, b = first.value, second.value

    # 1. Without two numbers there is no result; nor is there a quotient by 0.
    if not is_number(a) or not is_number(b):
        return Measurement.of_estimate(None, first.unit)
    if operator == "/":
        if b == 0:
            return Measurement.of_estimate(None, first.unit)
        unit = "times" if first.unit == second.unit else f"{first.unit} per {second.unit}"
        return Measurement.of_estimate(a / b, unit)

    # 2. A difference, paired by seed where both have as many values.
    values, others = first.values or (), second.values or ()
    if len(values) == len(others) > 1:
        pairs = zip(values, others, strict=True)
        return Measurement.of_sample([value - other for value, other in pairs], first.unit)
    return Measurement.of_estimate(a - b, first.unit)


def confidence_interval(measurement: Measurement) -> tuple[float, float] | None:
    """Return the 95 % interval value ± t(0.975, n - 1) · stderr, in the measurement's unit.

    An exact value is both ends of its interval. None if the value is no number, or if it is an
    estimate without a standard error or with n below 2.
    """
    value, stderr, n = measurement.value, measurement.stderr, measurement.n
    if not is_number(value):
        return None
    if measurement.exact:
        return float(value), float(value)
    if not is_number(stderr) or stderr < 0:
        return None
    if not isinstance(n, int) or n < 2:
        return None
    half = t_quantile(n - 1) * stderr
    return value - half, value + half


@functools.cache
def t_quantile(df: int) -> float:
    """Return the 0.975 quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a finite number; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
