"""SIGKILL at every place of the runner's path, also during recovery: the next run comes to the undisturbed end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from invariants import exit_violations, leftovers, progress, shape, untouched, user_violations, violations
from quick import Quick
from terminal_user import as_asked, at_terminal

from phases.fault import PLACES

ONLY_APPROVE = {"decided"}


def fault(place: str, how: str = "kill", count: int = 1) -> dict[str, str]:
    return {"PHASES_FAULT": f"{place}:{how}:{count}"}


def converges(quick: Quick, end: dict[str, Any], before: bytes = b"") -> None:
    """The next run ends as an undisturbed one, and every invariant holds."""
    mine = untouched(quick.root)
    assert violations(quick.root, before) == []
    done = quick.run("run", "--next", code=None)
    assert done.returncode in (0, 4), done.stderr
    assert exit_violations(done) == []
    assert violations(quick.root, before) == []
    assert leftovers(quick.root, quick.temporary) == []
    assert user_violations(quick.root, mine) == []
    assert shape(quick.root) == end
    quick.run("audit")


@pytest.mark.parametrize("place", [place for place in PLACES if place not in ONLY_APPROVE])
def test_killed_at_any_place_the_next_run_converges(
    place: str, pristine: Quick, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    quick = pristine.copy(tmp_path / "quick")
    quick.run("run", "--next", code=-9, env=fault(place))
    converges(quick, undisturbed, progress(quick.root))
