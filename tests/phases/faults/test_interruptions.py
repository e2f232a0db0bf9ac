"""Interruptions cost no attempt, and every view counts them: nobody draws again unseen."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from converging import failpoint_env
from quick import Quick, plan
from story import Story
from terminal_user import at_terminal
from toy import toy_plan

from phases.plan.load import parse_plan
from phases.record.state import fold_state
from phases.record.states import FeatureState

PLAN = parse_plan(json.dumps(toy_plan(features=1)).encode())


def kill_after_the_gate(quick: Quick) -> None:
    """Kill the runner once the gate has answered, as one does who did not like the answer."""
    quick.run("run", "--next", code=None, env=failpoint_env("judged"))


def interrupt(quick: Quick) -> None:
    """Press Ctrl-C while the experiment works."""
    quick.set_mode("hang")
    child = subprocess.Popen(
        [sys.executable, "-m", "phases", "run", "--next"],
        cwd=quick.root,
        env=quick.environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    quick.wait_for_worker()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    quick.set_mode("good")


INTERRUPTIONS: dict[str, Callable[[Quick], None]] = {
    "killed": kill_after_the_gate,
    "Ctrl-C": interrupt,
}


@pytest.mark.parametrize("way", INTERRUPTIONS)
def test_interruptions_are_counted_and_shown_i_64(tmp_path: Path, way: str) -> None:
    quick = Quick(tmp_path / "quick", plan())
    for _ in range(2):
        INTERRUPTIONS[way](quick)
    quick.run("run", "--next")

    # 1. No attempt was spent, and status says what happened.
    feature = quick.status()["phases"][0]["features"][0]
    assert (feature["state"], feature["attempts"], feature["interruptions"]) == ("verified", 1, 2)
    assert "1 attempt, 2 interruptions)" in quick.call("status").stdout

    # 2. So do the other views, and what the approver reads.
    assert json.loads(quick.call("show", "Q-001", "--json").stdout)["interruptions"] == 2
    sentence = "3 attempts in all, 2 of them interrupted"
    for words in (["show", "Q-001"], ["why", "Q-001"]):
        assert sentence in quick.call(*words).stdout
    _, screen = at_terminal(quick.root, "approve", "1", answer=lambda _: "")
    assert f"tried more than once:\r\n  Q-001: {sentence}" in screen


def test_a_single_interruption_is_shown_before_any_outcome_i_64(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick", plan())
    kill_after_the_gate(quick)
    quick.run("run", "--next", code=None, env=failpoint_env("prepare"))
    assert "pending  (1 interruption)" in quick.call("status").stdout
    assert "1 attempt in all, 1 of them interrupted" in quick.call("why", "Q-001").stdout


def interrupted(story: Story, times: int) -> Story:
    for _ in range(times):
        story.add("STARTED", 1, "TOY-001").add("INTERRUPTED", 1, "TOY-001")
    return story


def test_neither_a_lock_nor_a_rejection_forgets_interruptions_i_64() -> None:
    story = interrupted(Story().lock(), 2)
    story = interrupted(story.lock().attempt("TOY-001", "FAILED"), 1).attempt("TOY-001").halt()
    story.records.add("a" * 64)
    story = interrupted(story.decide("REJECTED", "a" * 64, reset=["TOY-001"]).lock(), 1)
    feature = fold_state(PLAN, story.ledger.entries, story.evidence).phase(1).feature("TOY-001")
    assert feature.state == FeatureState.PENDING
    assert (feature.attempts, feature.started, feature.interruptions) == (0, 6, 4)


def test_control_without_interruptions_nothing_is_said(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick", plan())
    quick.run("run", "--next")
    for words in (["status"], ["show", "Q-001"], ["why", "Q-001"]):
        assert "interrupt" not in quick.call(*words).stdout
