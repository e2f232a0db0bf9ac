"""What pytest does otherwise for mutants: it records each test, or runs chosen ones in an order.

Hypothesis draws the same examples for every mutant, and does not look for small ones.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

OPTIONS = ("-q", "-s", "-m", "not soak", "-p", "no:cacheprovider", "--tb=line")
TIMES = "mutation_times.txt"
CHOSEN = "mutation_chosen.json"
FAILED = "mutation_failed.txt"
HITS = "mutation_hits.txt"
HITS_MODULE = "phases/mutation_hits.py"
HITS_CODE = """
import os
seen = set()
def hit(function, block):
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    if (test, function, block) not in seen:
        seen.add((test, function, block))
        with open({path!r}, "a") as file:
            file.write(f"{{test.rpartition(' (')[0]}}\\t{{function}}\\t{{block}}\\n")
"""
"""Notes which test runs which block of which function, also in processes that a test starts."""
HIT = '__import__("phases.mutation_hits", fromlist=["hit"]).hit({function!r}, {block})'
"""Calls it, from the first line of a block."""
ROOT = Path.cwd()


def pytest_collectstart() -> None:
    """Set up hypothesis: behind each conftest.py, which loads a profile of its own."""
    from hypothesis import Phase, settings  # pytest loads its plugin first

    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutants", settings.default, phases=phases, derandomize=True, deadline=None
    )
    settings.load_profile("mutants")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the chosen tests, in their order, where some are chosen."""
    if (ROOT / CHOSEN).exists():
        choose(items, json.loads((ROOT / CHOSEN).read_text()))


def choose(items: list[pytest.Item], tests: list[str]) -> None:
    """Leave these tests, in this order."""
    order = {test: number for number, test in enumerate(tests)}
    items[:] = [item for item in items if item.nodeid in order]
    items.sort(key=lambda item: order[item.nodeid])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long a part of a test took, or that it failed."""
    if report.failed:
        (ROOT / FAILED).write_text(report.nodeid)
    elif "MUTATION_TIMES" in os.environ:
        with (ROOT / TIMES).open("a") as file:
            file.write(f"{report.nodeid}\t{report.duration}\n")
