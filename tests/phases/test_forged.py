"""I-35: what a receipt states is recomputed; what is honest is no finding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eventful import BIG_SHA256
from forged_edits import (
    COMMAND,
    DEPENDENCIES,
    DETAILS,
    ENV,
    ERRORED,
    FAILED,
    GATE,
    INTERNAL,
    MODULE,
    OTHER,
    PARAMETERS,
    PLACES,
    RECEIPT,
    REPEATED,
    case,
    check,
    dependency,
    dependency_twice,
    extra_line,
    git_dependency,
    line,
    lines_follow,
    names_of,
    output_twice,
    parameter,
    predicate,
    process,
    rare,
    receipt,
    undeclared_output,
    value_at,
    without_byproduct,
    without_dependency,
    without_line,
    without_mutant,
    without_subject,
)
from forged_record import Edit, LastRecord, Place, audit_report, describe, forge, unchanged
from quick import Quick

#### the control


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_control_a_record_that_is_put_together_unchanged_is_valid(
    at: Callable[[Place], Quick], place: Place
) -> None:
    quick = at(place)
    before = quick.progress
    forge(quick, unchanged)
    assert quick.progress == before
    code, report = audit_report(quick)
    assert (code, report["findings"]) == (0, []), describe(report["findings"])


def test_control_everything_that_happened_is_valid(eventful: Quick) -> None:
    """Failed and repeated attempts, waivers, rejections, relocks, interruptions, exemptions."""
    code, report = audit_report(eventful)
    assert (code, report["findings"], report["uncovered"]) == (0, [], []), report


def other_version(record: LastRecord) -> None:
    """Make lock and receipt those of another version of the runner, as after an upgrade."""
    record.document("lock")["components"]["runner"] = OTHER
    dependency("runner")(record)
    record.receipt["predicate"]["runDetails"]["builder"]["version"]["phases"] = "0.0.9"


def lasted(seconds: float, shown: int) -> Edit:
    """Return how long a process took, as receipt (three digits) and entry (seconds) state it."""

    def edit(record: LastRecord) -> None:
        process(seconds=seconds)(record)
        if shown != 1:
            record.last.replace("for 1 s", f"for {shown} s")

    return edit


def meanwhile(record: LastRecord) -> None:
    """Have a commit of the user's between the one that ran and the one that records it."""
    git = record.toy.git
    git("reset", "-q", "--hard", record.parent)
    record.toy.write("notes.md", "mine\n")
    record.toy.commit("my notes")
    record.parent = git("rev-parse", "HEAD")


HONEST: dict[str, tuple[Place, Edit]] = {
    "another version of the runner": (COMMAND, other_version),
    "1.5 s": (COMMAND, lasted(1.5, 2)),
    "2.5 s": (COMMAND, lasted(2.5, 2)),
    "0.0001 s": (COMMAND, lasted(0.0, 1)),
    "a clock that went back": (
        COMMAND,
        receipt(*DETAILS, "metadata", "finishedOn", to="2001-01-01T00:00:00Z"),
    ),
    "a library in the place of a folder without __init__.py": (
        MODULE,
        without_dependency("code:namespace"),
    ),
    "nothing else in a cached input": (
        COMMAND,
        dependency("input:big", {"sha256:pinned.txt": BIG_SHA256}),
    ),
    "a file more in a cached input": (
        COMMAND,
        dependency("input:big", {"sha256:pinned.txt": BIG_SHA256, "sha256:x.txt": OTHER}),
    ),
    "another program": (REPEATED, dependency("program:bin/run")),
    "one more variable": (COMMAND, lambda record: value_at(record.receipt, ENV).append("ZONE")),
    "a commit of the user's while it ran": (COMMAND, meanwhile),
    "nothing discarded": (COMMAND, without_line("discarded ")),
    "more discarded": (COMMAND, extra_line("discarded from its copy: … and 3 more", "measured ")),
}
"""What an honest run states too: it cannot be recomputed, or not to the last digit."""


@pytest.mark.parametrize("name", HONEST)
def test_control_what_an_honest_run_may_state_is_no_finding(
    at: Callable[[Place], Quick], name: str
) -> None:
    place, edit = HONEST[name]
    quick = at(place)
    forge(quick, edit)
    code, report = audit_report(quick)
    assert (code, report["findings"]) == (0, []), describe(report["findings"])


#### the receipt


