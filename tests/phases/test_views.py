"""What status, plan, log and the summary before a decision show.

The JSON is a contract: its keys and words are spelled out here.
"""

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
from phases.record.result import reported_measurements
from phases.record.state import fold_state
from phases.record.states import FeatureState, PhaseState
from phases.record.verdict import ScoredPrediction
from phases.views.checkpoint import StoredFeature, VerdictDetails, checkpoint_text
from phases.views.log import log_json, log_raw, log_text, select_entries
from phases.views.plan import plan_json, plan_text
from phases.views.status import MARKS, PHASE_WORDS, status_json, status_text

RUN_NEXT = "python -m phases run --next"


def two_phases(**defaults: Any) -> Plan:
    return parse_plan(json.dumps(toy_plan(phases=2, **defaults)).encode())


def after(story: Story, plan: Plan | None = None) -> tuple[Plan, Snapshot]:
    """Return the toy plan and its state after a story."""
    plan = plan or two_phases()
    state = fold_state(plan, story.ledger.entries, story.evidence)
    return plan, Snapshot(Reconciled(story.ledger), state, story.evidence)


def status_lines(story: Story, *, ascii_only: bool = False) -> list[str]:
    return status_text(*after(story), ascii_only=ascii_only).splitlines()


def verify(story: Story, name: str, phase: int = 1) -> Story:
    gate = entries.GateSummary(
        name="gates/test_count.py",
        passed=3,
        failed=0,
        coverage=(1, 1, 4),
        killed=4,
        mutants=4,
        digest_only=("note.md", "tables of result.json"),
        exempt=("*.png: drawn by hand",),
    )
    ran = entries.RAN.format(what="x", seconds=12, attempt=1, seed=0, profile="cpu", sandbox="none")
    receipt = entries.RecordedFile(DIGEST, f"results/{name}/receipt.json")
    lines = (ran, *gate.lines, receipt.line(entries.RECEIPT))
    return story.add("STARTED", phase, name).add("VERIFIED", phase, name, *lines)


def verify_phase_1() -> Story:
    return verify(verify(Story().lock(), "TOY-001"), "TOY-002")


def halt_phase_1() -> Story:
    return verify_phase_1().halt()


def approve(story: Story, phase: int = 1) -> Story:
    record = f"{phase}" * 64
    story.records.add(record)
    return story.decide("APPROVED", record, phase)


def approve_both_phases() -> Story:
    story = approve(halt_phase_1()).lock(2)
    return approve(verify(verify(story, "TOY-003", 2), "TOY-004", 2).halt(2), 2)


def spend_attempts() -> Story:
    story = Story().lock().attempt("TOY-001", "FAILED").attempt("TOY-001", "ERRORED")
    return story.attempt("TOY-001", "FAILED")


#### status


def test_status_json_is_the_contract() -> None:
    story = verify(Story().lock(), "TOY-001").attempt("TOY-002", "FAILED")
    assert status_json(*after(story)) == {
        "project": "Toy",
        "head": {"entry": 5, "hash": story.ledger.head},
        "phases": [
            {"id": 1, "name": "Counting 1", "state": "failed", "features": [
                {"id": "TOY-001", "title": "Count number 1", "state": "verified", "attempts": 1,
                 "interruptions": 0, "seconds": 12, "receipt": f"sha256:{DIGEST}", "coverage": 0.5,
                     "digest_only": ["note.md", "tables of result.json"],
                     "exempt": ["*.png: drawn by hand"], "stale": []},
                {"id": "TOY-002", "title": "Count number 2", "state": "failed", "attempts": 1,
                 "interruptions": 0, "seconds": None, "receipt": None, "coverage": None,
                     "digest_only": [], "exempt": [], "stale": []}]},
            {"id": 2, "name": "Counting 2", "state": "pending", "features": [
                {"id": f"TOY-00{number}", "title": f"Count number {number}", "state": "pending",
                 "attempts": 0, "interruptions": 0, "seconds": None, "receipt": None,
                     "coverage": None,
                     "digest_only": [], "exempt": [], "stale": []}
                for number in (3, 4)]},
        ],
        "next": {"action": "run", "phase": 1, "feature": "TOY-002", "command": RUN_NEXT},
    }  # fmt: skip


def test_an_empty_ledger_has_the_headers_hash() -> None:
    head = status_json(*after(Story()))["head"]
    assert head == {"entry": 0, "hash": parse_ledger(new_header("Toy")).head}


RELOCK = "python -m phases relock 1 --reason '…'"
NEXT = {
    "begun": (Story, ("run", 1, "TOY-001", RUN_NEXT)),
    "waits": (halt_phase_1, ("approve", 1, None, "python -m phases approve 1")),
    "opened": (lambda: approve(halt_phase_1()), ("run", 2, "TOY-003", RUN_NEXT)),
    "exit gates": (verify_phase_1, ("run", 1, None, RUN_NEXT)),
    "spent": (spend_attempts, ("run", 1, "TOY-001", RELOCK)),
    "done": (approve_both_phases, ("done", None, None, None)),
}


