"""How numbers are written: near enough to the number, and never another one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import Measurement
from lab.present import count, number, quantity


@given(st.floats(-1e300, 1e300).filter(lambda x: x == 0 or abs(x) > 1e-300), st.integers(2, 6))
def test_a_float_is_shown_to_as_many_digits_as_asked(value: float, digits: int) -> None:
    shown = float(number(value, digits).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=0.501 * 10 ** (1 - digits))


@given(st.integers())
def test_an_integer_is_shown_whole(value: int) -> None:
    assert int(number(value).replace(",", "")) == value


@pytest.mark.parametrize(
    ("value", "shown"),
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
def test_examples(value: object, shown: str) -> None:
    assert number(value) == shown


def test_a_quantity_has_error_unit_and_repetitions() -> None:
    assert quantity(Measurement.of_sample([2.0, 4.0], "nats")) == "3.000 ± 1.0 nats (n = 2)"
    assert quantity(Measurement.of_exact(3, "tokens")) == "3 tokens"
    assert quantity(Measurement.of_estimate(None, "s")) == "not measured s"
    assert (count(1, "word"), count(0, "word"), count(2, "word")) == (
        "1 word",
        "0 words",
        "2 words",
    )