def more_of_outputs(record: LastRecord) -> None:
    """State of an output what nothing can be compared with, in receipt and verdict."""
    for document in (record.receipt, record.verdict):
        document["subject"][0]["annotations"] = {"rows": 1}


def process_twice(record: LastRecord) -> None:
    """Have a second process in the receipt, which ended otherwise."""
    byproducts = value_at(record.receipt, (*DETAILS, "byproducts"))
    byproducts.append({"name": "process", "content": {"exitCode": 1, "seconds": 99.0}})


RECEIPTS = {
    "another gate": case(COMMAND, RECEIPT, dependency(GATE)),
    "another gate, in the verdict too": case(
        COMMAND,
        RECEIPT,
        dependency(GATE),
        predicate("configuration", [{"name": GATE, "digest": {"sha256": OTHER}}]),
    ),
    "another plan": case(COMMAND, RECEIPT, dependency("prd/plan.json")),
    "another runner than the lock": case(COMMAND, RECEIPT, dependency("runner")),
    "another runner than an earlier lock": rare(REPEATED, RECEIPT, dependency("runner")),
    "other code of a command": case(COMMAND, RECEIPT, dependency("code")),
    "other code of a module": case(MODULE, RECEIPT, dependency("code:exp")),
    "other code that a module imports": rare(MODULE, RECEIPT, dependency("code:tools")),
    "another config": case(COMMAND, RECEIPT, dependency("settings.yaml")),
    "another input": case(COMMAND, RECEIPT, dependency("input:words", {"gitTree": "ab" * 20})),
    "another kind of digest of an input": rare(COMMAND, RECEIPT, dependency("input:words")),
    "another needed feature": case(MODULE, RECEIPT, dependency("feature:Q-001")),
    "another git tree": case(
        COMMAND,
        "receipt-commit",
        lambda record: git_dependency(record).update(gitTree="ab" * 20),
    ),
    "another git digest besides": rare(
        COMMAND,
        RECEIPT,
        lambda record: git_dependency(record).update(sha256=OTHER),
    ),
    "no plan": rare(COMMAND, RECEIPT, without_dependency("prd/plan.json")),
    "no runner": rare(COMMAND, RECEIPT, without_dependency("runner")),
    "no gate": rare(COMMAND, RECEIPT, without_dependency(GATE)),
    "no code": rare(COMMAND, RECEIPT, without_dependency("code")),
    "no code of the module itself": case(MODULE, RECEIPT, without_dependency("code:exp")),
    "no config": rare(COMMAND, RECEIPT, without_dependency("settings.yaml")),
    "no input": rare(COMMAND, RECEIPT, without_dependency("input:words")),
    "no needed feature": case(MODULE, RECEIPT, without_dependency("feature:Q-001")),
    "no code that the module imports": case(MODULE, RECEIPT, without_dependency("code:tools")),
    "another digest of a pinned file": case(
        COMMAND, RECEIPT, dependency("input:big", {"sha256:pinned.txt": OTHER})
    ),
    "no digest of a pinned file": rare(
        COMMAND, RECEIPT, dependency("input:big", {"sha256:more.txt": OTHER})
    ),
    "a program that its command does not name": case(
        REPEATED, RECEIPT, dependency("program:bin/walk")
    ),
    "an invented input": case(COMMAND, RECEIPT, dependency("input:extra")),
    "an invented feature": rare(COMMAND, RECEIPT, dependency("feature:Q-002")),
    "an invented package": rare(MODULE, RECEIPT, dependency("code:numpy")),
    "an invented program": case(COMMAND, RECEIPT, dependency("program:bin/true")),
    "an invented file": rare(COMMAND, RECEIPT, dependency("README.md")),
    "a dependency twice": case(COMMAND, RECEIPT, dependency_twice("code")),
    "another seed": case(COMMAND, RECEIPT, parameter("seed", 4)),
    "another seed than the plan's everywhere": case(
        COMMAND,
        f"{RECEIPT}|entry-contradicts",
        parameter("seed", 4),
        line("seed 3", "seed 4"),
        line("seed 3", "seed 4", "STARTED"),
    ),
    "another profile": rare(COMMAND, RECEIPT, parameter("profile", "large")),
    "another profile than the plan's everywhere": case(
        MODULE,
        f"{RECEIPT}|entry-contradicts",
        parameter("profile", "large"),
        line("profile cpu", "profile large"),
        line("profile cpu", "profile large", "STARTED"),
    ),
    "other words of a command": case(
        COMMAND, RECEIPT, parameter("argv", ["/bin/sh", "-c", "true"])
    ),
    "another module": case(MODULE, RECEIPT, receipt(*PARAMETERS, "argv", 2, to="exp.other")),
    "another option of a module": rare(MODULE, RECEIPT, receipt(*PARAMETERS, "argv", 8, to="1")),
    "another tier": case(
        COMMAND,
        RECEIPT,
        receipt(*INTERNAL, "sandbox", "tier", to="bwrap"),
        receipt(*DETAILS, "builder", "id", to="phases/bwrap"),
    ),
    "two tiers: of the builder": case(
        COMMAND, RECEIPT, receipt(*DETAILS, "builder", "id", to="phases/bwrap")
    ),
    "two tiers: of the sandbox": rare(
        COMMAND, RECEIPT, receipt(*INTERNAL, "sandbox", "tier", to="bwrap")
    ),
    "a variable of the plan is missing": case(
        COMMAND, RECEIPT, receipt(*INTERNAL, "env", to=["HOME", "TMPDIR"])
    ),
    "exit code 1": case(COMMAND, RECEIPT, process(exitCode=1)),
    "no exit code": rare(COMMAND, RECEIPT, process(exitCode=None)),
    "an exit code that is no number": rare(COMMAND, RECEIPT, process(exitCode=False)),
    "no process": case(COMMAND, RECEIPT, without_byproduct("process")),
    "other seconds": case(COMMAND, f"{RECEIPT}|entry-contradicts", process(seconds=999.0)),
    "another phase": rare(COMMAND, "receipt-foreign", parameter("phase", 2)),
    "another feature": rare(COMMAND, "receipt-foreign", parameter("feature", "Q-002")),
    "another attempt": case(COMMAND, "receipt-foreign", parameter("attempt", 2)),
    "another transaction": case(
        COMMAND, "receipt-foreign", receipt(*DETAILS, "metadata", "invocationId", to="ab" * 8)
    ),
    "an output that the plan does not declare": case(
        COMMAND, RECEIPT, undeclared_output("another.md"), lines_follow
    ),
    "an output twice": case(COMMAND, RECEIPT, output_twice("note.md")),
    "more of an output than its SHA-256": case(COMMAND, RECEIPT, more_of_outputs),
    "more of what went in than its digest": case(
        COMMAND, RECEIPT, receipt(*DEPENDENCIES, 0, "content", to={"rows": 1})
    ),
    "a byproduct twice": case(COMMAND, RECEIPT, process_twice),
    "a declared output is missing": case(
        COMMAND,
        RECEIPT,
        without_subject("extra.txt"),
        without_mutant("tamper", "extra.txt"),
        without_mutant("content", "extra.txt"),
        lines_follow,
    ),
}


