"""Law 3: only a human opens the next phase, at the controlling terminal, about exactly what was reviewed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy, toy_plan


def test_a_person_approves_and_nothing_starts(halted: Toy) -> None:
    head = halted.git("rev-parse", "HEAD")
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    for shown in ("TOY-001", "coverage: 2 recomputed + 0 bounded of 2", "prediction HELD: the total is 14",
                  "prediction MISSED: the mean is below 0", "mutants 4/4 killed", head[:12]):  # fmt: skip
        assert shown in screen
    status = halted.status()
    assert status["phases"][0]["state"] == "approved"
    assert status["next"]["action"] == "done"
    assert halted.progress.count("### ") == 8  # one entry: approving starts nothing
    assert set(halted.git("show", "--name-only", "--format=", "HEAD").split()) == {
        "prd/approvals/phase-1.1.json", "progress.txt"}  # fmt: skip
    record = json.loads((halted.root / "prd/approvals/phase-1.1.json").read_text())
    assert record["subject"][0]["digest"]["gitCommit"] == head
    assert record["predicate"]["assurance"] == "presence"
    assert "not who the person was" in record["predicate"]["notProved"]
    assert record["predicate"]["by"]["tty"].startswith("/dev/pts/")
    halted.run("audit")


@pytest.mark.parametrize(
    "answer",
    [lambda _: "yes", lambda _: "", lambda _: None, lambda phrase: phrase.lower(), lambda phrase: phrase[:-1],
     lambda phrase: phrase.rsplit(" ", 1)[0], lambda _: "Counting 1 AAAA"],
    ids=["yes", "empty", "end of input", "lower case", "cut", "no code", "another code"],
)  # fmt: skip
def test_any_other_answer_changes_nothing(halted: Toy, answer: Callable[[str], str | None]) -> None:
    before = halted.snapshot()
    code, screen = at_terminal(halted.root, "approve", "1", answer=answer)
    assert code == 4, screen
    assert "nothing was recorded" in screen
    assert halted.snapshot() == before
    assert not (halted.root / "prd/approvals").exists()


def test_what_was_typed_ahead_is_thrown_away(halted: Toy) -> None:
    before = halted.snapshot()
    code, _ = at_terminal(
        halted.root, "approve", "1", early="Counting 1 AAAA\nyes\n" * 20, answer=lambda _: ""
    )
    assert code == 4
    assert halted.snapshot() == before


def test_the_code_is_drawn_anew_each_time(halted: Toy) -> None:
    asked: list[str] = []
    for _ in range(3):
        at_terminal(halted.root, "approve", "1", answer=lambda phrase: asked.append(phrase) or "")
    assert len(set(asked)) == 3


def test_variables_can_only_withhold(halted: Toy) -> None:
    before = halted.snapshot()
    code, screen = at_terminal(
        halted.root, "approve", "1", answer=as_asked, env={"PHASES_UNATTENDED": "1"}
    )
    assert code == 4
    assert "PHASES_UNATTENDED" in screen
    assert halted.snapshot() == before


AGENT = {
    "CI": "true", "PHASES_APPROVE": "1", "PHASES_YES": "1", "PHASES_AUTO_APPROVE": "all", "YES": "1", "FORCE": "1",
    "PHASES_FORCE": "1", "DEBIAN_FRONTEND": "noninteractive", "NONINTERACTIVE": "1", "PHASES_ASSURANCE": "signed",
    "PHASES_TTY": "/dev/null", "ASSUME_YES": "1", "AUTO_APPROVE": "true", "CLAUDECODE": "1", "TERM": "dumb",
}  # fmt: skip


def test_fifty_turns_of_an_agent_loop_change_nothing(halted: Toy) -> None:
    """The loop that took "the loop goes on" for the human's approval."""
    before = halted.snapshot()
    for turn in range(50):
        ran = halted.run("run", "--next", code=4, env=AGENT, stdin="yes\n")
        assert "python -m phases approve 1" in ran.stderr
        approved = halted.run("approve", "1", code=4, env=AGENT, stdin="yes\nCounting 1\n" * 100)
        assert "nothing was recorded" in approved.stderr
        if turn % 10 == 0:
            for words in (
                ["run", "--feature", "TOY-001"],
                ["run", "--next", "--keep-going"],
                ["run", "--next", "--json"],
            ):
                halted.run(*words, code=4, env=AGENT, stdin="yes\n")
    assert halted.snapshot() == before
    assert halted.git("status", "--porcelain") == ""
    assert halted.status()["phases"][0]["state"] == "awaiting_approval"


