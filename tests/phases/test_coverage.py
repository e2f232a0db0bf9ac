"""Classification of measurements, as a pure function; with real gates it is tested in test_gate.py."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.judge.coverage import MeasurementCoverage, classify, collect

CHANGES = ("small", "large", "negative")


@pytest.mark.parametrize(
    "caught", [set(c) for n in range(4) for c in itertools.combinations(CHANGES, n)]
)
def test_classify(caught):
    asked = []

    def gate(change):
        asked.append(change)
        return change in caught

    wanted = (
        "recomputed"
        if "small" in caught
        else "bounded"
        if {"large", "negative"} <= caught
        else "claimed"
    )
    assert classify(gate) == wanted
    assert asked == (
        ["small"]
        if "small" in caught
        else ["small", "large", "negative"][: 3 if "large" in caught else 2]
    )


def test_fraction_is_none_without_measurements():
    assert collect([]) == MeasurementCoverage()
    assert MeasurementCoverage().fraction is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.sampled_from(["recomputed", "bounded", "claimed"])),
        min_size=1,
    )
)
def test_every_measurement_is_counted_once(levels):
    met = collect(levels)
    assert sorted(met.recomputed + met.bounded + met.claimed) == sorted(name for name, _ in levels)
    claimed = sum(level == "claimed" for _, level in levels)
    assert met.fraction == pytest.approx(1 - claimed / len(levels))
    assert 0 <= met.fraction <= 1
    assert met.recomputed == tuple(name for name, level in levels if level == "recomputed")
