"""Measurements of a result.json, altered on purpose: a gate has to notice it.

An alteration is consistent: value, repeated values and standard error change together, so a gate
that only compares one number of the file with another number of the same file does not notice it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from phases.base import strict_json
from phases.record.result import MAX_BYTES


class Change(StrEnum):
    """How numbers are altered."""

    SMALL = "small"
    """x 1.05"""
    LARGE = "large"
    """x 10 + 1"""
    NEGATIVE = "negative"
    """-(x 10 + 1)"""


def alter_result(result: bytes, change: Change, only: str | None = None) -> bytes:
    """Return a result.json with the measurement `only` altered, or with all of them."""
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    measurements = document["measurements"]
    names = list(measurements) if only is None else [only]
    for name in names:
        measurements[name] = alter_measurement(measurements[name], change)
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def alter_measurement(measurement: Any, change: Change) -> Any:
    """Return one measurement altered; `unit`, `exact` and `n` stay.

    If it is not an object with a `value`, all of it is altered as a value.
    """
    if not isinstance(measurement, Mapping) or "value" not in measurement:
        return alter_value(measurement, change)
    altered = {**measurement, "value": alter_value(measurement["value"], change)}
    if altered.get("values") is not None:
        altered["values"] = alter_value(altered["values"], change)
    stderr = altered.get("stderr")
    if isinstance(stderr, int | float) and not isinstance(stderr, bool):
        if change == Change.SMALL:
            altered["stderr"] = alter_value(stderr, change)
        else:
            # The spread of 10x + 1, and of its negative, is ten times the spread of x.
            altered["stderr"] = stderr * 10
    return altered


def alter_value(value: Any, change: Change) -> Any:
    """Return a JSON value with every leaf altered; it never equals the original.

    Numbers change by `change`: integers by at least 1, and 0.0 becomes 0.05 if the change is small.
    Booleans are flipped, strings lengthened, null becomes 1; an empty list or object gets a member.
    """
    if isinstance(value, Mapping):
        return {key: alter_value(item, change) for key, item in value.items()} or {"altered": 1}
    if isinstance(value, list):
        return [alter_value(item, change) for item in value] or [1]
    if isinstance(value, bool):  # before int: a boolean is one
        return not value
    if isinstance(value, int):
        return _alter_integer(value, change)
    if isinstance(value, float):
        return _alter_float(value, change)
    if value is None:
        return 1
    return f"{value}?"


def _alter_integer(value: int, change: Change) -> int:
    if change == Change.SMALL:
        step = max(1, abs(value) // 20)
        return value + step if value >= 0 else value - step
    altered = value * 10 + 1
    if change == Change.NEGATIVE:
        altered = -altered
    return altered


def _alter_float(value: float, change: Change) -> float:
    if change == Change.SMALL:
        return _alter_float_slightly(value)
    altered = value * 10 + 1
    if change == Change.NEGATIVE:
        altered = -altered
    if not math.isfinite(altered):  # beyond 1.8e307
        return value / 10 if change == Change.LARGE else -value
    # 10x + 1 = x at x = -1/9, and -(10x + 1) = x at x = -1/11: close to there the change is small.
    if abs(altered - value) < 0.5:
        return altered + 1
    return altered


def _alter_float_slightly(value: float) -> float:
    altered = value * 1.05
    if not math.isfinite(altered):
        return value * 0.95
    if altered == value:  # zero and the smallest subnormal numbers
        return value + 0.05
    return altered
