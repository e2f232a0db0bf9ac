"""The checks that every gate has.

A gate imports the three test functions, so that pytest collects them as its own; the assertions it
calls with what it recomputed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from gates.shared import outputs
from gates.shared.documents import measured_values, shows, stated_numbers

# nats per token: what float32 in another order, or bfloat16 on a GPU, may change
LOSS_TOLERANCE = 0.01  # in the mean of a loss
TOKEN_TOLERANCE = 0.05  # in the mean size of a single token's change


@pytest.mark.integrity
def test_files_are_those_of_the_result() -> None:
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report_was_made_from_the_result() -> None:
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures_were_drawn_from_their_data() -> None:
    outputs.assert_figures_match()


def assert_feature_is_whole(feature: str, parts: set[str]) -> None:
    """Check that a feature's result has these parts, and that each of its texts says something."""
    result = outputs.result(feature)
    assert set(result) >= parts, f"{feature}: missing {sorted(parts - set(result))}"
    assert result["measurements"] and result["findings"]
    for part in ("question", "hypothesis", "method"):
        assert len(result[part].split()) >= 5, f"{feature}: {part} says too little"


def assert_outputs_are_those_of_the_feature(feature: str) -> None:
    """Check files, report and figures of one feature against the digests that they state."""
    outputs.assert_files_match(feature)
    outputs.assert_report_matches(feature)
    outputs.assert_figures_match(feature)


def assert_measurements_are_consistent(feature: str) -> None:
    """Check that each measurement of a feature has a unit and is the sample of its `values`."""
    for name, measurement in outputs.result(feature)["measurements"].items():
        what = f"{feature} {name}"
        assert isinstance(measurement["unit"], str), f"{what} has no unit"
        if measurement.get("values") is not None:
            assert_sample_agrees(what, measurement)


def assert_sample_agrees(what: str, measurement: Mapping[str, Any]) -> None:
    """Check that a sample's value, standard error and n are those of its `values`."""
    values = measurement["values"]
    n = measurement["n"]
    assert n == len(values), f"{what} has {len(values)} values and n = {n}"
    expected = outputs.sample(values)
    assert outputs.same(measurement["value"], expected["value"], 1e-6), (
        f"{what} is not the mean of its values"
    )
    assert outputs.same(measurement["stderr"], expected["stderr"], 1e-6), f"{what}: standard error"


def assert_all_judged(judged: Iterable[str]) -> None:
    """Check that the gate judges exactly the measurements of the result."""
    actual = set(outputs.result()["measurements"])
    expected = set(judged)
    assert actual == expected, (
        f"not judged: {sorted(actual - expected)}; missing: {sorted(expected - actual)}"
    )


def assert_report_states(recomputed: Mapping[str, Any]) -> None:
    """Check that the report's table of all measurements shows what the gate computed.

    `recomputed` is name -> value, or what `outputs.assert_agrees` takes.
    """
    report = (outputs.out() / "report.md").read_text("utf-8")
    values = measured_values(report)
    measurements = outputs.result()["measurements"]
    assert set(values) == set(measurements), "the report's table has other measurements"
    for name, expected in recomputed.items():
        value = expected["value"] if isinstance(expected, dict) else expected
        unit = measurements[name].get("unit", "")
        assert shows(values[name], value, unit), (
            f"the report states {name} = {values[name]}, recomputed {value}"
        )


def assert_findings_state(recomputed: Mapping[str, Any]) -> None:
    """Check that the findings state these numbers as the gate computed them, those that are known.

    `recomputed` is as in `assert_report_states`; units are those of result.json.
    """
    stated = stated_numbers(" ".join(outputs.result()["findings"]))
    for name, expected in recomputed.items():
        value = expected["value"] if isinstance(expected, dict) else expected
        is_stated = value is None or any(shows(str(number), value) for number in stated)
        assert is_stated, f"no finding states {name}, recomputed {value}"


def assert_table_agrees(index: int, expected: Sequence[Sequence[Any]], rtol: float = 1e-5) -> None:
    """Check the rows of the result's table `index` (0 is the first) against recomputed ones."""
    rows = outputs.result()["tables"][index]["rows"]
    assert len(rows) == len(expected), f"{len(rows)} rows, recomputed {len(expected)}"
    for row, recomputed in zip(rows, expected, strict=True):
        assert outputs.same(row, recomputed, rtol), f"row {row}, recomputed {recomputed}"


def assert_token_losses_agree(
    stored: Sequence[float], recomputed: Sequence[float], what: str
) -> None:
    """Check token losses (nats) to what another order of float32 or bfloat16 may change."""
    changes = [a - b for a, b in zip(stored, recomputed, strict=True)]
    mean = sum(changes) / len(changes)
    size = sum(map(abs, changes)) / len(changes)
    assert abs(mean) < LOSS_TOLERANCE, f"{what}: stored minus recomputed is {mean} in the mean"
    assert size < TOKEN_TOLERANCE, f"{what}: stored and recomputed differ by {size} per token"
