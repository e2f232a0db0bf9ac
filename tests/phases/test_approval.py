"""Law 3: only the approver opens the next phase, at a terminal, on exactly what was reviewed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy, toy_plan, with_shell_gates

from phases.base import durable
from phases.base.text import utc_now
from phases.record.ledger import parse_ledger, seal_entry

SUMMARY = (
    "TOY-001",
    "measurement coverage 2 + 0 of 2",
    "checks: 3 passed; mutants 4/4 killed",
    "prediction HELD: the total is 14",
    "prediction MISSED: the mean is below 0",
)
"""What the approver reads before the question, besides the checkpoint's commit."""


def test_the_approver_approves_and_nothing_starts(halted: Toy) -> None:
    # 1. The summary and the answer.
    head = halted.git("rev-parse", "HEAD")
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    for text in (*SUMMARY, head[:12]):
        assert text in screen

    # 2. One entry, one commit of just the record and progress.txt: approving starts nothing.
    status = halted.status()
    assert status["phases"][0]["state"] == "approved"
    assert status["next"]["action"] == "done"
    assert halted.progress.count("### ") == 8
    files = set(halted.git("show", "--name-only", "--format=", "HEAD").split())
    assert files == {"prd/approvals/phase-1.1.json", "progress.txt"}

    # 3. The record binds the checkpoint, and says what it does not prove.
    record = json.loads((halted.root / "prd/approvals/phase-1.1.json").read_text())
    assert record["subject"][0]["digest"]["gitCommit"] == head
    decision = record["predicate"]
    assert decision["assurance"] == "presence"
    assert "a human was present at the terminal, not who it was" in decision["notProved"]
    assert decision["by"]["tty"].startswith("/dev/pts/")
    halted.assert_audit_is_clean()


def without_code(phrase: str) -> str:
    return phrase.rsplit(" ", 1)[0]


WRONG_ANSWERS: dict[str, Callable[[str], str | None]] = {
    "yes": lambda _: "yes",
    "empty": lambda _: "",
    "end of input": lambda _: None,
    "lower case": lambda phrase: phrase.lower(),
    "cut": lambda phrase: phrase[:-1],
    "no code": without_code,
    "another code": lambda _: "Counting 1 AAAA",
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_any_other_answer_changes_nothing(halted: Toy, name: str) -> None:
    before = halted.record_contents()
    code, screen = at_terminal(halted.root, "approve", "1", answer=WRONG_ANSWERS[name])
    assert code == 4, screen
    assert "nothing was recorded" in screen
    assert halted.record_contents() == before
    assert not (halted.root / "prd/approvals").exists()


def test_what_was_typed_ahead_is_thrown_away(halted: Toy) -> None:
    before = halted.record_contents()
    early = "Counting 1 AAAA\nyes\n" * 20
    code, _ = at_terminal(halted.root, "approve", "1", early=early, answer=lambda _: "")
    assert code == 4
    assert halted.record_contents() == before


def test_the_code_is_drawn_anew_each_time(halted: Toy) -> None:
    phrases: list[str] = []

    def decline(phrase: str) -> str:
        phrases.append(phrase)
        return ""

    for _ in range(3):
        at_terminal(halted.root, "approve", "1", answer=decline)
    assert len(set(phrases)) == 3


def test_variables_can_only_withhold(halted: Toy) -> None:
    before = halted.record_contents()
    env = {"PHASES_UNATTENDED": "1"}
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked, env=env)
    assert code == 4
    assert "PHASES_UNATTENDED" in screen
    assert halted.record_contents() == before


#### an agent's loop

AGENT = {
    "ASSUME_YES": "1",
    "AUTO_APPROVE": "true",
    "CI": "true",
    "CLAUDECODE": "1",
    "DEBIAN_FRONTEND": "noninteractive",
    "FORCE": "1",
    "NONINTERACTIVE": "1",
    "PHASES_APPROVE": "1",
    "PHASES_ASSURANCE": "signed",
    "PHASES_AUTO_APPROVE": "all",
    "PHASES_FORCE": "1",
    "PHASES_TTY": "/dev/null",
    "PHASES_YES": "1",
    "TERM": "dumb",
    "YES": "1",
}
"""Variables that an agent sets, or that could look like consent."""


@pytest.mark.parametrize("turns", [2, pytest.param(50, marks=pytest.mark.soak)])
def test_turns_of_an_agent_loop_change_nothing(halted: Toy, turns: int) -> None:
    """The loop that took "the loop goes on" for the human's approval."""
    before = halted.record_contents()
    other_runs = (
        ["run", "--feature", "TOY-001"],
        ["run", "--next", "--keep-going"],
        ["run", "--next", "--json"],
    )
    answers = "yes\nCounting 1\n" * 100
    for turn in range(turns):
        run = halted.run("run", "--next", code=4, env=AGENT, stdin="yes\n")
        assert "python -m phases approve 1" in run.stderr
        approve = halted.run("approve", "1", code=4, env=AGENT, stdin=answers)
        assert "nothing was recorded" in approve.stderr
        if turn % 5 == 0:
            for words in other_runs:
                halted.run(*words, code=4, env=AGENT, stdin="yes\n")
    assert halted.record_contents() == before
    assert halted.git("status", "--porcelain") == ""
    assert halted.status()["phases"][0]["state"] == "awaiting_approval"


