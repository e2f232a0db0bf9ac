"""I-35: an entry's lines and its commit's message follow from its documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from converging import failpoint_env
from eventful import change, environment_of, run
from forged_edits import (
    APPROVED,
    COMMAND,
    ENTRY,
    ERRORED,
    FAILED,
    HALTED,
    INTERRUPTED,
    OTHER,
    RECEIPT,
    REPEATED,
    RESTARTED,
    VERDICT,
    WAIVED,
    assert_named,
    both,
    case,
    check,
    commit_subject,
    elsewhere,
    extra_line,
    git_dependency,
    in_document,
    line,
    line_moved,
    line_twice,
    names_of,
    other_digest,
    parameter,
    rare,
    title,
    trailer,
    without_line,
)
from forged_record import Edit, LastRecord, Place, audit_report, forge
from quick import Quick

from phases.record import entries

#### the entry


MANY_DISCARDED = [
    extra_line(f"discarded from its copy: log-{number}.txt (added)", "measured ")
    for number in range(entries.SHOWN_DISCARDED + 1)
]

ENTRIES = {
    "measured 999": case(COMMAND, ENTRY, line("measured total 14", "measured total 999")),
    "measured nothing": rare(COMMAND, ENTRY, without_line("measured ")),
    "measured twice": rare(COMMAND, ENTRY, line_twice("measured ")),
    "measured twice by a failed attempt": case(FAILED, ENTRY, line_twice("measured ")),
    "9 checks": case(COMMAND, ENTRY, line("1 passed, 0 failed", "9 passed, 0 failed")),
    "1 check failed": rare(COMMAND, ENTRY, line("1 passed, 0 failed", "1 passed, 1 failed")),
    "another gate": case(
        FAILED, ENTRY, line("gate gates/test_small.py", "gate gates/test_strict.py")
    ),
    "9 predictions held": case(COMMAND, ENTRY, line("1 held, 1 missed", "9 held")),
    "no predictions": rare(COMMAND, ENTRY, without_line("predictions: ")),
    "no predictions of a repeated attempt": case(REPEATED, ENTRY, without_line("predictions: ")),
    "a first attempt that is repeated": case(
        COMMAND, ENTRY, line("1 held, 1 missed", "1 held, 1 missed (a repeated attempt)")
    ),
    "a repeated attempt that is the first": case(
        REPEATED, ENTRY, line(" (a repeated attempt)", "")
    ),
    "a repeated attempt that a rejection made the first": case(
        RESTARTED, ENTRY, line(" (a repeated attempt)", "")
    ),
    "better coverage": case(
        COMMAND, ENTRY, line("measurement coverage 1 + 0 of 2", "measurement coverage 2 + 0 of 2")
    ),
    "no coverage": rare(COMMAND, ENTRY, without_line("measurement coverage ")),
    "more mutants killed": case(COMMAND, ENTRY, line("mutants 4/5", "mutants 5/5")),
    "more mutants": rare(COMMAND, ENTRY, line("mutants 4/5", "mutants 44/45")),
    "no mutants": rare(COMMAND, ENTRY, without_line("mutants ")),
    "exempt nothing": case(COMMAND, ENTRY, without_line("exempt by the plan: ")),
    "exempt more": rare(COMMAND, ENTRY, extra_line("exempt by the plan: a: b", "receipt ")),
    "protected by digest only": case(
        COMMAND, ENTRY, extra_line("protected by digest only: note.md", "exempt ")
    ),
    "999 seconds": case(COMMAND, ENTRY, line("for 1 s", "for 999 s")),
    "another seed": case(COMMAND, ENTRY, line("seed 3", "seed 4")),
    "another profile": rare(COMMAND, ENTRY, line("profile small", "profile large")),
    "another sandbox": rare(COMMAND, ENTRY, line("sandbox none", "sandbox bwrap")),
    "another attempt": case(COMMAND, ENTRY, line("attempt 1,", "attempt 2,")),
    "another program": rare(COMMAND, ENTRY, line("ran sh worker.sh", "ran sh other.sh")),
    "ran nothing": rare(COMMAND, ENTRY, without_line("ran ")),
    "ran twice": rare(COMMAND, ENTRY, line_twice("ran ")),
    "a line of no known form": case(COMMAND, ENTRY, extra_line("reviewed by an expert")),
    "a failed check": case(COMMAND, ENTRY, extra_line("failing test_x: no", "receipt ")),
    "a reason": rare(COMMAND, ENTRY, extra_line("reason it is so", "receipt ")),
    "a reset": case(COMMAND, ENTRY, extra_line("reset: Q-002")),
    "another order": case(COMMAND, ENTRY, line_moved("measured ", 0)),
    "a discarded file at the end": case(COMMAND, ENTRY, line_moved("discarded ", 5)),
    "the receipt twice": rare(COMMAND, ENTRY, line_twice("receipt ")),
    "the verdict before the receipt": rare(COMMAND, ENTRY, line_moved("verdict ", 8)),
    "more discarded files than an entry shows": case(COMMAND, ENTRY, *MANY_DISCARDED),
    "another digest of the receipt": case(COMMAND, "receipt-changed", other_digest("receipt")),
    "another digest of the verdict": case(COMMAND, "verdict-changed", other_digest("verdict")),
    "another digest of the attempt record": case(
        FAILED, "named-file-changed|attempt-changed", other_digest("attempt-record")
    ),
    "another output": case(
        COMMAND,
        "result-changed",
        lambda record: record.files.update({"results/Q-001/note.md": b"another note"}),
    ),
    "no receipt": case(COMMAND, "receipt-missing", without_line("receipt ")),
    "a receipt that there is not": case(
        COMMAND, "receipt-missing", line("Q-001/receipt.json", "Q-001/nothing.json")
    ),
    "no verdict": case(COMMAND, "verdict-missing", without_line("verdict ")),
    "a verdict that there is not": case(
        COMMAND, "verdict-missing", line("Q-001/verdict.json", "Q-001/nothing.json")
    ),
    "FAILED: no record": case(FAILED, ENTRY, without_line("attempt-record ")),
    "FAILED: a record that there is not": case(
        FAILED, "named-file-changed", line("attempts/1.json", "attempts/9.json")
    ),
    "another title": case(COMMAND, ENTRY, title("Count everything")),
    "another title than the plan's everywhere": case(
        COMMAND, ENTRY, title("Count everything", "STARTED", "VERIFIED")
    ),
    "another receipt file": case(COMMAND, ENTRY, elsewhere("receipt", "results/Q-001/r.json")),
    "another verdict file": case(COMMAND, ENTRY, elsewhere("verdict", "results/Q-001/v.json")),
    "FAILED: more checks passed": case(
        FAILED, ENTRY, line("1 passed, 1 failed", "99 passed, 1 failed")
    ),
    "FAILED: another message": case(FAILED, ENTRY, line("much too large", "a bit large")),
    "FAILED: another check": case(FAILED, ENTRY, line("failing test_small", "failing test_big")),
    "FAILED: no failed check": case(FAILED, ENTRY, without_line("failing ")),
    "FAILED: another reason": case(FAILED, ENTRY, line("1 of 2 checks", "1 of 99 checks")),
    "FAILED: no reason": rare(FAILED, ENTRY, without_line("reason ")),
    "FAILED: predictions": rare(FAILED, ENTRY, extra_line("predictions: 1 held", "gate ")),
    "FAILED: a receipt": case(
        FAILED, ENTRY, extra_line(f"receipt sha256:{OTHER} results/Q-003/receipt.json")
    ),
    "FAILED: 999 seconds": rare(FAILED, ENTRY, line("for 1 s", "for 999 s")),
    "FAILED: another title": rare(FAILED, ENTRY, title("Count everything")),
    "FAILED: measured twice": rare(FAILED, ENTRY, line_twice("measured ")),
    "FAILED: mutants": rare(FAILED, ENTRY, extra_line("mutants 3/3 killed", "failing ")),
    "FAILED: another record file": case(
        FAILED, ENTRY, elsewhere("attempt-record", "results/Q-003/attempts/7.json")
    ),
    "ERRORED: another reason": case(ERRORED, ENTRY, line("ended with exit 1", "ran out of luck")),
    "ERRORED: measured": case(ERRORED, ENTRY, extra_line("measured total 14", "reason ")),
    "ERRORED: a gate": rare(
        ERRORED, ENTRY, extra_line("gate x: 9 passed, 0 failed", "attempt-record ")
    ),
    "the record says verified": case(
        FAILED, ENTRY, in_document("attempt-record", "state", to="verified")
    ),
    "the record says errored": rare(
        FAILED, ENTRY, in_document("attempt-record", "state", to="errored")
    ),
    "the record says failed": case(
        ERRORED, ENTRY, in_document("attempt-record", "state", to="failed")
    ),
    "the record has other reasons": case(
        FAILED, ENTRY, in_document("attempt-record", "reasons", to=["bad luck"])
    ),
    "record and entry have other reasons than the verdict": case(
        FAILED,
        f"{ENTRY}|{VERDICT}",
        both("attempt-record", "1 of 2 checks", "1 of 99 checks"),
        lambda record: record.gate.update(reasons=["1 of 2 checks failed"]),
    ),
    "the record is of another attempt": case(
        FAILED, ENTRY, in_document("attempt-record", "attempt", to=2)
    ),
    "the record is of another feature": case(
        FAILED, ENTRY, in_document("attempt-record", "feature", to="Q-004")
    ),
    "the record has no verdict": case(
        FAILED, ENTRY, in_document("attempt-record", "verdict", to=None)
    ),
    "STARTED: another title": case(COMMAND, ENTRY, title("Count everything", "STARTED")),
    "STARTED: another seed": case(COMMAND, ENTRY, line("seed 3", "seed 4", "STARTED")),
    "STARTED: another profile": rare(
        COMMAND, ENTRY, line("profile small", "profile large", "STARTED")
    ),
    "STARTED: another program": case(
        COMMAND, ENTRY, line("sh worker.sh", "sh other.sh", "STARTED")
    ),
    "STARTED: another sandbox": rare(
        COMMAND, ENTRY, line("sandbox none", "sandbox bwrap", "STARTED")
    ),
    "STARTED: one line more": rare(COMMAND, ENTRY, extra_line("measured 9", kind="STARTED")),
    "STARTED: no transaction": case(
        COMMAND, f"{ENTRY}|receipt-foreign", without_line("txn ", "STARTED")
    ),
    "INTERRUPTED: it measured": case(INTERRUPTED, ENTRY, extra_line("measured total 14")),
    "INTERRUPTED: no reason": case(INTERRUPTED, ENTRY, without_line("reason ")),
    "INTERRUPTED: another title": case(INTERRUPTED, ENTRY, title("Count everything")),
}


@pytest.mark.parametrize("name", names_of(ENTRIES))
def test_the_lines_of_an_entry_follow_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, ENTRIES[name])


@pytest.mark.parametrize("place", [COMMAND, FAILED], ids=str)
def test_an_outcome_without_its_start_is_named_i_35(
    at: Callable[[Place], Quick], place: Place
) -> None:
    quick = at(place)
    forge(quick, lambda record: record.drafts.remove(record.draft("STARTED")))
    code, report = audit_report(quick)
    assert code == 3
    assert {item["code"] for item in report["findings"]} == {"entry-order", "receipt-foreign"}


def attempt_of_everything(number: int) -> Edit:
    """Return another number of the attempt in entries, documents and trailers."""

    def edit(record: LastRecord) -> None:
        for kind in ("STARTED", record.last.entry.kind):
            record.draft(kind).replace("attempt 1,", f"attempt {number},")
        parameter("attempt", number)(record)
        record.trailers["Phases-Attempt"] = str(number)

    return edit


def test_an_attempt_has_the_next_number_i_35(at: Callable[[Place], Quick]) -> None:
    """Attempts 1 to 6 are not mentioned."""
    check(at, case(COMMAND, ENTRY, attempt_of_everything(7)))


@pytest.mark.parametrize("place", [RESTARTED, REPEATED], ids=str)
def test_an_attempt_runs_on_a_commit_that_has_the_entries_before_i_35(
    at: Callable[[Place], Quick], place: Place
) -> None:
    """Not on an older one, with which code or gate had agreed."""

    def edit(record: LastRecord) -> None:
        started = record.draft("STARTED")
        head = started.lines[started.index("head ")].split(" ")[1]
        older = record.toy.git("rev-parse", f"{head}~1")
        started.replace(head, older)
        tree = record.toy.git("rev-parse", f"{older}^{{tree}}")
        git_dependency(record).update(gitCommit=older, gitTree=tree)

    check(at, case(place, f"{ENTRY}|{RECEIPT}|receipt-commit|receipt-foreign", edit))


#### the commit

TRAILERS = {
    "another attempt": case(COMMAND, "commit-trailers", trailer("Phases-Attempt", "2")),
    "two attempts": case(
        COMMAND, "commit-trailers", trailer("Phases-Attempt", "2\nPhases-Attempt: 1")
    ),
    "no attempt": rare(COMMAND, "commit-trailers", trailer("Phases-Attempt", None)),
    "another phase": case(COMMAND, "commit-trailers", trailer("Phases-Phase", "2")),
    "no phase": rare(COMMAND, "commit-trailers", trailer("Phases-Phase", None)),
    "another feature": case(COMMAND, "commit-trailers", trailer("Phases-Feature", "Q-002")),
    "no feature": rare(COMMAND, "commit-trailers", trailer("Phases-Feature", None)),
    "another receipt": case(
        COMMAND, "commit-trailers", trailer("Phases-Receipt", f"sha256:{OTHER}")
    ),
    "no receipt": case(COMMAND, "commit-trailers", trailer("Phases-Receipt", None)),
    "another transaction": case(COMMAND, "commit-trailers", trailer("Phases-Txn", "ab" * 8)),
    "no transaction": rare(COMMAND, "commit-trailers", trailer("Phases-Txn", None)),
    "garbage": rare(COMMAND, "commit-trailers", trailer("Phases-Attempt", "9" * 5000)),
    "another receipt of a failed attempt": case(
        FAILED, "commit-trailers", trailer("Phases-Receipt", f"sha256:{OTHER}")
    ),
    "no receipt of a failed attempt": rare(
        ERRORED, "commit-trailers", trailer("Phases-Receipt", None)
    ),
    "a feature of a phase": case(HALTED, "commit-trailers", trailer("Phases-Feature", "Q-001")),
    "a receipt of a phase": rare(
        HALTED, "commit-trailers", trailer("Phases-Receipt", f"sha256:{OTHER}")
    ),
    "another transaction of a halt": case(
        HALTED, "commit-trailers|request-contradicts", trailer("Phases-Txn", "ab" * 8)
    ),
    "another phase of a decision": case(APPROVED, "commit-trailers", trailer("Phases-Phase", "2")),
    "another feature of a waiver": case(
        WAIVED, "commit-trailers", trailer("Phases-Feature", "Q-004")
    ),
    "another feature of an interruption": case(
        INTERRUPTED, "commit-trailers", trailer("Phases-Feature", "Q-001")
    ),
    "its subject: 999 checks": case(
        COMMAND, "commit-trailers", commit_subject("(1 checks)", "(999 checks)")
    ),
    "its subject: verified": case(
        FAILED, "commit-trailers", commit_subject("failed (1 of 2", "verified (2 of 2")
    ),
    "its subject: another title": rare(
        COMMAND, "commit-trailers", commit_subject("Count 1", "Count 2")
    ),
    "its subject: approved": case(
        HALTED, "commit-trailers", commit_subject("awaiting approval", "approved")
    ),
}


@pytest.mark.parametrize("name", names_of(TRAILERS))
def test_what_a_commit_says_of_its_entry_follows_i_35(
    at: Callable[[Place], Quick], name: str
) -> None:
    check(at, TRAILERS[name])


#### what comes after a forged record


def test_a_forged_record_is_named_after_honest_ones_and_in_a_clone_i_35(
    at: Callable[[Place], Quick],
) -> None:
    quick = at(COMMAND)
    record = forge(quick, line("measured total 14", "measured total 999"))
    change(quick, "exp/mode", "good\n")
    run(quick, "--next")
    assert "HALTED" in quick.progress
    assert_named(quick, record, [ENTRY])
    refused = quick.run("approve", "1", code=3, env=environment_of(quick))
    assert "entry-contradicts" in refused.stderr
    root = quick.root.with_name("clone")
    quick.git("clone", "-q", str(quick.root), str(root))
    assert_named(quick.at(root), record, [ENTRY])


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_a_commit_of_the_runners_changes_nothing_else_i_35(eventful: Quick, change: str) -> None:
    if change == "remove":
        eventful.git("rm", "-q", "worker.sh")
    else:
        eventful.write("worker.sh" if change == "edit" else "extra.sh", "echo 15\n")
        eventful.git("add", "-A")
    eventful.git("commit", "-q", "--amend", "--no-edit")
    eventful.git("update-ref", "refs/phases/log", "HEAD")
    code, report = audit_report(eventful)
    assert code == 3
    assert {item["code"] for item in report["findings"]} >= {"commit-content"}


def test_a_changed_commit_is_named_after_one_of_the_users(tmp_path: Path) -> None:
    quick = Quick(tmp_path / "quick")
    quick.run("run", "--next", code=None, env=failpoint_env("started"))
    quick.commit("all that there was, with entries of an unfinished run")
    quick.run("run", "--next")
    quick.write("extra.sh", "echo 15\n")
    quick.git("add", "-A")
    quick.git("commit", "-q", "--amend", "--no-edit")
    quick.git("update-ref", "refs/phases/log", "HEAD")
    code, report = audit_report(quick)
    assert code == 3
    assert "commit-content" in {item["code"] for item in report["findings"]}
