"""How a number is written in a report, a caption and a finding: one rule for all."""

from __future__ import annotations

from collections.abc import Sequence

from lab.result import Measurement, Scalar

# A measurement in the unit on the left is shown in the first unit on the right (its name, its size,
# the least value shown in it) that fits. IEC 80000-13: 1 MiB = 1024² bytes.
READABLE = {
    "bytes": (("GiB", 1024**3, 1024**3), ("MiB", 1024**2, 1024**2), ("KiB", 1024, 1024)),
    "s": (("min", 60, 120),),  # 90 s are read more easily than 1.5 min
}


def number(value: Scalar, digits: int = 4) -> str:
    """Return a value to `digits` significant digits.

    134,515,008 · 2.607 · 1.000e-05 · yes · not measured.
    """
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    if abs(value) < 1:
        # `#` keeps the zeros at the end: they are digits that were measured
        return f"{value:#.{digits}g}"
    decimals = max(digits - len(str(int(abs(value)))), 0)
    return f"{value:,.{decimals}f}"


def tick(value: float) -> str:
    """Return the label of a tick: `60`, `0.001`, `2,000`, `1e-5`."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.6f}"
        return text.rstrip("0").rstrip(".")
    return _exponent_form(value)


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of the ticks of one axis, all in one form: 1e-5, 1e-3, not 1e-5, 0.001."""
    labels = [tick(value) for value in values]
    if max(values) < 1 and any("e" in label for label in labels):
        return [_exponent_form(value) for value in values]
    return labels


def _exponent_form(value: float) -> str:
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def quantity(measurement: Measurement) -> str:
    """Return value, standard error and unit of a measurement: `2.607 ± 0.081 nats (n = 256)`.

    Bytes are shown as KiB, MiB or GiB, seconds from 120 on as min.
    """
    measurement_unit, size = readable_unit(measurement)
    text = number(_divided(measurement.value, size))
    if measurement.stderr is not None:
        text += f" ± {number(_divided(measurement.stderr, size), 2)}"
    if measurement_unit:
        text += f" {measurement_unit}"
    if measurement.n is not None:
        text += f" (n = {measurement.n:,})"
    return text


def interval(measurement: Measurement, low: float, high: float) -> str:
    """Return an interval of a measurement, in the unit in which `quantity` shows its value.

    `0.4654 to 0.5413 nats`. low and high are in the measurement's own unit.
    """
    measurement_unit, size = readable_unit(measurement)
    text = f"{number(_divided(low, size))} to {number(_divided(high, size))}"
    return f"{text} {measurement_unit}".rstrip()


def count(n: int, noun: str) -> str:
    """Return a count with its noun in the right number: `1 word`, `2 words`."""
    plural = "" if n == 1 else "s"
    return f"{number(n)} {noun}{plural}"


def readable_unit(measurement: Measurement) -> tuple[str, int]:
    """Return the unit to show a measurement in, and how many of its own units that is."""
    value = measurement.value
    if isinstance(value, (int, float)):
        for name, size, smallest in READABLE.get(measurement.unit, ()):
            if abs(value) >= smallest:
                return name, size
    return measurement.unit, 1


def _divided(value: Scalar, size: int) -> Scalar:
    # The division would turn a count into a float, and "3 tokens" into "3.000 tokens".
    if size == 1 or not isinstance(value, (int, float)):
        return value
    return value / size