@pytest.mark.parametrize("name", NEXT)
def test_next_is_the_one_command_to_type(name: str) -> None:
    make, (action, phase, feature, command) = NEXT[name]
    expected = {"action": action, "phase": phase, "feature": feature, "command": command}
    assert status_json(*after(make()))["next"] == expected
    last = "Every phase is approved; there is nothing left to do."
    if command:
        last = f"next: {command}"
    assert status_lines(make())[-1] == last


PHASE_STATES = {
    "pending": Story(),
    "running": Story().lock(),
    "failed": Story().lock().attempt("TOY-001", "ERRORED"),
    "awaiting_approval": halt_phase_1(),
    "approved": approve(halt_phase_1()),
}


@pytest.mark.parametrize("word", PHASE_STATES)
def test_every_state_of_a_phase_has_its_word(word: str) -> None:
    story = PHASE_STATES[word]
    assert status_json(*after(story))["phases"][0]["state"] == word
    assert set(PHASE_STATES) == set(PHASE_WORDS) == set(PhaseState)
    assert f"Phase 1 · Counting 1 · {PHASE_WORDS[PhaseState(word)]}" in status_lines(story)


@pytest.mark.parametrize(
    ("kind", "word"),
    [(None, "pending"), ("STARTED", "running"), ("VERIFIED", "verified"), ("FAILED", "failed"),
     ("ERRORED", "errored"), ("WAIVED", "waived")],
)  # fmt: skip
def test_every_state_of_a_feature_has_its_mark(kind: str | None, word: str) -> None:
    story = Story().lock()
    if kind in ("VERIFIED", "FAILED", "ERRORED"):
        story.add("STARTED", 1, "TOY-001")
    if kind:
        story.records.add(DIGEST)
        story.add(kind, 1, "TOY-001", f"record sha256:{DIGEST} prd/approvals/phase-1.1.json")
    assert status_json(*after(story))["phases"][0]["features"][0]["state"] == word
    line = next(line for line in status_lines(story) if line.split()[1:2] == ["TOY-001"])
    assert line.split()[0] == MARKS[FeatureState(word)]
    assert word in line
    assert len(set(MARKS.values())) == len(MARKS)


def test_the_text_shows_seconds_coverage_and_attempts() -> None:
    story = verify(Story().lock().attempt("TOY-001", "FAILED"), "TOY-001")
    lines = status_lines(story.attempt("TOY-002", "FAILED"))
    details = "(12 s, measurement coverage 1 + 1 of 4, 2 attempts)"
    assert f"  ✓ TOY-001    Count number 1                       verified  {details}" in lines
    assert any(line.endswith("failed  (1 attempt)") for line in lines)
    review = "Phase 1 awaits your approval. To review: results/, progress.txt, git log."
    assert review in status_lines(halt_phase_1())


def test_overrides_come_first() -> None:
    story = Story().lock().attempt("TOY-001", "FAILED")
    story.records.add(DIGEST)
    record = f"record sha256:{DIGEST} prd/approvals/phase-1.1.json"
    story.add("WAIVED", 1, "TOY-001", "reason no such data", record)
    lines = status_lines(story)
    assert lines[:4] == ["Toy", "", "overrides:", "  TOY-001 waived: no such data (entry 0004)"]
    assert "overrides:" not in status_lines(halt_phase_1())


def test_ascii_text_says_the_same() -> None:
    running = Story().lock().add("STARTED", 1, "TOY-002")
    for story in (halt_phase_1(), spend_attempts(), approve(halt_phase_1()), running):
        ascii_lines = status_lines(story, ascii_only=True)
        assert "".join(ascii_lines).isascii()
        assert len(ascii_lines) == len(status_lines(story))
        assert any("TOY-001" in line for line in ascii_lines)


def test_status_at_a_pipe_that_cannot_print_unicode(halted: Toy) -> None:
    stdout = halted.run("status", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}).stdout
    assert stdout.isascii()
    assert "+ TOY-001" in stdout
    stdout = halted.run("status", env={"PYTHONIOENCODING": "utf-8"}).stdout
    assert "✓ TOY-001" in stdout


def test_json_is_one_object_on_stdout(halted: Toy) -> None:
    process = halted.run("status", "--json")
    assert process.stderr == ""
    assert set(json.loads(process.stdout)) == {"project", "head", "phases", "next"}
    entry = json.loads(halted.run("log", "--json", "--last", "1").stdout)[0]
    assert (entry["seq"], entry["kind"], entry["phase"]) == (7, "HALTED", 1)


#### plan


