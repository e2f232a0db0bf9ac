"""Levels of measurement coverage as pure functions; test_gate.py tests them with real gates."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.judge.measurement_coverage import (
    CoverageLevel,
    MeasurementCoverage,
    classify,
    group_by_level,
)
from phases.judge.measurements import Change

SUBSETS = [set(c) for size in range(4) for c in itertools.combinations(Change, size)]


@pytest.mark.parametrize("killed", SUBSETS)
def test_classify(killed):
    tried = []

    def is_killed(change):
        tried.append(change)
        return change in killed

    # The level, and the fewest changes by which it can be found out.
    if Change.SMALL in killed:
        expected = CoverageLevel.RECOMPUTED
        needed = [Change.SMALL]
    elif Change.LARGE not in killed:
        expected = CoverageLevel.CLAIMED
        needed = [Change.SMALL, Change.LARGE]
    else:
        expected = CoverageLevel.CLAIMED
        needed = [Change.SMALL, Change.LARGE, Change.NEGATIVE]
        if Change.NEGATIVE in killed:
            expected = CoverageLevel.BOUNDED
    assert classify(is_killed) == expected
    assert tried == needed


def test_fraction_is_none_without_measurements():
    assert group_by_level([]) == MeasurementCoverage()
    assert MeasurementCoverage().fraction is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(CoverageLevel)), min_size=1))
def test_every_measurement_is_counted_once(levels):
    coverage = group_by_level(levels)
    names = sorted(name for name, _ in levels)
    assert sorted(coverage.recomputed + coverage.bounded + coverage.claimed) == names
    claimed = sum(level == CoverageLevel.CLAIMED for _, level in levels)
    assert coverage.fraction == pytest.approx(1 - claimed / len(levels))
    assert 0 <= coverage.fraction <= 1
    recomputed = tuple(name for name, level in levels if level == CoverageLevel.RECOMPUTED)
    assert coverage.recomputed == recomputed
