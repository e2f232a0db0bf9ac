"""Views read a plan that was checked before without pydantic; they show the same, and no unchecked plan passes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from toy import Toy


def shown(toy: Toy) -> tuple[str, str, str]:
    """What the quick views print."""
    return tuple(toy.run(*words).stdout for words in (["status"], ["status", "--json"], ["log"]))  # type: ignore[return-value]


def test_the_quick_view_shows_what_the_full_one_does(halted: Toy) -> None:
    stamp = halted.root / ".git/phases/plan-checked"
    quick = shown(halted)
    assert stamp.exists()
    stamp.unlink()
    assert shown(halted) == quick


def test_a_plan_that_was_not_checked_is_checked_first(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    toy.run("status")
    document = json.loads((toy.root / "prd/plan.json").read_text())
    document["phases"][0]["features"][0]["outputs"] = []
    toy.write("prd/plan.json", json.dumps(document))
    for _ in range(2):
        assert "phases[0].features[0].outputs" in toy.run("status", code=2).stderr


@pytest.mark.parametrize("stamp", ["", "0" * 64, "\x00\xff"])
def test_a_wrong_stamp_counts_for_nothing(make_toy: Callable[..., Toy], stamp: str) -> None:
    toy = make_toy()
    toy.write(".git/phases/plan-checked", stamp)
    toy.write("prd/plan.json", '{"schema": 1}')
    toy.run("status", code=2)