def test_plan_says_what_would_run_and_why() -> None:
    plan, snapshot = after(Story().lock().attempt("TOY-001", "FAILED"))
    document = plan_json(plan, snapshot)
    assert set(document) == {"phase", "features", "stale", "weak_gates", "next"}
    assert [set(feature) for feature in document["features"]] == [
        {"id", "title", "reason", "runs", "minutes", "memory_gb", "exempt"}
    ] * 2
    reasons = [(feature["id"], feature["reason"]) for feature in document["features"]]
    assert reasons == [("TOY-001", "attempt 1 failed"), ("TOY-002", "not run yet")]
    text = plan_text(plan, snapshot)
    assert "entry   `test -s experiment.py`" in text
    assert "exit    `for file in */result.json; do" in text
    cost = "in all about 0.2 min, at most 0.1 GB"
    assert f"{cost}; then it halts for your approval of phase 1" in text


def test_plan_of_a_phase_that_waits_runs_nothing() -> None:
    plan, snapshot = after(halt_phase_1())
    assert "would run nothing: phase 1 awaits your approval" in plan_text(plan, snapshot)
    assert plan_json(plan, snapshot)["features"] == []
    plan, snapshot = after(spend_attempts())
    assert "would run nothing: TOY-001 failed 3 times" in plan_text(plan, snapshot)


#### the summary before a decision


def test_what_the_approver_reads_before_a_decision() -> None:
    _, snapshot = after(halt_phase_1())
    details = VerdictDetails(
        passed=3,
        killed=4,
        mutants=4,
        digest_only=("note.md", "a, b.md"),
        exempt=("*.png: drawn by hand",),
        claimed=("time", "memory"),
    )
    prediction = ScoredPrediction(
        id="fourteen",
        claim="the total is 14",
        outcome="HELD",
        reason="total is 14; claimed == 14",
    )
    result = {
        "headline": ["size", "total"],
        "measurements": {
            "mean": {"value": 2.8, "unit": "", "stderr": 0.8, "n": 5},
            "total": {"value": 14, "unit": "", "exact": True},
            "size": {"value": 1_456_496_640, "unit": "bytes", "exact": True},
        },
    }
    stored = StoredFeature(
        details=details,
        predictions=(prediction,),
        reported=reported_measurements(json.dumps(result).encode()),
        pages=("report.md",),
        images=("figures/loss.png", "figures/memory.png"),
    )
    text = checkpoint_text(snapshot.state.phase(1), {"TOY-001": stored}, "results")
    for expected in (
        "protected by digest only: note.md\n    protected by digest only: a, b.md\n",
        "exempt by the plan: *.png: drawn by hand",
        "checks: 3 passed; mutants 4/4 killed",
        "measurement coverage 1 + 1 of 4; only claimed: time, memory",
        "attempt 1\n    size 1.356 GiB\n    total 14\n    read results/TOY-001/report.md\n",
        "see 2 figures, the first is results/TOY-001/figures/loss.png",
        "prediction HELD: the total is 14\n        total is 14; claimed == 14\n",
        f"receipt sha256:{DIGEST}  results/TOY-001/receipt.json",
        f"review request sha256:{DIGEST}",
    ):
        assert expected in text
    assert text.index("exempt by the plan") < text.index("checks: 3 passed")
    assert "mean 2.8" not in text


def test_the_summary_lists_what_was_tried_more_than_once() -> None:
    story = verify(Story().lock().attempt("TOY-001", "FAILED"), "TOY-001")
    story = verify(story, "TOY-002").add("FAILED", 1, None, "reason exit").halt()
    text = checkpoint_text(after(story)[1].state.phase(1), {}, "results")
    assert "\ntried more than once:\n  TOY-001: 2 attempts in all\n" in text
    assert "  exit gates: failed 1 time\n" in text
    text = checkpoint_text(after(halt_phase_1())[1].state.phase(1), {}, "results")
    assert "tried more than once" not in text


#### log


def test_raw_and_json_are_what_progress_txt_has() -> None:
    ledger = halt_phase_1().ledger
    assert log_raw(ledger.entries).encode() + b"\n" in ledger.data
    hashes = [entry.self_hash for entry in ledger.entries]
    assert [item["self"] for item in log_json(ledger.entries)] == hashes


def test_the_log_shows_results_and_no_digests() -> None:
    text = log_text(verify_phase_1().ledger.entries)
    assert "measurement coverage 1 + 1 of 4" in text
    assert "mutants 4/4 killed" in text
    assert "sha256:" not in text


def test_entries_are_selected_by_feature_and_from_the_end() -> None:
    ledger = halt_phase_1().ledger
    assert select_entries(ledger) == list(ledger.entries)
    assert [entry.seq for entry in select_entries(ledger, feature="TOY-002")] == [4, 5]
    assert [entry.seq for entry in select_entries(ledger, feature="TOY-002", last=1)] == [5]
    assert [entry.seq for entry in select_entries(ledger, last=2)] == [5, 6]
