"""How a number is written in a report, a caption and a learning: one rule for all."""

from __future__ import annotations

from lab.result import Measurement, Scalar


def number(value: Scalar, digits: int = 4) -> str:
    """Give a value to `digits` significant digits.

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
    return f"{value:,.{max(digits - len(str(int(abs(value)))), 0)}f}"


def quantity(measurement: Measurement) -> str:
    """Give value, standard error and unit of a measurement: `2.607 ± 0.081 nats (n = 256)`."""
    text = number(measurement.value)
    if measurement.stderr is not None:
        text += f" ± {number(measurement.stderr, 2)}"
    if measurement.unit:
        text += f" {measurement.unit}"
    return text + (f" (n = {measurement.n})" if measurement.n is not None else "")


def count(n: int, noun: str) -> str:
    """Give a count with its noun in the right number: `1 word`, `2 words`."""
    return f"{number(n)} {noun}{'' if n == 1 else 's'}"
