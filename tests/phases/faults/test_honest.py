"""Honest repositories made at random never meet a false alarm: 20 here, 200 in make soak."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from honest import HonestRepositoryError, live
from honest_life import FalseAlarmError, Life
from honest_steps import STEPS

from tests.soak import mark_soak

SEEDS = range(1, 201)


@pytest.mark.parametrize("seed", mark_soak(SEEDS, short=range(1, 21)))
def test_no_honest_repository_meets_a_false_alarm(seed: int, tmp_path: Path) -> None:
    live(seed, tmp_path)


#### the checks see what they are there for


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """Return a life in which one run was made."""
    life = Life(tmp_path, random.Random(1))
    life.run("--next", expected={0})
    life.check()
    return life


def test_a_finding_of_audit_is_seen(life: Life) -> None:
    life.quick.write("results/phase-1/lock.json", "{}\n")
    with pytest.raises(FalseAlarmError, match="error lock-changed"):
        life.check()


def test_a_warning_of_audit_that_nobody_caused_is_seen(tmp_path: Path) -> None:
    life = Life(tmp_path, random.Random(1))
    life.run("--next", expected=set(), failpoint="started:kill")
    life.quick.git("add", "progress.txt")
    life.quick.git("commit", "-q", "-m", "with what a killed run had begun")
    with pytest.raises(FalseAlarmError, match="warning commit-untrailed"):
        life.check()
    life.caused.add("commit-untrailed")
    life.check()


def test_a_warning_of_status_is_seen(life: Life) -> None:
    life.quick.git("reset", "-q", "--hard", "HEAD~1")
    with pytest.raises(FalseAlarmError, match="status warns"):
        life.check()


def test_an_exit_that_nothing_explains_is_seen(tmp_path: Path) -> None:
    life = Life(tmp_path, random.Random(1))
    life.quick.git("switch", "-q", "--detach")
    with pytest.raises(FalseAlarmError, match="exit 2; the situation explains"):
        life.run("--next", expected=life.expected_codes())


def test_a_failure_prints_its_seed_and_the_story_and_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(life: Life) -> bool:
        life.tell("nothing")
        raise FalseAlarmError("as ordered")

    stories = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.setitem(STEPS, fail, 10)
        with pytest.raises(HonestRepositoryError, match=r"honest\.py 7:(.|\n)*as ordered") as info:
            live(7, tmp_path / folder)
        stories.append(str(info.value).replace(f"{tmp_path / folder}/", ""))
    assert stories[0] == stories[1]
