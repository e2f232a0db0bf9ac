"""Measurements of a result.json, altered on purpose: what a gate has to notice.

The alteration is a consistent lie: value, repeated values and standard error move together, so a gate that only
compares one number of the file with another number of the same file does not see it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from phases.base import strict_json

Change = Literal["small", "large", "negative"]
"""small: x 1.05. large: x 10 + 1. negative: -(x 10 + 1)."""

RESULT = "result.json"
MAX_BYTES = 50_000_000


def read(result: bytes) -> dict[str, Any]:
    """The `measurements` of a result.json by name, in the file's order; {} if it has none.

    Raises:
        strict_json.StrictJsonError: not strict JSON, or `measurements` is not an object.
    """
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    measurements = document.get("measurements", {}) if isinstance(document, dict) else {}
    if not isinstance(measurements, dict):
        raise strict_json.StrictJsonError(
            [f"measurements: met a {type(measurements).__name__}; wanted an object"]
        )
    return measurements


def altered(result: bytes, change: Change, only: str | None = None) -> bytes:
    """The same result.json with the measurement `only` changed, or with all of them; the rest stays as it is."""
    document = strict_json.loads(result, max_bytes=MAX_BYTES)
    measurements = document["measurements"]
    for name in measurements if only is None else [only]:
        measurements[name] = alter_measurement(measurements[name], change)
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def alter_measurement(measurement: Any, change: Change) -> Any:
    """One measurement, changed; `unit`, `exact` and `n` stay. What is no object of that shape is changed as a value."""
    if not isinstance(measurement, Mapping) or "value" not in measurement:
        return alter(measurement, change)
    new = {**measurement, "value": alter(measurement["value"], change)}
    if new.get("values") is not None:
        new["values"] = alter(new["values"], change)
    stderr = new.get("stderr")
    if isinstance(stderr, int | float) and not isinstance(stderr, bool):
        # The spread of 10x + 1 and of its negative is ten times the spread of x.
        new["stderr"] = alter(stderr, change) if change == "small" else stderr * 10
    return new


def alter(value: Any, change: Change) -> Any:
    """A JSON value with every leaf changed; never equal to what it was.

    Numbers by `change`, integers by at least 1 and 0 to 0.05 under `small`; booleans flipped, strings lengthened,
    null becomes 1; an empty list or object gets a member.
    """
    if isinstance(value, Mapping):
        return {key: alter(item, change) for key, item in value.items()} or {"altered": 1}
    if isinstance(value, list):
        return [alter(item, change) for item in value] or [1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return _alter_integer(value, change)
    if isinstance(value, float):
        return _alter_float(value, change)
    return 1 if value is None else f"{value}?"


def _alter_integer(value: int, change: Change) -> int:
    if change == "small":
        step = max(1, abs(value) // 20)
        return value + step if value >= 0 else value - step
    return value * 10 + 1 if change == "large" else -(value * 10 + 1)


def _alter_float(value: float, change: Change) -> float:
    if change == "small":
        new = value * 1.05
        if not math.isfinite(new):
            return value * 0.95
        return new if new != value else value + 0.05  # zero and the smallest subnormal numbers
    new = value * 10 + 1 if change == "large" else -(value * 10 + 1)
    if not math.isfinite(new):
        return value / 10 if change == "large" else -value
    # 10x + 1 = x at x = -1/9, and its negative at -1/11: close to there it would be no large change.
    return new if abs(new - value) >= 0.5 else new + 1
