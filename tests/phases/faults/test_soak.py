"""The soak in small, and the proof that it would see something."""

from __future__ import annotations

import pytest
import soak
from invariants import entries
from quick import Quick


def test_a_short_soak_finds_nothing() -> None:
    done = soak.main(runs=12, seed=20261123)
    assert done.runs == 12
    assert done.kills > 0
    assert done.found == []


def test_the_soak_sees_a_record_that_shrinks(
    waiting: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = soak.Soak(soak.random.Random(1), {}, 600.0, say=lambda _text: None)
    real = watched.run

    def run(quick: Quick) -> int | None:
        code = real(quick)
        path = quick.root / "progress.txt"
        path.write_bytes(path.read_bytes()[:-300])
        return code

    monkeypatch.setattr(watched, "run", run)
    assert entries(waiting.root)
    watched.world(waiting, 1)
    assert any(" I1 " in line for line in watched.found)
    assert any(" I3 " in line for line in watched.found)
    assert watched.kills == 0  # the run had its time, so that the cut itself is what was seen
