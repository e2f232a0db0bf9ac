"""What holds for all tests: one thread for torch, and coverage where it counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

# One thread: models this small gain nothing from two, and two that wait for each other beside other
# work lose a lot.
os.environ["OMP_NUM_THREADS"] = "1"

# Its failed assertions show the difference, as those of a test do.
pytest.register_assert_rewrite("reviewed_findings")

RUNNER_TESTS = Path(__file__).with_name("phases")


@pytest.fixture(scope="module", autouse=True)
def _trace_tests_of_the_runner_only(request: pytest.FixtureRequest) -> Iterator[None]:
    """Coverage is that of `phases` by its own tests; tracing would slow the others by a third."""
    trace = coverage.Coverage.current()
    if trace is None or request.path.is_relative_to(RUNNER_TESTS):
        yield
    else:
        trace.stop()
        yield
        trace.start()
