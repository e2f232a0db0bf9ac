"""approve --waive: a phase goes on without a feature that fails, and every view shows it first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy, toy_plan, with_shell_gates

from phases.record.ledger import parse_ledger

WAIVE = ("approve", "1", "--waive", "TOY-001", "--reason", "no such data here")

EXIT_GATE = (
    '{ test "$PHASES_WAIVED" = "TOY-001 TOY-002" || test -e TOY-001/result.json; } || exit 1; '
    'for file in */result.json; do grep -q \'"value": 14,\' "$file" || exit 1; done'
)
"""An exit gate that requires to know which features were waived."""


def failing_plan() -> dict[str, Any]:
    """Return a plan whose first feature crashes; the second needs it."""
    plan = with_shell_gates(toy_plan(features=3, attempts=1))
    phase = plan["phases"][0]
    phase["features"][0]["command"] = "echo no luck; exit 3"
    phase["features"][1]["needs"] = ["TOY-001"]
    phase["exit"].append({"shell": EXIT_GATE})
    del phase["entry"]
    return plan


@pytest.fixture(scope="session")
def _failed(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("failed") / "toy", failing_plan())
    toy.run("run", "--next", code=1)
    return toy


@pytest.fixture
def failed(_failed: Toy, tmp_path: Path) -> Toy:
    """Return a toy whose first of three features has spent its attempts; the second needs it."""
    return _failed.copy(tmp_path / "toy")


def test_spent_attempts_say_what_the_approver_can_do(failed: Toy) -> None:
    before = failed.record_contents()
    spent = failed.call("run", "--next", code=5)
    assert "TOY-001 of phase 1 failed 1 times under this plan lock" in spent.stderr
    for command in ("relock 1 --reason", "approve 1 --waive TOY-001 --reason"):
        assert f"python -m phases {command}" in spent.stderr
        assert command in failed.call("status").stdout
    assert failed.record_contents() == before


QUESTION = (
    "TOY-001: errored, 1 attempt under this lock",
    "the experiment ended with exit 3",
    "TOY-002: pending, no attempt under this lock; it needs TOY-001 and is waived with it",
    "It does not approve the phase",
)
OVERRIDE = "TOY-001 waived (errored, 1 attempt under this lock): no such data here (entry 0005)"


def test_a_waived_feature_lets_the_phase_go_on_and_is_shown_first(failed: Toy) -> None:
    # 1. The question, and what is recorded.
    head = failed.git("rev-parse", "HEAD")
    code, screen = at_terminal(failed.root, *WAIVE, answer=as_asked)
    assert code == 0, screen
    for text in QUESTION:
        assert text in screen
    assert failed.git("rev-parse", "HEAD~1") == head
    assert failed.states() == {"TOY-001": "waived", "TOY-002": "waived", "TOY-003": "pending"}
    decision = json.loads((failed.root / "prd/approvals/phase-1.1.json").read_text())["predicate"]
    assert decision["result"] == "waive"
    assert decision["waived"] == ["TOY-001", "TOY-002"]
    assert decision["reason"] == "no such data here"

    # 2. The phase goes on, and status shows the waiver first.
    failed.run("run", "--next")
    first = failed.call("status").stdout.splitlines()[:6]
    assert first[2] == "overrides:"
    assert OVERRIDE in first[3]
    assert "features: 1 verified, 2 waived" in failed.progress

    # 3. The approver reads it first.
    code, screen = at_terminal(failed.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert screen.index("overrides:") < screen.index("TOY-003 Count number 3: verified")
    report = json.loads(failed.call("audit", "--json").stdout)
    assert report["findings"] == []
    assert failed.status()["next"]["action"] == "done"


def test_only_the_approver_waives(failed: Toy) -> None:
    before = failed.record_contents()
    assert "no controlling terminal" in failed.run(*WAIVE, code=4, stdin="Counting 1\n").stderr
    code, screen = at_terminal(failed.root, *WAIVE, answer=lambda phrase: phrase.lower())
    assert code == 4, screen
    env = {"PHASES_UNATTENDED": "1"}
    assert at_terminal(failed.root, *WAIVE, answer=as_asked, env=env)[0] == 4
    assert failed.record_contents() == before


TOGETHER = "--waive ID and --reason TEXT go together"
REFUSALS = {
    "not failed": (
        ("approve", "1", "--waive", "TOY-003", "--reason", "x"),
        "TOY-003 is pending; only a feature that failed or errored can be waived",
    ),
    "unknown": (
        ("approve", "1", "--waive", "NOPE", "--reason", "x"),
        "it has TOY-001, TOY-002, TOY-003",
    ),
    "no reason": (("approve", "1", "--waive", "TOY-001"), TOGETHER),
    "two features": (
        ("approve", "1", "--waive", "TOY-001", "--waive", "TOY-002", "--reason", "x"),
        "--waive: got TOY-001, TOY-002; expected one feature for one decision",
    ),
    "a reason alone": (("approve", "1", "--reason", "x"), TOGETHER),
    "two lines": (
        ("approve", "1", "--waive", "TOY-001", "--reason", "a\nb"),
        "expected one printable line",
    ),
}
"""A command, and what its refusal says."""


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_waived_is_refused(failed: Toy, name: str) -> None:
    words, message = REFUSALS[name]
    before = failed.record_contents()
    refused = failed.call(*words, code=2)
    assert message in refused.stderr
    assert "\nnext: " in refused.stderr
    assert failed.record_contents() == before


def test_under_a_changed_plan_nothing_is_waived(failed: Toy) -> None:
    failed.write("gates/test_exit.py", "def test_always():\n    assert True\n")
    failed.commit("an easier exit")
    assert "gates/test_exit.py" in failed.call(*WAIVE, code=3).stderr


def test_a_waived_feature_that_verifies_later_is_verified(failed: Toy) -> None:
    assert at_terminal(failed.root, *WAIVE, answer=as_asked)[0] == 0

    # A command that works is locked.
    document = json.loads((failed.root / "prd/plan.json").read_text())
    working = with_shell_gates(toy_plan())
    document["phases"][0]["features"][0] = working["phases"][0]["features"][0]
    failed.write("prd/plan.json", json.dumps(document))
    failed.commit("a command that works")
    relock = ("relock", "1", "--reason", "it was the command")
    code, screen = at_terminal(failed.root, *relock, answer=as_asked)
    assert code == 0, screen
    assert "reset: TOY-001, TOY-002" in screen

    failed.run("run", "--next")
    assert set(failed.states().values()) == {"verified"}
    assert "phase 1 relocked: it was the command" in failed.call("status").stdout
    failed.assert_audit_is_clean()


def test_what_needs_a_waived_feature_of_an_earlier_phase_waits_for_the_approver(
    make_toy: Callable[..., Toy],
) -> None:
    # 1. TOY-001 is waived; TOY-003 of the next phase needs it.
    plan = with_shell_gates(toy_plan(phases=2, features=2, attempts=1))
    first, second = plan["phases"]
    first["features"][0]["command"] = "exit 3"
    second["features"] = [second["features"][0] | {"needs": ["TOY-001"]}]
    del second["exit"]
    toy = make_toy(plan)
    toy.run("run", "--next", code=1)
    assert at_terminal(toy.root, *WAIVE, answer=as_asked)[0] == 0
    toy.run("run", "--next")
    assert at_terminal(toy.root, "approve", "1", answer=as_asked)[0] == 0

    # 2. The next phase waits, and every command says why.
    blocked = toy.run("run", "--next", code=4)
    message = "TOY-003 of phase 2 needs TOY-001, which was waived and has no results"
    assert message in blocked.stderr
    assert "python -m phases approve 2 --waive TOY-003" in blocked.stderr
    assert toy.status()["next"]["action"] == "approve"
    assert "it needs TOY-001, which is waived" in toy.call("why", "TOY-003").stdout

    # 3. Waiving TOY-003 too opens the way; the waiver locks the phase first.
    waive = ("approve", "2", "--waive", "TOY-003", "--reason", "nor this")
    code, screen = at_terminal(toy.root, *waive, answer=as_asked)
    assert code == 0, screen
    toy.run("run", "--next")
    kinds = [entry.kind for entry in parse_ledger(toy.progress.encode()).entries]
    assert kinds[-3:] == ["LOCKED", "WAIVED", "HALTED"]
    toy.assert_audit_is_clean()


def test_a_waiver_after_a_rejection_locks_the_phase_first(failed: Toy) -> None:
    """The state before it is that before the lock, which counts attempts anew."""
    reject = ("reject", "1", "--feature", "TOY-003", "--reason", "count again")
    assert at_terminal(failed.root, *reject, answer=as_asked)[0] == 0
    code, screen = at_terminal(failed.root, *WAIVE, answer=as_asked)
    assert code == 0, screen
    kinds = [entry.kind for entry in parse_ledger(failed.progress.encode()).entries]
    assert kinds[-4:] == ["REJECTED", "LOCKED", "WAIVED", "WAIVED"]
    failed.assert_audit_is_clean()


def test_a_rejection_opens_attempts_anew(make_toy: Callable[..., Toy]) -> None:
    """Attempts count under a lock; a rejection releases it, so the last attempt can be repeated."""
    toy = make_toy(with_shell_gates(toy_plan(features=1, attempts=1)))
    toy.run("run", "--next")
    assert at_terminal(toy.root, "reject", "1", "--reason", "again", answer=as_asked)[0] == 0
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified"}
    _, screen = at_terminal(toy.root, "approve", "1", answer=lambda _: "")
    assert "tried more than once:" in screen
    toy.assert_audit_is_clean()
