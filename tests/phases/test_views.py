"""What status shows, for people and for scripts. The JSON is a contract: its keys and words are spelled out here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from story import DIGEST, Story
from toy import Toy, toy_plan

from phases.plan.load import parse_plan
from phases.plan.schema import Plan
from phases.record import entries
from phases.record.ledger import new_header, parse_ledger
from phases.record.project import Snapshot
from phases.record.reconcile import Reconciled
from phases.record.state import fold_state, next_step
from phases.record.steps import Step
from phases.views import sentences
from phases.views import status as views


def plan(**defaults: Any) -> Plan:
    return parse_plan(json.dumps(toy_plan(phases=2, **defaults)).encode())


def told(story: Story, toy: Plan | None = None) -> tuple[Plan, Snapshot, Step]:
    """The state of the toy plan after a story."""
    toy = toy or plan()
    now = fold_state(toy, story.ledger.entries, story.records)
    return toy, Snapshot(Reconciled(story.ledger), now), next_step(toy, now)


def text(story: Story, ascii_only: bool = False) -> list[str]:
    toy, ledger, step = told(story)
    return views.status_text(toy, ledger, step, "results", ascii_only).splitlines()


def verified(story: Story, name: str, phase: int = 1) -> Story:
    lines = (entries.ran("x", 12.2, 1, 0, "cpu", "none"),
             *entries.gate("gates/test_count.py", 3, 0, (1, 1, 4), (4, 4), ()),
             entries.RecordedFile(DIGEST, f"results/{name}/receipt.json").line("receipt"))  # fmt: skip
    return story.add("STARTED", phase, name).add("VERIFIED", phase, name, *lines)


def halted() -> Story:
    return verified(verified(Story().lock(), "TOY-001"), "TOY-002").halt()


def test_status_json_is_the_contract() -> None:
    story = verified(Story().lock(), "TOY-001").attempt("TOY-002", "FAILED")
    toy, ledger, step = told(story)
    assert views.status_json(toy, ledger, step) == {
        "project": "Toy",
        "head": {"entry": 5, "hash": story.ledger.head},
        "phases": [
            {"id": 1, "name": "Counting 1", "state": "failed", "features": [
                {"id": "TOY-001", "title": "Count number 1", "state": "verified", "attempts": 1, "seconds": 12,
                 "receipt": f"sha256:{DIGEST}", "coverage": 0.5},
                {"id": "TOY-002", "title": "Count number 2", "state": "failed", "attempts": 1, "seconds": None,
                 "receipt": None, "coverage": None}]},
            {"id": 2, "name": "Counting 2", "state": "pending", "features": [
                {"id": f"TOY-00{number}", "title": f"Count number {number}", "state": "pending", "attempts": 0,
                 "seconds": None, "receipt": None, "coverage": None} for number in (3, 4)]},
        ],
        "next": {"action": "run", "phase": 1, "feature": "TOY-002", "command": "python -m phases run --next"},
    }  # fmt: skip


def test_an_empty_ledger_has_the_headers_hash() -> None:
    toy, ledger, step = told(Story())
    head = views.status_json(toy, ledger, step)["head"]
    assert head == {"entry": 0, "hash": parse_ledger(new_header("Toy")).head}


def approved(story: Story, phase: int = 1) -> Story:
    record = f"{phase}" * 64
    story.records.add(record)
    return story.decide("APPROVED", record, phase)


NEXT = {
    "begun": (Story, "run", 1, "TOY-001", "python -m phases run --next"),
    "waits": (halted, "approve", 1, None, "python -m phases approve 1"),
    "opened": (lambda: approved(halted()), "run", 2, "TOY-003", "python -m phases run --next"),
    "exit gates": (lambda: verified(verified(Story().lock(), "TOY-001"), "TOY-002"), "run", 1, None,
                   "python -m phases run --next"),
    "spent": (lambda: Story().lock().attempt("TOY-001", "FAILED").attempt("TOY-001", "ERRORED")
              .attempt("TOY-001", "FAILED"), "run", 1, "TOY-001", "python -m phases relock 1 --reason '…'"),
    "done": (lambda: approved(verified(verified(approved(halted()).lock(2), "TOY-003", 2), "TOY-004", 2).halt(2), 2),
             "done", None, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", NEXT)
def test_next_is_the_one_command_to_type(name: str) -> None:
    make, action, phase, feature, command = NEXT[name]
    toy, ledger, step = told(make())
    wanted = {"action": action, "phase": phase, "feature": feature, "command": command}
    assert views.status_json(toy, ledger, step)["next"] == wanted
    last = text(make())[-1]
    assert last == (
        f"next: {command}" if command else "Every phase is approved; nothing is left to do."
    )


STATES = {
    "pending": Story(), "running": Story().lock(), "failed": Story().lock().attempt("TOY-001", "ERRORED"),
    "awaiting_approval": halted(), "approved": approved(halted()),
}  # fmt: skip


@pytest.mark.parametrize("word", STATES)
def test_every_state_of_a_phase_has_its_word(word: str) -> None:
    toy, ledger, step = told(STATES[word])
    assert views.status_json(toy, ledger, step)["phases"][0]["state"] == word
    assert set(views.WORDS) == set(STATES)
    assert f"Phase 1 · Counting 1 · {views.WORDS[word]}" in text(STATES[word])


@pytest.mark.parametrize(
    ("kind", "word"),
    [(None, "pending"), ("STARTED", "running"), ("VERIFIED", "verified"), ("FAILED", "failed"),
     ("ERRORED", "errored"), ("WAIVED", "waived")],
)  # fmt: skip
def test_every_state_of_a_feature_has_its_mark(kind: str | None, word: str) -> None:
    story = Story().lock()
    if kind:
        story.records.add(DIGEST)
        story.add(kind, 1, "TOY-001", f"record sha256:{DIGEST} prd/approvals/phase-1.1.json")
    toy, ledger, step = told(story)
    assert views.status_json(toy, ledger, step)["phases"][0]["features"][0]["state"] == word
    line = next(line for line in text(story) if line.split()[1:2] == ["TOY-001"])
    assert line.split()[0] == views.MARKS[word]
    assert word in line
    assert len(set(views.MARKS.values())) == len(views.MARKS)


def test_the_text_shows_seconds_coverage_and_attempts() -> None:
    story = verified(Story().lock().attempt("TOY-001", "FAILED"), "TOY-001").attempt(
        "TOY-002", "FAILED"
    )
    lines = text(story)
    assert (
        "  ✓ TOY-001    Count number 1                       verified  (12 s, coverage 1 + 1 of 4, 2 attempts)"
        in lines
    )
    assert any(line.endswith("failed  (1 attempt)") for line in lines)
    assert "awaits your approval. To review: results/, progress.txt, git log." in "\n".join(
        text(halted())
    )


def test_without_unicode_the_same_is_said_in_ascii() -> None:
    spent = NEXT["spent"][0]()
    for story in (
        halted(),
        spent,
        approved(halted()),
        STATES["running"].add("STARTED", 1, "TOY-002"),
    ):
        plain = "\n".join(text(story, ascii_only=True))
        assert plain.isascii()
        assert len(plain.splitlines()) == len(text(story))
        assert "TOY-001" in plain


def test_status_at_a_pipe_that_cannot_print_unicode(halted: Toy) -> None:
    shown = halted.run("status", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert shown.stdout.isascii()
    assert "+ TOY-001" in shown.stdout
    shown = halted.run("status", env={"PYTHONIOENCODING": "utf-8"})
    assert "✓ TOY-001" in shown.stdout


def test_json_is_one_object_on_stdout(halted: Toy) -> None:
    done = halted.run("status", "--json")
    assert done.stderr == ""
    assert set(json.loads(done.stdout)) == {"project", "head", "phases", "next"}
    entry = json.loads(halted.run("log", "--json", "--last", "1").stdout)[0]
    assert (entry["seq"], entry["kind"], entry["phase"]) == (7, "HALTED", 1)


def test_plan_says_what_would_run_and_why() -> None:
    story = Story().lock().attempt("TOY-001", "FAILED")
    toy, ledger, step = told(story)
    planned = views.plan_json(toy, ledger, step)
    assert [(item["id"], item["reason"]) for item in planned["features"]] == [
        ("TOY-001", "attempt 1 failed"), ("TOY-002", "not run yet")]  # fmt: skip
    shown = views.plan_text(toy, ledger, step)
    assert "entry   `test -s experiment.py`" in shown
    assert "exit    gates/test_exit.py" in shown
    assert (
        "in all about 0.2 min, at most 0.1 GB; then it halts for your approval of phase 1" in shown
    )
    waiting = views.plan_text(*told(halted()))
    assert "would run nothing: phase 1 awaits your approval" in waiting
    assert views.plan_json(*told(halted()))["features"] == []


def test_what_a_person_reads_before_a_decision() -> None:
    toy, ledger, _ = told(halted())
    details = {"TOY-001": {"unjudged": ["images"], "passed": 3, "caught": "4 of 4", "claimed": ["time", "memory"],
                           "predictions": ["HELD: the total is 14"]}}  # fmt: skip
    shown = views.checkpoint_text(toy.phase(1), ledger.state.phase(1), details, "results")
    for wanted in ("UNJUDGED by the plan's own word: images", "checks: 3 passed; fails on 4 of 4 negative copies",
                   "1 recomputed + 1 bounded of 4 measurements; only claimed: time, memory",
                   "prediction HELD: the total is 14", f"receipt sha256:{DIGEST}  results/TOY-001/receipt.json",
                   f"review request sha256:{DIGEST}"):  # fmt: skip
        assert wanted in shown
    assert shown.index("UNJUDGED") < shown.index("checks: 3 passed")


def test_the_log_is_progress_txt() -> None:
    story = halted()
    assert sentences.raw(story.ledger.entries).encode() + b"\n" in story.ledger.data
    assert [item["self"] for item in sentences.as_json(story.ledger.entries)] == [
        e.self_hash for e in story.ledger.entries
    ]
