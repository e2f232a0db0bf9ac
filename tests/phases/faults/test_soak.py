"""A short soak finds nothing, and a soak sees a violation."""

from __future__ import annotations

import random

import pytest
from invariants import entries
from quick import Quick
from soak import Soak, run_soak


@pytest.mark.soak
def test_a_short_soak_finds_nothing() -> None:
    soak = run_soak(runs=12, seed=20261123)
    assert soak.runs == 12
    assert soak.kills > 0
    assert soak.problems == []


def test_the_soak_sees_a_record_that_shrinks(
    waiting: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    soak = Soak(random.Random(1), {}, 600.0, report=lambda _text: None)
    run = soak.run

    def run_and_cut(quick: Quick) -> int | None:
        code = run(quick)
        path = quick.root / "progress.txt"
        path.write_bytes(path.read_bytes()[:-300])
        return code

    monkeypatch.setattr(soak, "run", run_and_cut)
    assert entries(waiting.root)
    soak.run_to_end(waiting, 1)
    assert any(" I1 " in problem for problem in soak.problems)
    assert any(" I3 " in problem for problem in soak.problems)
    # The run was not killed: what was seen is the cut itself.
    assert soak.kills == 0
