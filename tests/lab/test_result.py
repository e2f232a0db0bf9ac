"""Measurements, tables and results: what goes into result.json comes out of it.

What JSON cannot say is refused.
"""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import ContractError, Measurement, Result, Table

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), finite, st.text(max_size=20))
measurements = st.one_of(
    st.builds(Measurement.of_exact, scalars, st.text(max_size=8)),
    st.builds(
        Measurement.of_sample,
        st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9),
        st.just("nats"),
    ),
    st.builds(
        Measurement.of_estimate,
        finite,
        st.just("s"),
        stderr=st.none() | finite,
        n=st.none() | st.integers(1),
    ),
)


def result(**changes: object) -> Result:
    whole = {
        "experiment": "lab.x",
        "title": "X",
        "question": "q",
        "hypothesis": "h",
        "method": "m",
        "headline": (),
        "measurements": {},
    } | changes
    return Result(**whole)


@given(st.dictionaries(st.sampled_from(["loss", "eval_loss", "n"]), measurements))
def test_a_result_survives_its_json(named: dict[str, Measurement]) -> None:
    whole = result(
        measurements=named,
        tables=(Table("t", ("a", "b"), (("x", 1), (None, 2.5))),),
        findings=("one", "two"),
        environment={"seed": 0},
        figures=({"name": "f", "title": "t", "caption": "c"},),
        files={"artifacts/a": "00"},
    )
    assert Result.from_json(json.loads(json.dumps(whole.to_json(), allow_nan=False))) == whole


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_a_sample_states_mean_and_standard_error(values: list[float]) -> None:
    found = Measurement.of_sample(values, "nats")
    assert (found.n, found.exact, found.values) == (len(values), False, tuple(values))
    assert math.isclose(found.value, sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(
        found.stderr, np.std(values, ddof=1) / len(values) ** 0.5, rel_tol=1e-6, abs_tol=1e-9
    )


def test_one_value_has_no_standard_error_and_none_has_no_mean() -> None:
    assert Measurement.of_sample([2.0], "s").stderr is None
    with pytest.raises(ContractError, match="0 values"):
        Measurement.of_sample([], "s")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_json_cannot_say_is_refused(bad: float) -> None:
    for make in (
        lambda: Measurement.of_exact(bad),
        lambda: Measurement.of_sample([1.0, bad], "s"),
        lambda: Measurement.of_estimate(1.0, "s", stderr=bad),
    ):
        with pytest.raises(ContractError, match="finite"):
            make()


def test_numpy_scalars_become_plain_numbers() -> None:
    found = Measurement.of_sample(np.array([1.0, 3.0], dtype=np.float32), "s")
    assert (
        json.dumps(found.to_json())
        and type(found.value) is float
        and found.value == statistics.fmean([1, 3])
    )
    assert type(Measurement.of_exact(np.int64(3)).value) is int
    assert type(Measurement.of_exact(np.bool_(1)).value) is bool
    assert type(Table("t", ("a",), ((np.float64(2),),)).rows[0][0]) is float


@pytest.mark.parametrize("name", ["Loss", "eval loss", "2nd", "eval-loss", ""])
def test_names_that_a_placeholder_could_not_carry_are_refused(name: str) -> None:
    with pytest.raises(ContractError, match="snake_case"):
        result(measurements={name: Measurement.of_exact(1)})


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ContractError, match="has 1 cells; expected 2"):
        Table("t", ("a", "b"), ((1,),))