@pytest.mark.parametrize("name", names_of(RECEIPTS))
def test_what_a_receipt_states_is_recomputed_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, RECEIPTS[name])


#### the receipt in the record of an attempt that was not verified

ATTEMPT = f"{RECEIPT}|entry-contradicts"
ATTEMPTS = {
    "another gate": case(FAILED, ATTEMPT, dependency("gates/test_small.py")),
    "another plan": case(ERRORED, ATTEMPT, dependency("prd/plan.json")),
    "another runner": case(FAILED, ATTEMPT, dependency("runner")),
    "other code": case(ERRORED, ATTEMPT, dependency("code:exp")),
    "another seed": case(FAILED, ATTEMPT, parameter("seed", 1)),
    "another attempt": case(FAILED, "receipt-foreign", parameter("attempt", 2)),
    "another feature": case(ERRORED, "receipt-foreign", parameter("feature", "Q-001")),
    "another tree": case(
        FAILED,
        "receipt-commit",
        lambda record: git_dependency(record).update(gitTree="ab" * 20),
    ),
    "an exit code of 0 that ended with exit 1": case(ERRORED, ATTEMPT, process(exitCode=0)),
    "an exit code that was judged all the same": case(FAILED, ATTEMPT, process(exitCode=1)),
}


@pytest.mark.parametrize("name", names_of(ATTEMPTS))
def test_the_receipt_of_a_failed_attempt_is_recomputed_too_i_35(
    at: Callable[[Place], Quick], name: str
) -> None:
    check(at, ATTEMPTS[name])