#### what was reviewed is what is approved


def test_results_changed_after_the_halt_cannot_be_approved(halted: Toy) -> None:
    halted.write("results/TOY-001/note.md", "# Numbers\n\nbetter ones\n")
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 3, screen
    assert "results/TOY-001/note.md" in screen
    halted.commit("quietly better")
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 3, screen
    assert "results/TOY-001/note.md" in screen


def test_a_gate_changed_after_the_halt_cannot_be_approved(halted: Toy) -> None:
    path = "gates/test_count.py"
    halted.write(path, (halted.root / path).read_text() + "\n")
    halted.commit("a small change")
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 3
    assert path in screen


def test_commits_of_others_are_allowed_and_listed(halted: Toy) -> None:
    halted.write("README.md", "hello\n")
    halted.commit("a word of welcome")
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 0
    assert "since then:" in screen
    assert "a word of welcome" in screen


#### forged decisions


def test_an_unrecorded_approval_file_is_refused(halted: Toy) -> None:
    halted.write("prd/approvals/phase-1.1.json", '{"result": "pass"}')
    for is_committed in (False, True):
        if is_committed:
            halted.commit("approved by the loop")
        for words in (["run", "--next"], ["audit"]):
            refused = halted.call(*words, code=3)
            assert "unrecorded approval file" in refused.stdout + refused.stderr
            assert "phase-1.1.json" in refused.stdout + refused.stderr
    assert halted.status()["phases"][0]["state"] == "awaiting_approval"


def test_a_forged_entry_is_refused(halted: Toy) -> None:
    """An agent writes a well-formed APPROVED entry with the right hashes into progress.txt."""
    # 1. A record, and the entry that names it.
    record = b'{"result": "pass"}'
    halted.write("prd/approvals/phase-1.1.json", record.decode())
    ledger = parse_ledger(halted.progress.encode())
    line = f"record sha256:{durable.sha256(record)} prd/approvals/phase-1.1.json"
    entry = seal_entry(ledger, "APPROVED", (line,), time=utc_now(), phase=1)
    (halted.root / "progress.txt").write_text(halted.progress + entry.block.decode())

    # 2. Not committed: the journal does not have it.
    assert "the runner did not write" in halted.call("run", "--next", code=3).stderr
    halted.call("audit", code=3)

    # 3. Committed: refused too, and named.
    halted.commit("Phase 1 Counting 1: approved")
    assert halted.call("run", "--next", code=3).stderr
    report = json.loads(halted.call("audit", "--json", code=3).stdout)
    codes = {finding["code"] for finding in report["findings"]}
    expected = {"entry-unknown", "commit-untrailed", "approval-missing", "journal-lacks-commit"}
    assert codes & expected


#### rejections, and the way to the last phase


def test_rejecting_sends_the_phase_back(halted: Toy) -> None:
    reject = ("reject", "1", "--reason", "count twice", "--feature", "TOY-002")
    code, screen = at_terminal(halted.root, *reject, answer=as_asked)
    assert code == 0, screen
    assert halted.states() == {"TOY-001": "verified", "TOY-002": "pending"}
    assert "reason count twice" in halted.progress
    assert "reset: TOY-002" in halted.progress

    # It runs again, and waits for a second decision.
    halted.run("run", "--next")
    status = halted.status()
    assert status["phases"][0]["state"] == "awaiting_approval"
    assert halted.progress.count("STARTED") == 3
    assert "a repeated attempt" in halted.progress
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert (halted.root / "prd/approvals/phase-1.2.json").exists()
    halted.assert_audit_is_clean()


def test_the_next_phase_opens_only_by_approval(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(with_shell_gates(toy_plan(phases=2, features=1)))

    def approve(phase: str) -> int | None:
        code, _ = at_terminal(toy.root, "approve", phase, answer=as_asked)
        return code

    # 1. Before and at the first checkpoint nothing of phase 2 runs.
    toy.call("run", "--feature", "TOY-002", code=2)
    toy.run("run", "--next")
    toy.call("run", "--feature", "TOY-002", code=4)
    toy.call("run", "--next", code=4)
    assert approve("2") == 2

    # 2. After the approval it does, and phase 1 is final.
    assert approve("1") == 0
    assert "Phase 2 awaits your approval" in toy.run("run", "--next").stderr
    toy.call("run", "--feature", "TOY-001", "--force", code=2)

    # 3. After the last approval nothing is left.
    assert approve("2") == 0
    assert json.loads(toy.call("audit", "--json").stdout)["checked"]["approvals"] == 2
    assert toy.status()["next"]["action"] == "done"
    toy.call("run", "--next")


def test_where_the_plan_requires_signatures_presence_is_refused(
    make_toy: Callable[..., Toy],
) -> None:
    document: dict[str, Any] = with_shell_gates(toy_plan(features=1))
    document["approval"] = {"mode": "signed"}
    toy = make_toy(document)
    toy.run("run", "--next")
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert code == 7
    assert "requires signed approvals" in screen
