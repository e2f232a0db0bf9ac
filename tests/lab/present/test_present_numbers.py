"""How numbers are written: near enough to the number, and never another one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import Measurement
from lab.present import count, interval, number, quantity


@given(st.floats(-1e300, 1e300).filter(lambda x: x == 0 or abs(x) > 1e-300), st.integers(2, 6))
def test_a_float_is_shown_to_as_many_digits_as_asked(value: float, digits: int) -> None:
    text = number(value, digits).replace(",", "")
    assert math.isclose(float(text), value, rel_tol=0.501 * 10 ** (1 - digits))


@given(st.integers())
def test_an_integer_is_shown_whole(value: int) -> None:
    assert int(number(value).replace(",", "")) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (134515008, "134,515,008"),
        (2.6071, "2.607"),
        (0.092, "0.09200"),
        (1e-5, "1.000e-05"),
        (12345.678, "12,346"),
        (0.0, "0"),
        (True, "yes"),
        (False, "no"),
        (None, "not measured"),
        ("nf4", "nf4"),
    ],
)
def test_examples(value: object, text: str) -> None:
    assert number(value) == text


def test_a_quantity_has_error_unit_and_repetitions() -> None:
    assert quantity(Measurement.of_sample([2.0, 4.0], "nats")) == "3.000 ± 1.0 nats (n = 2)"
    assert quantity(Measurement.of_exact(3, "tokens")) == "3 tokens"
    assert quantity(Measurement.of_estimate(None, "s")) == "not measured s"
    assert (count(1, "word"), count(0, "word"), count(2, "word")) == (
        "1 word",
        "0 words",
        "2 words",
    )


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (134_515_008, "bytes", "128.3 MiB"),
        (3 * 1024**3, "bytes", "3.000 GiB"),
        (1024**2 - 1, "bytes", "1,024 KiB"),
        (1000, "bytes", "1,000 bytes"),
        (7384.2, "s", "123.1 min"),
        (119.5, "s", "119.5 s"),
        (-240, "s", "-4.000 min"),
        (0.25, "", "0.2500"),
        (0.25, "share", "0.2500 share"),
        (2_000_000, "tokens", "2,000,000 tokens"),
        (200, "tokens/s", "200 tokens/s"),
        (None, "bytes", "not measured bytes"),
    ],
)
def test_bytes_and_seconds_are_shown_in_units_that_people_read(
    value: object, unit: str, text: str
) -> None:
    assert quantity(Measurement.of_exact(value, unit)) == text


def test_a_standard_error_is_shown_in_the_unit_of_its_value() -> None:
    estimate = Measurement.of_estimate(1024.0**3, "bytes", stderr=2.0**29, n=2000)
    assert quantity(estimate) == "1.000 ± 0.50 GiB (n = 2,000)"


@pytest.mark.parametrize(
    ("value", "unit", "low", "high", "text"),
    [
        (2.0, "nats", 1.5, 2.5, "1.500 to 2.500 nats"),
        (0.5, "", 0.4, 0.6, "0.4000 to 0.6000"),
        # both ends in the unit of the value, also where their own size would choose another
        (2.0**30, "bytes", 2.0**29, 1.5 * 2**30, "0.5000 to 1.500 GiB"),
        (1000.0, "bytes", 900.0, 1100.0, "900.0 to 1,100 bytes"),
        (240.0, "s", 90.0, 390.0, "1.500 to 6.500 min"),
        (90.0, "s", 50.0, 130.0, "50.00 to 130.0 s"),
    ],
)
def test_an_interval_is_shown_in_the_unit_of_its_value(
    value: float, unit: str, low: float, high: float, text: str
) -> None:
    estimate = Measurement.of_estimate(value, unit, stderr=value / 10, n=3)
    assert interval(estimate, low, high) == text