def test_results_changed_after_the_halt_cannot_be_approved(halted: Toy) -> None:
    halted.write("results/TOY-001/note.md", "# Numbers\n\nbetter ones\n")
    for committed in (False, True):
        if committed:
            halted.commit("quietly better")
        code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
        assert code == 3, screen
        assert "results/TOY-001/note.md" in screen


@pytest.mark.parametrize("path", ["gates/test_count.py", "prd/plan.json"])
def test_a_plan_or_gate_changed_after_the_halt_cannot_be_approved(halted: Toy, path: str) -> None:
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


def test_a_record_that_nobody_decided_is_refused(halted: Toy) -> None:
    halted.write("prd/approvals/phase-1.1.json", '{"result": "pass"}')
    for committed in (False, True):
        if committed:
            halted.commit("approved by the loop")
        for words in (["run", "--next"], ["audit"]):
            done = halted.run(*words, code=3)
            assert "phase-1.1.json" in done.stdout + done.stderr
    assert halted.status()["phases"][0]["state"] == "awaiting_approval"


def test_a_forged_entry_is_refused(halted: Toy) -> None:
    """An agent that writes a well-formed APPROVED entry with the right hashes into progress.txt."""
    from phases.base import durable

    record = b'{"result": "pass"}'
    halted.write("prd/approvals/phase-1.1.json", record.decode())
    ledger = parse_ledger(halted.progress.encode())
    line = f"record sha256:{durable.sha256(record)} prd/approvals/phase-1.1.json"
    entry = seal_entry(ledger, "APPROVED", (line,), time=utc_now(), phase=1)
    (halted.root / "progress.txt").write_text(halted.progress + entry.block.decode())
    assert "the runner did not write" in halted.run("run", "--next", code=3).stderr
    halted.run("audit", code=3)
    halted.commit("Phase 1 Counting 1: approved")
    assert halted.run("run", "--next", code=3).stderr
    findings = {
        item["code"]
        for item in json.loads(halted.run("audit", "--json", code=3).stdout)["findings"]
    }
    assert findings & {
        "entry-unknown",
        "commit-untrailed",
        "approval-missing",
        "journal-lacks-commit",
    }


def test_rejecting_sends_the_phase_back(halted: Toy) -> None:
    code, screen = at_terminal(halted.root, "reject", "1", "--reason", "count twice", "--feature", "TOY-002",
                               answer=as_asked)  # fmt: skip
    assert code == 0, screen
    assert halted.states() == {"TOY-001": "verified", "TOY-002": "pending"}
    assert "reason count twice" in halted.progress
    halted.run("run", "--next")
    status = halted.status()
    assert status["phases"][0]["state"] == "awaiting_approval"
    assert halted.progress.count("STARTED") == 3
    assert "a repeated attempt" in halted.progress
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert (halted.root / "prd/approvals/phase-1.2.json").exists()
    halted.run("audit")


def test_the_next_phase_opens_only_by_approval(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(phases=2, features=1))
    toy.run("run", "--feature", "TOY-002", code=2)
    toy.run("run", "--next")
    toy.run("run", "--feature", "TOY-002", code=4)
    toy.run("run", "--next", code=4)
    assert at_terminal(toy.root, "approve", "2", answer=as_asked)[0] == 2
    assert at_terminal(toy.root, "approve", "1", answer=as_asked)[0] == 0
    done = toy.run("run", "--next")
    assert "Phase 2 awaits your approval" in done.stderr
    toy.run("run", "--feature", "TOY-001", "--force", code=2)
    assert at_terminal(toy.root, "approve", "2", answer=as_asked)[0] == 0
    assert json.loads(toy.run("audit", "--json").stdout)["checked"]["approvals"] == 2
    assert toy.status()["next"]["action"] == "done"
    assert toy.run("run", "--next").returncode == 0


def test_where_signatures_are_wanted_presence_is_not_taken(make_toy: Callable[..., Toy]) -> None:
    document: dict[str, Any] = toy_plan(features=1)
    document["approval"] = {"mode": "signed"}
    toy = make_toy(document)
    toy.run("run", "--next")
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert code == 7
    assert "wants signed approvals" in screen


from phases.base.text import utc_now
from phases.record.ledger import parse_ledger, seal_entry
