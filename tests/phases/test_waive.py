"""approve --waive: a phase goes on without a feature that honestly fails; every view shows it first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy, toy_plan

from phases.record.ledger import parse_ledger

WAIVE = ("approve", "1", "--waive", "TOY-001", "--reason", "no such data here")


EXIT = (
    '{ test "$PHASES_WAIVED" = "TOY-001 TOY-002" || test -e TOY-001/result.json; } || exit 1; '
    'for file in */result.json; do grep -q \'"value": 14,\' "$file" || exit 1; done'
)
"""An exit gate that knows which features were waived."""


def failing(**changes: Any) -> dict[str, Any]:
    """A plan whose first feature crashes."""
    plan = toy_plan(features=3, attempts=1)
    plan["phases"][0]["features"][0]["command"] = "echo no luck; exit 3"
    plan["phases"][0]["features"][1]["needs"] = ["TOY-001"]
    plan["phases"][0]["exit"].append({"shell": EXIT})
    plan["phases"][0].pop("entry")
    return plan | changes


@pytest.fixture(scope="session")
def _failed(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("failed") / "toy", failing())
    toy.run("run", "--next", code=1)
    return toy


@pytest.fixture
def failed(_failed: Any, tmp_path: Path) -> Toy:
    """Attempts spent on the first of three features; the second needs it."""
    return _failed.copy(tmp_path / "toy")


def test_spent_attempts_say_what_a_person_can_do(failed: Toy) -> None:
    before = failed.snapshot()
    spent = failed.run("run", "--next", code=5)
    assert "TOY-001 of phase 1 failed 1 times under this plan lock" in spent.stderr
    for way in ("relock 1 --reason", "approve 1 --waive TOY-001 --reason"):
        assert f"python -m phases {way}" in spent.stderr
        assert way in failed.run("status").stdout
    assert failed.snapshot() == before


def test_a_waived_feature_lets_the_phase_go_on_and_is_said_first(failed: Toy) -> None:
    head = failed.git("rev-parse", "HEAD")
    code, screen = at_terminal(failed.root, *WAIVE, answer=as_asked)
    assert code == 0, screen
    for shown in ("TOY-001: errored, 1 attempt under this lock", "the experiment ended with exit 3",
                  "TOY-002: pending, no attempt under this lock; it needs TOY-001 and is waived with it",
                  "It does not approve the phase"):  # fmt: skip
        assert shown in screen
    assert failed.git("rev-parse", "HEAD~1") == head
    assert failed.states() == {"TOY-001": "waived", "TOY-002": "waived", "TOY-003": "pending"}
    record = json.loads((failed.root / "prd/approvals/phase-1.1.json").read_text())["predicate"]
    assert (record["result"], record["waived"], record["reason"]) == (
        "waive", ["TOY-001", "TOY-002"], "no such data here")  # fmt: skip
    failed.run("run", "--next")
    first = failed.run("status").stdout.splitlines()[:6]
    assert first[2] == "overrides:"
    assert (
        "TOY-001 waived (errored, 1 attempt under this lock): no such data here (entry 0005)"
        in first[3]
    )
    assert "features: 1 verified, 2 waived" in failed.progress
    code, screen = at_terminal(failed.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert screen.index("overrides:") < screen.index("TOY-003 Count number 3: verified")
    report = json.loads(failed.run("audit", "--json").stdout)
    assert report["findings"] == []
    assert failed.status()["next"]["action"] == "done"


def test_only_a_person_waives(failed: Toy) -> None:
    before = failed.snapshot()
    assert "no controlling terminal" in failed.run(*WAIVE, code=4, stdin="Counting 1\n").stderr
    code, screen = at_terminal(failed.root, *WAIVE, answer=lambda phrase: phrase.lower())
    assert code == 4, screen
    assert at_terminal(failed.root, *WAIVE, answer=as_asked, env={"PHASES_UNATTENDED": "1"})[0] == 4
    assert failed.snapshot() == before


REFUSED = {
    "not failed": (("approve", "1", "--waive", "TOY-003", "--reason", "x"), 2,
                   "TOY-003 is pending; only a feature that failed or errored can be waived"),
    "unknown": (("approve", "1", "--waive", "NOPE", "--reason", "x"), 2, "it has TOY-001, TOY-002, TOY-003"),
    "no reason": (("approve", "1", "--waive", "TOY-001"), 2, "--waive ID and --reason TEXT go together"),
    "a reason alone": (("approve", "1", "--reason", "x"), 2, "--waive ID and --reason TEXT go together"),
    "two lines": (("approve", "1", "--waive", "TOY-001", "--reason", "a\nb"), 2, "one printable line"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_waived_is_refused(failed: Toy, name: str) -> None:
    words, code, said = REFUSED[name]
    before = failed.snapshot()
    done = failed.run(*words, code=code)
    assert said in done.stderr
    assert "\nnext: " in done.stderr
    assert failed.snapshot() == before


def test_under_a_changed_plan_nothing_is_waived(failed: Toy) -> None:
    failed.write("gates/test_exit.py", "def test_always():\n    assert True\n")
    failed.commit("an easier exit")
    assert "gates/test_exit.py" in failed.run(*WAIVE, code=3).stderr


def test_a_waived_feature_that_verifies_later_is_verified(failed: Toy) -> None:
    assert at_terminal(failed.root, *WAIVE, answer=as_asked)[0] == 0
    document = json.loads((failed.root / "prd/plan.json").read_text())
    document["phases"][0]["features"][0] = {**toy_plan()["phases"][0]["features"][0]}
    failed.write("prd/plan.json", json.dumps(document))
    failed.commit("a command that works")
    code, screen = at_terminal(
        failed.root, "relock", "1", "--reason", "it was the command", answer=as_asked
    )
    assert code == 0, screen
    assert "runs again: TOY-001, TOY-002" in screen
    failed.run("run", "--next")
    assert set(failed.states().values()) == {"verified"}
    shown = failed.run("status").stdout
    assert "phase 1 relocked: it was the command" in shown
    failed.run("audit")


def test_what_needs_a_waived_feature_of_an_earlier_phase_waits_for_a_person(
    make_toy: Callable[..., Toy],
) -> None:
    plan = toy_plan(phases=2, features=2, attempts=1)
    plan["phases"][0]["features"][0]["command"] = "exit 3"
    plan["phases"][1]["features"] = [plan["phases"][1]["features"][0] | {"needs": ["TOY-001"]}]
    plan["phases"][1].pop("exit")
    toy = make_toy(plan)
    toy.run("run", "--next", code=1)
    assert at_terminal(toy.root, *WAIVE, answer=as_asked)[0] == 0
    toy.run("run", "--next")
    assert at_terminal(toy.root, "approve", "1", answer=as_asked)[0] == 0
    blocked = toy.run("run", "--next", code=4)
    assert "TOY-003 of phase 2 needs TOY-001, which was waived and gives nothing" in blocked.stderr
    assert "python -m phases approve 2 --waive TOY-003" in blocked.stderr
    assert toy.status()["next"]["action"] == "approve"
    assert "it needs TOY-001, which is waived" in toy.run("why", "TOY-003").stdout
    code, screen = at_terminal(
        toy.root, "approve", "2", "--waive", "TOY-003", "--reason", "nor this", answer=as_asked
    )
    assert code == 0, screen
    toy.run("run", "--next")
    assert [entry.kind for entry in parse_ledger(toy.progress.encode()).entries][-3:] == [
        "LOCKED",
        "WAIVED",
        "HALTED",
    ]
    toy.run("audit")


def test_a_rejection_opens_attempts_anew(make_toy: Callable[..., Toy]) -> None:
    """Attempts count under a lock; a rejection releases it, so a feature at its last attempt can run again."""
    toy = make_toy(toy_plan(features=1, attempts=1))
    toy.run("run", "--next")
    assert at_terminal(toy.root, "reject", "1", "--reason", "again", answer=as_asked)[0] == 0
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified"}
    assert "tried more than once:" in at_terminal(toy.root, "approve", "1", answer=lambda _: "")[1]
    toy.run("audit")
