"""The stopwatch: intervals that follow each other, also where a stage interrupts another."""

import itertools
import time

import pytest

from lab.instruments.stopwatch import Stopwatch, seconds


def test_a_stage_inside_another_interrupts_it():
    clock = Stopwatch()
    began = time.perf_counter()
    with clock("outer"):
        time.sleep(0.01)
        with clock("inner"):
            time.sleep(0.02)
        time.sleep(0.01)
    with clock("outer"):
        pass
    spent = time.perf_counter() - began
    assert [interval.stage for interval in clock.intervals] == ["outer", "inner", "outer", "outer"]
    assert all(a.end <= b.begin for a, b in itertools.pairwise(clock.intervals))
    total = seconds(clock.intervals)
    assert total["outer"] >= 0.02 and total["inner"] >= 0.02
    assert sum(total.values()) <= spent


def test_a_stage_that_fails_is_timed_too():
    clock = Stopwatch()
    with pytest.raises(KeyError), clock("outer"), clock("inner"):
        raise KeyError
    assert [interval.stage for interval in clock.intervals] == ["outer", "inner", "outer"]
