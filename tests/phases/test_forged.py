"""I-32 to I-36: what a record states and can be recomputed from its commit is recomputed.

Each case is one contradiction in a commit that is consistent otherwise (`forged_record.py`): every
digest, trailer and hash follows, and journal and ref agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from eventful import eventful_plan
from forged_record import Edit, LastRecord, Place, audit_report, describe, forge, unchanged
from quick import Quick

from phases.base import durable

COMMAND: Place = ("VERIFIED", "Q-001", 0)
"""Of a command, with config, input, predictions, published copy and exempt file."""
MODULE: Place = ("VERIFIED", "Q-002", 0)
REPEATED: Place = ("VERIFIED", "Q-004", 1)
RESTARTED: Place = ("VERIFIED", "Q-004", 2)
"""After a rejection and an interruption."""
ERRORED: Place = ("ERRORED", "Q-002", 0)
FAILED: Place = ("FAILED", "Q-003", 0)
"""By a gate of pytest, one of whose two checks failed."""
EXIT_FAILED: Place = ("FAILED", None, 2)
HALTED: Place = ("HALTED", None, 0)
HALTED_WAIVED: Place = ("HALTED", None, 1)
APPROVED: Place = ("APPROVED", None, 0)
WAIVED: Place = ("WAIVED", None, 0)
REJECTED: Place = ("REJECTED", None, 0)
RELOCKED: Place = ("LOCKED", None, 0)
INTERRUPTED: Place = ("INTERRUPTED", None, 0)
PLACES = (
    COMMAND,
    MODULE,
    REPEATED,
    RESTARTED,
    ERRORED,
    FAILED,
    EXIT_FAILED,
    HALTED,
    HALTED_WAIVED,
    APPROVED,
    WAIVED,
    REJECTED,
    RELOCKED,
    INTERRUPTED,
)

OTHER = "ab" * 32
"""A digest of nothing."""
PARAMETERS = ("predicate", "buildDefinition", "externalParameters")
INTERNAL = ("predicate", "buildDefinition", "internalParameters")
DEPENDENCIES = ("predicate", "buildDefinition", "resolvedDependencies")
DETAILS = ("predicate", "runDetails")


class Case(NamedTuple):
    """A contradiction: where, what, and the codes of the findings that may name it."""

    place: Place
    edits: Sequence[Edit]
    codes: Collection[str]


def case(place: Place, code: str, *edits: Edit) -> Case:
    """Return a case; `code` may be several, with `|` between them."""
    return Case(place, edits, code.split("|"))


#### edits


def value_at(document: Any, keys: Sequence[str | int]) -> Any:
    """Return a part of a document."""
    for key in keys:
        document = document[key]
    return document


def receipt(*keys: str | int, to: Any) -> Edit:
    """Return a change of a value of the receipt."""
    return lambda record: value_at(record.receipt, keys[:-1]).__setitem__(keys[-1], to)


def parameter(name: str, to: Any) -> Edit:
    """Return a change of what the receipt says of how it was run."""
    return receipt(*PARAMETERS, name, to=to)


def verdict(*keys: str | int, to: Any) -> Edit:
    """Return a change of a value of the verdict."""
    return lambda record: value_at(record.verdict, keys[:-1]).__setitem__(keys[-1], to)


def predicate(name: str, to: Any) -> Edit:
    """Return a change of what the verdict says in the words of in-toto."""
    return verdict("predicate", name, to=to)


def judged(*keys: str | int, to: Any) -> Edit:
    """Return a change of what the verdict says of the gate."""
    return verdict("predicate", "phases/gate/v1", *keys, to=to)


def in_document(word: str, *keys: str | int, to: Any) -> Edit:
    """Return a change of a value of the document that a line names."""
    return lambda record: value_at(record.document(word), keys[:-1]).__setitem__(keys[-1], to)


def lines_follow(record: LastRecord) -> None:
    """Write the lines on the judgement anew."""
    record.follow_verdict()


def dependency(uri: str, digest: Mapping[str, str] | None = None) -> Edit:
    """Return a change of what went in: another digest, or of what did not go in, a digest."""

    def edit(record: LastRecord) -> None:
        dependencies = value_at(record.receipt, DEPENDENCIES)
        item = {"uri": uri, "digest": dict(digest or {"sha256": OTHER})}
        others = [each for each in dependencies if each["uri"] != uri]
        dependencies[:] = sorted([*others, item], key=lambda each: str(each["uri"]))

    return edit


def without_dependency(uri: str) -> Edit:
    """Return a receipt's change that leaves out what went in."""

    def edit(record: LastRecord) -> None:
        dependencies = value_at(record.receipt, DEPENDENCIES)
        kept = [each for each in dependencies if each["uri"] != uri]
        assert len(kept) == len(dependencies) - 1
        dependencies[:] = kept

    return edit


def dependency_twice(uri: str) -> Edit:
    """Return a change by which the receipt names something twice, the second time otherwise."""

    def edit(record: LastRecord) -> None:
        dependencies = value_at(record.receipt, DEPENDENCIES)
        assert uri in [each["uri"] for each in dependencies]
        dependencies.append({"uri": uri, "digest": {"sha256": OTHER}})

    return edit


def git_dependency(record: LastRecord) -> Any:
    """Return the digest set of the commit that a receipt names."""
    dependencies = value_at(record.receipt, DEPENDENCIES)
    return next(item["digest"] for item in dependencies if item["uri"] == "git")


def gate_of(place: Place) -> str:
    """Return the name of a feature's gate, as receipt and verdict name it."""
    for phase in eventful_plan()["phases"]:
        for feature in phase["features"]:
            if feature["id"] == place[1]:
                gate = feature["gate"]
                return str(gate.get("pytest") or f"`{gate['shell']}`")
    raise AssertionError(place)


def undeclared_output(name: str) -> Edit:
    """Return the addition of an output to receipt, verdict and commit."""

    def edit(record: LastRecord) -> None:
        data = b"more\n"
        record.files[f"results/{record.last.entry.feature}/{name}"] = data
        for document in (record.receipt, record.verdict):
            item = {"name": name, "digest": {"sha256": durable.sha256(data)}}
            document["subject"].append(item)
            document["subject"].sort(key=lambda each: str(each["name"]))
        mutants = record.gate["mutants"]
        tampered = next(item for item in mutants if item["kind"] == "tamper")
        mutants.insert(mutants.index(tampered), {**tampered, "target": name})

    return edit


def output_twice(name: str) -> Edit:
    """Return a change by which receipt and verdict name an output twice, first otherwise."""

    def edit(record: LastRecord) -> None:
        for document in (record.receipt, record.verdict):
            document["subject"].insert(0, {"name": name, "digest": {"sha256": OTHER}})

    return edit


def without_subject(name: str) -> Edit:
    """Return the removal of an output from receipt, verdict and commit."""

    def edit(record: LastRecord) -> None:
        for document in (record.receipt, record.verdict):
            kept = [item for item in document["subject"] if item["name"] != name]
            assert len(kept) == len(document["subject"]) - 1
            document["subject"][:] = kept
        record.remove(f"results/{record.last.entry.feature}/{name}")

    return edit


def process(**content: Any) -> Edit:
    """Return a change of what the receipt says of the process."""

    def edit(record: LastRecord) -> None:
        for item in value_at(record.receipt, (*DETAILS, "byproducts")):
            if item["name"] == "process":
                item["content"].update(content)

    return edit


def without_byproduct(name: str) -> Edit:
    """Return the removal of a byproduct."""

    def edit(record: LastRecord) -> None:
        byproducts = value_at(record.receipt, (*DETAILS, "byproducts"))
        byproducts[:] = [item for item in byproducts if item["name"] != name]

    return edit


def mutant(kind: str, target: str, **changes: Any) -> Edit:
    """Return a change of what the verdict says of one mutant."""

    def edit(record: LastRecord) -> None:
        for item in record.gate["mutants"]:
            if (item["kind"], item["target"]) == (kind, target):
                item.update(changes)
                return
        raise AssertionError(f"no {kind} {target}: {record.gate['mutants']}")

    return edit


SURVIVED = {"killed": False, "killedBy": [], "outcome": "passed"}


def without_mutant(kind: str, target: str) -> Edit:
    """Return a change by which a mutant was never tried."""

    def edit(record: LastRecord) -> None:
        mutants = record.gate["mutants"]
        kept = [item for item in mutants if (item["kind"], item["target"]) != (kind, target)]
        assert len(kept) == len(mutants) - 1
        mutants[:] = kept

    return edit


def extra_mutant(kind: str, target: str) -> Edit:
    """Return a change by which a mutant was tried that there cannot be."""

    def edit(record: LastRecord) -> None:
        killed = {"killed": True, "outcome": "failed", "reason": ""}
        by = [*record.verdict["predicate"]["passedTests"]][:1]
        item = {"kind": kind, "target": target, **killed, "killedBy": by}
        record.gate["mutants"].append(item)

    return edit


def line(old: str, new: str, kind: str | None = None) -> Edit:
    """Return a change of a passage in the lines of the entry, or of another one of its commit."""

    def edit(record: LastRecord) -> None:
        (record.draft(kind) if kind else record.last).replace(old, new)

    return edit


def without_line(start: str, kind: str | None = None) -> Edit:
    """Return the removal of a line."""

    def edit(record: LastRecord) -> None:
        draft = record.draft(kind) if kind else record.last
        del draft.lines[draft.index(start)]

    return edit


def extra_line(text: str, before: str | None = None, kind: str | None = None) -> Edit:
    """Return the addition of a line, at the end or before another one."""

    def edit(record: LastRecord) -> None:
        draft = record.draft(kind) if kind else record.last
        draft.lines.insert(draft.index(before) if before else len(draft.lines), text)

    return edit


def line_twice(start: str) -> Edit:
    """Return the repetition of a line."""

    def edit(record: LastRecord) -> None:
        number = record.last.index(start)
        record.last.lines.insert(number, record.last.lines[number])

    return edit


def line_moved(start: str, to: int) -> Edit:
    """Return the move of a line."""

    def edit(record: LastRecord) -> None:
        moved = record.last.lines.pop(record.last.index(start))
        record.last.lines.insert(to, moved)

    return edit


def title(text: str, *kinds: str) -> Edit:
    """Return another title of the entry, or of all entries of these kinds."""

    def edit(record: LastRecord) -> None:
        for draft in [record.draft(kind) for kind in kinds] or [record.last]:
            draft.title = text

    return edit


def trailer(name: str, value: str | None) -> Edit:
    """Return another trailer; None: without it."""

    def edit(record: LastRecord) -> None:
        record.trailers.pop(name, None)
        if value is not None:
            record.trailers[name] = value

    return edit


def commit_subject(old: str, new: str) -> Edit:
    """Return another first line of the commit."""

    def edit(record: LastRecord) -> None:
        assert old in record.subject
        record.subject = record.subject.replace(old, new)

    return edit


def elsewhere(word: str, path: str) -> Edit:
    """Return a change by which a line names a copy of its document, beside the true one."""

    def edit(record: LastRecord) -> None:
        true = record.path(word)
        record.files[path] = record.files[true]
        record.last.replace(f" {true}", f" {path}")

    return edit


def both(word: str, old: str, new: str) -> Edit:
    """Return a replacement of a text in a document and in the lines of the entry."""

    def edit(record: LastRecord) -> None:
        path = record.path(word)
        assert old.encode() in record.files[path]
        record.files[path] = record.files[path].replace(old.encode(), new.encode())
        record.last.replace(old, new)

    return edit


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


def assert_named(quick: Quick, record: LastRecord, codes: Collection[str]) -> None:
    """Check that audit exits 3 and names the contradiction, and nothing but it."""
    code, report = audit_report(quick)
    findings = report["findings"]
    assert code == 3, "the contradiction is not named"
    found = {item["code"] for item in findings if item["severity"] == "error"}
    assert found & set(codes), describe(findings)
    numbers = {draft.entry.seq for draft in record.drafts}
    others = [
        item
        for item in findings
        if item["entry"] not in numbers and item["path"] not in record.files
    ]
    assert not others, f"about something else: {describe(others)}"


def check(at: Callable[[Place], Quick], case: Case) -> None:
    quick = at(case.place)
    record = forge(quick, *case.edits)
    assert_named(quick, record, case.codes)


#### the receipt

RECEIPT = "receipt-contradicts"
GATE = gate_of(COMMAND)
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
    "another runner than an earlier lock": case(REPEATED, RECEIPT, dependency("runner")),
    "other code of a command": case(COMMAND, RECEIPT, dependency("code")),
    "other code of a module": case(MODULE, RECEIPT, dependency("code:exp")),
    "other code that a module imports": case(MODULE, RECEIPT, dependency("code:tools")),
    "another config": case(COMMAND, RECEIPT, dependency("settings.yaml")),
    "another input": case(COMMAND, RECEIPT, dependency("input:words", {"gitTree": "ab" * 20})),
    "another kind of digest of an input": case(COMMAND, RECEIPT, dependency("input:words")),
    "another needed feature": case(MODULE, RECEIPT, dependency("feature:Q-001")),
    "another git tree": case(
        COMMAND,
        "receipt-commit",
        lambda record: git_dependency(record).update(gitTree="ab" * 20),
    ),
    "another git digest besides": case(
        COMMAND,
        RECEIPT,
        lambda record: git_dependency(record).update(sha256=OTHER),
    ),
    "no plan": case(COMMAND, RECEIPT, without_dependency("prd/plan.json")),
    "no runner": case(COMMAND, RECEIPT, without_dependency("runner")),
    "no gate": case(COMMAND, RECEIPT, without_dependency(GATE)),
    "no code": case(COMMAND, RECEIPT, without_dependency("code")),
    "no code of the module itself": case(MODULE, RECEIPT, without_dependency("code:exp")),
    "no config": case(COMMAND, RECEIPT, without_dependency("settings.yaml")),
    "no input": case(COMMAND, RECEIPT, without_dependency("input:words")),
    "no needed feature": case(MODULE, RECEIPT, without_dependency("feature:Q-001")),
    "no code that the module imports": case(MODULE, RECEIPT, without_dependency("code:tools")),
    "another digest of a pinned file": case(
        COMMAND, RECEIPT, dependency("input:big", {"sha256:pinned.txt": OTHER})
    ),
    "no digest of a pinned file": case(
        COMMAND, RECEIPT, dependency("input:big", {"sha256:more.txt": OTHER})
    ),
    "a program that its command does not name": case(
        REPEATED, RECEIPT, dependency("program:bin/walk")
    ),
    "an invented input": case(COMMAND, RECEIPT, dependency("input:extra")),
    "an invented feature": case(COMMAND, RECEIPT, dependency("feature:Q-002")),
    "an invented package": case(MODULE, RECEIPT, dependency("code:numpy")),
    "an invented program": case(COMMAND, RECEIPT, dependency("program:bin/true")),
    "an invented file": case(COMMAND, RECEIPT, dependency("README.md")),
    "a dependency twice": case(COMMAND, RECEIPT, dependency_twice("code")),
    "another seed": case(COMMAND, RECEIPT, parameter("seed", 4)),
    "another seed than the plan's everywhere": case(
        COMMAND,
        f"{RECEIPT}|entry-contradicts",
        parameter("seed", 4),
        line("seed 3", "seed 4"),
        line("seed 3", "seed 4", "STARTED"),
    ),
    "another profile": case(COMMAND, RECEIPT, parameter("profile", "large")),
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
    "another option of a module": case(MODULE, RECEIPT, receipt(*PARAMETERS, "argv", 8, to="1")),
    "another tier": case(
        COMMAND,
        RECEIPT,
        receipt(*INTERNAL, "sandbox", "tier", to="bwrap"),
        receipt(*DETAILS, "builder", "id", to="phases/bwrap"),
    ),
    "two tiers: of the builder": case(
        COMMAND, RECEIPT, receipt(*DETAILS, "builder", "id", to="phases/bwrap")
    ),
    "two tiers: of the sandbox": case(
        COMMAND, RECEIPT, receipt(*INTERNAL, "sandbox", "tier", to="bwrap")
    ),
    "a variable of the plan is missing": case(
        COMMAND, RECEIPT, receipt(*INTERNAL, "env", to=["HOME", "TMPDIR"])
    ),
    "exit code 1": case(COMMAND, RECEIPT, process(exitCode=1)),
    "no exit code": case(COMMAND, RECEIPT, process(exitCode=None)),
    "an exit code that is no number": case(COMMAND, RECEIPT, process(exitCode=False)),
    "no process": case(COMMAND, RECEIPT, without_byproduct("process")),
    "other seconds": case(COMMAND, f"{RECEIPT}|entry-contradicts", process(seconds=999.0)),
    "another phase": case(COMMAND, "receipt-foreign", parameter("phase", 2)),
    "another feature": case(COMMAND, "receipt-foreign", parameter("feature", "Q-002")),
    "another attempt": case(COMMAND, "receipt-foreign", parameter("attempt", 2)),
    "another transaction": case(
        COMMAND, "receipt-foreign", receipt(*DETAILS, "metadata", "invocationId", to="ab" * 8)
    ),
    "an output that the plan does not declare": case(
        COMMAND, RECEIPT, undeclared_output("another.md"), lines_follow
    ),
    "an output twice": case(COMMAND, RECEIPT, output_twice("note.md")),
    "a declared output is missing": case(
        COMMAND,
        RECEIPT,
        without_subject("extra.txt"),
        without_mutant("tamper", "extra.txt"),
        without_mutant("content", "extra.txt"),
        lines_follow,
    ),
}


@pytest.mark.parametrize("name", RECEIPTS)
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


@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_receipt_of_a_failed_attempt_is_recomputed_too_i_35(
    at: Callable[[Place], Quick], name: str
) -> None:
    check(at, ATTEMPTS[name])


#### the verdict

VERDICT = "verdict-contradicts"
TAMPERED = ("tamper", "artifacts/numbers.json")
VERDICTS = {
    "a required mutant survived": case(
        COMMAND, VERDICT, mutant(*TAMPERED, **SURVIVED), lines_follow
    ),
    "the measurements' mutant survived": case(
        COMMAND, VERDICT, mutant("measurements", "result.json", **SURVIVED), lines_follow
    ),
    "an empty folder passed": case(MODULE, VERDICT, mutant("empty", "", **SURVIVED), lines_follow),
    "killed, and nothing killed it": case(COMMAND, VERDICT, mutant(*TAMPERED, killedBy=[])),
    "killed, and the run passed": case(COMMAND, VERDICT, mutant(*TAMPERED, outcome="passed")),
    "killed, and the run errored": case(COMMAND, VERDICT, mutant(*TAMPERED, outcome="errored")),
    "killed by a check that there is not": case(
        COMMAND, VERDICT, mutant(*TAMPERED, killedBy=["test_invented"])
    ),
    "no mutant of an output": case(COMMAND, VERDICT, without_mutant(*TAMPERED), lines_follow),
    "no empty mutant": case(COMMAND, VERDICT, without_mutant("empty", ""), lines_follow),
    "no mutant of the measurements": case(
        COMMAND, VERDICT, without_mutant("measurements", "result.json"), lines_follow
    ),
    "no content mutant": case(MODULE, VERDICT, without_mutant("content", "numbers.json")),
    "no mutants": case(COMMAND, VERDICT, judged("mutants", to=[]), lines_follow),
    "an invented mutant": case(COMMAND, VERDICT, extra_mutant("tamper", "x.txt"), lines_follow),
    "a mutant twice": case(COMMAND, VERDICT, extra_mutant(*TAMPERED), lines_follow),
    "an unknown kind of mutant": case(COMMAND, VERDICT, extra_mutant("noise", ""), lines_follow),
    "failed tests": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"].update(failedTests=["test_other"]),
        judged("messages", to={"test_other": "no"}),
        lines_follow,
    ),
    "FAILED": case(COMMAND, VERDICT, predicate("result", "FAILED")),
    "state failed": case(COMMAND, VERDICT, judged("state", to="failed")),
    "state pending": case(COMMAND, VERDICT, judged("state", to="pending")),
    "reasons": case(COMMAND, VERDICT, judged("reasons", to=["this gate cannot fail"])),
    "outcome failed": case(COMMAND, VERDICT, judged("outcome", to="failed")),
    "exit code 1": case(COMMAND, VERDICT, judged("exitCode", to=1)),
    "no exit code": case(COMMAND, VERDICT, judged("exitCode", to=None)),
    "a signal": case(COMMAND, VERDICT, judged("signal", to=9)),
    "messages": case(COMMAND, VERDICT, judged("messages", to={"test_x": "no"})),
    "no test passed": case(COMMAND, VERDICT, predicate("passedTests", []), lines_follow),
    "a test passed twice": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["passedTests"].extend(
            record.verdict["predicate"]["passedTests"]
        ),
        lines_follow,
    ),
    "a shell gate with more checks": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["passedTests"].append("test_more"),
        lines_follow,
    ),
    "another gate's digest": case(
        COMMAND, VERDICT, predicate("configuration", [{"name": GATE, "digest": {"sha256": OTHER}}])
    ),
    "no digest of the gate": case(
        COMMAND, VERDICT, predicate("configuration", [{"name": GATE, "digest": {}}])
    ),
    "another gate": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["configuration"][0].update(name="`true`"),
        lines_follow,
    ),
    "no configuration": case(COMMAND, VERDICT, predicate("configuration", [])),
    "two gates": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["configuration"].append(
            {"name": "`true`", "digest": {"sha256": OTHER}}
        ),
    ),
    "exempt what the plan does not": case(
        COMMAND,
        VERDICT,
        lambda record: record.gate["exempt"].append({"files": "note.md", "reason": "why not"}),
        lines_follow,
    ),
    "not exempt what the plan exempts": case(
        COMMAND, VERDICT, judged("exempt", to=[]), lines_follow
    ),
    "exempt for another reason": case(
        COMMAND, VERDICT, judged("exempt", 0, "reason", to="it is beautiful"), lines_follow
    ),
    "exempt, and so a survivor": case(
        MODULE,
        VERDICT,
        mutant("tamper", "numbers.json", **SURVIVED),
        judged("exempt", to=[{"files": "numbers.json", "reason": "why not"}]),
        lines_follow,
    ),
    "protected by digest only, and judged": case(
        COMMAND, VERDICT, judged("digestOnly", to=["note.md"]), lines_follow
    ),
    "judged, and protected by digest only": case(
        MODULE, VERDICT, mutant("content", "numbers.json", **SURVIVED), lines_follow
    ),
    "coverage of a measurement that there is not": case(
        MODULE,
        VERDICT,
        judged("measurementCoverage", "recomputed", to=["total", "mean"]),
        lines_follow,
    ),
    "no coverage of a measurement that there is": case(
        COMMAND,
        VERDICT,
        judged("measurementCoverage", "claimed", to=[]),
        judged("measurementCoverage", "fraction", to=1.0),
        lines_follow,
    ),
    "a measurement of two levels": case(
        MODULE,
        VERDICT,
        judged("measurementCoverage", "bounded", to=["total"]),
        lines_follow,
    ),
    "another fraction": case(COMMAND, VERDICT, judged("measurementCoverage", "fraction", to=1.0)),
    "no coverage": case(COMMAND, VERDICT, judged("measurementCoverage", to=None), lines_follow),
    "another claim": case(
        COMMAND,
        f"{VERDICT}|prediction-score",
        verdict("predicate", "phases/predictions/v1", 0, "claim", to="the total is great"),
    ),
    "another reason of a prediction": case(
        COMMAND,
        f"{VERDICT}|prediction-score",
        verdict("predicate", "phases/predictions/v1", 1, "reason", to="total is 1; claimed == 1"),
    ),
    "a prediction that held": case(
        COMMAND,
        "prediction-score",
        verdict("predicate", "phases/predictions/v1", 1, "outcome", to="HELD"),
        lines_follow,
    ),
    "no prediction": case(
        COMMAND,
        "prediction-score",
        lambda record: record.verdict["predicate"].update({"phases/predictions/v1": []}),
        lines_follow,
    ),
    "one prediction fewer": case(
        COMMAND,
        "prediction-score",
        lambda record: record.verdict["predicate"]["phases/predictions/v1"].pop(),
        lines_follow,
    ),
    "predictions in another order": case(
        COMMAND,
        "prediction-score",
        lambda record: record.verdict["predicate"]["phases/predictions/v1"].reverse(),
    ),
    "other outputs than the receipt": case(
        COMMAND, "verdict-foreign", lambda record: record.verdict["subject"].pop()
    ),
    "PASSED, of an attempt that failed": case(
        FAILED, f"{VERDICT}|entry-contradicts", predicate("result", "PASSED")
    ),
    "verified, of an attempt that failed": case(
        FAILED,
        f"{VERDICT}|entry-contradicts",
        predicate("result", "PASSED"),
        judged("state", to="verified"),
    ),
    "no reasons, of an attempt that failed": case(
        FAILED, f"{VERDICT}|entry-contradicts", judged("reasons", to=[])
    ),
    "another gate's digest, of an attempt that failed": case(
        FAILED,
        VERDICT,
        verdict("predicate", "configuration", 0, "digest", to={"sha256": OTHER}),
    ),
    "outcome passed, and a test failed": case(FAILED, VERDICT, judged("outcome", to="passed")),
    "exit code 0, and a test failed": case(FAILED, VERDICT, judged("exitCode", to=0)),
    "predictions, of an attempt that failed": case(
        FAILED,
        f"{VERDICT}|prediction-score",
        predicate(
            "phases/predictions/v1",
            [{"id": "x", "claim": "x", "outcome": "HELD", "reason": "x"}],
        ),
    ),
    "other outputs, of an attempt that failed": case(
        FAILED, "verdict-foreign", lambda record: record.verdict["subject"].pop()
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_what_a_verdict_states_is_recomputed_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, VERDICTS[name])


#### the entry

ENTRY = "entry-contradicts"
ENTRIES = {
    "measured 999": case(COMMAND, ENTRY, line("measured total 14", "measured total 999")),
    "measured nothing": case(COMMAND, ENTRY, without_line("measured ")),
    "measured twice": case(COMMAND, ENTRY, line_twice("measured ")),
    "9 checks": case(COMMAND, ENTRY, line("1 passed, 0 failed", "9 passed, 0 failed")),
    "1 check failed": case(COMMAND, ENTRY, line("1 passed, 0 failed", "1 passed, 1 failed")),
    "another gate": case(
        FAILED, ENTRY, line("gate gates/test_small.py", "gate gates/test_strict.py")
    ),
    "9 predictions held": case(COMMAND, ENTRY, line("1 held, 1 missed", "9 held")),
    "no predictions": case(COMMAND, ENTRY, without_line("predictions: ")),
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
    "no coverage": case(COMMAND, ENTRY, without_line("measurement coverage ")),
    "more mutants killed": case(COMMAND, ENTRY, line("mutants 4/5", "mutants 5/5")),
    "more mutants": case(COMMAND, ENTRY, line("mutants 4/5", "mutants 44/45")),
    "no mutants": case(COMMAND, ENTRY, without_line("mutants ")),
    "exempt nothing": case(COMMAND, ENTRY, without_line("exempt by the plan: ")),
    "exempt more": case(COMMAND, ENTRY, extra_line("exempt by the plan: a: b", "receipt ")),
    "protected by digest only": case(
        COMMAND, ENTRY, extra_line("protected by digest only: note.md", "exempt ")
    ),
    "999 seconds": case(COMMAND, ENTRY, line("for 1 s", "for 999 s")),
    "another seed": case(COMMAND, ENTRY, line("seed 3", "seed 4")),
    "another profile": case(COMMAND, ENTRY, line("profile small", "profile large")),
    "another sandbox": case(COMMAND, ENTRY, line("sandbox none", "sandbox bwrap")),
    "another attempt": case(COMMAND, ENTRY, line("attempt 1,", "attempt 2,")),
    "another program": case(COMMAND, ENTRY, line("ran sh worker.sh", "ran sh other.sh")),
    "ran nothing": case(COMMAND, ENTRY, without_line("ran ")),
    "ran twice": case(COMMAND, ENTRY, line_twice("ran ")),
    "a line of no known form": case(COMMAND, ENTRY, extra_line("reviewed by an expert")),
    "a failed check": case(COMMAND, ENTRY, extra_line("failing test_x: no", "receipt ")),
    "a reason": case(COMMAND, ENTRY, extra_line("reason it is so", "receipt ")),
    "a reset": case(COMMAND, ENTRY, extra_line("reset: Q-002")),
    "another order": case(COMMAND, ENTRY, line_moved("measured ", 0)),
    "a discarded file at the end": case(COMMAND, ENTRY, line_moved("discarded ", 5)),
    "the receipt twice": case(COMMAND, ENTRY, line_twice("receipt ")),
    "the verdict before the receipt": case(COMMAND, ENTRY, line_moved("verdict ", 8)),
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
    "FAILED: no reason": case(FAILED, ENTRY, without_line("reason ")),
    "FAILED: predictions": case(FAILED, ENTRY, extra_line("predictions: 1 held", "gate ")),
    "FAILED: a receipt": case(
        FAILED, ENTRY, extra_line(f"receipt sha256:{OTHER} results/Q-003/receipt.json")
    ),
    "FAILED: 999 seconds": case(FAILED, ENTRY, line("for 1 s", "for 999 s")),
    "FAILED: another title": case(FAILED, ENTRY, title("Count everything")),
    "FAILED: measured twice": case(FAILED, ENTRY, line_twice("measured ")),
    "FAILED: mutants": case(FAILED, ENTRY, extra_line("mutants 3/3 killed", "failing ")),
    "FAILED: another record file": case(
        FAILED, ENTRY, elsewhere("attempt-record", "results/Q-003/attempts/7.json")
    ),
    "ERRORED: another reason": case(ERRORED, ENTRY, line("ended with exit 1", "ran out of luck")),
    "ERRORED: measured": case(ERRORED, ENTRY, extra_line("measured total 14", "reason ")),
    "ERRORED: a gate": case(
        ERRORED, ENTRY, extra_line("gate x: 9 passed, 0 failed", "attempt-record ")
    ),
    "the record says verified": case(
        FAILED, ENTRY, in_document("attempt-record", "state", to="verified")
    ),
    "the record says errored": case(
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
    "STARTED: another profile": case(
        COMMAND, ENTRY, line("profile small", "profile large", "STARTED")
    ),
    "STARTED: another program": case(
        COMMAND, ENTRY, line("sh worker.sh", "sh other.sh", "STARTED")
    ),
    "STARTED: another sandbox": case(
        COMMAND, ENTRY, line("sandbox none", "sandbox bwrap", "STARTED")
    ),
    "STARTED: one line more": case(COMMAND, ENTRY, extra_line("measured 9", kind="STARTED")),
    "STARTED: no transaction": case(
        COMMAND, f"{ENTRY}|receipt-foreign", without_line("txn ", "STARTED")
    ),
    "INTERRUPTED: it measured": case(INTERRUPTED, ENTRY, extra_line("measured total 14")),
    "INTERRUPTED: no reason": case(INTERRUPTED, ENTRY, without_line("reason ")),
    "INTERRUPTED: another title": case(INTERRUPTED, ENTRY, title("Count everything")),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_lines_of_an_entry_follow_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, ENTRIES[name])


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
    "no attempt": case(COMMAND, "commit-trailers", trailer("Phases-Attempt", None)),
    "another phase": case(COMMAND, "commit-trailers", trailer("Phases-Phase", "2")),
    "no phase": case(COMMAND, "commit-trailers", trailer("Phases-Phase", None)),
    "another feature": case(COMMAND, "commit-trailers", trailer("Phases-Feature", "Q-002")),
    "no feature": case(COMMAND, "commit-trailers", trailer("Phases-Feature", None)),
    "another receipt": case(
        COMMAND, "commit-trailers", trailer("Phases-Receipt", f"sha256:{OTHER}")
    ),
    "no receipt": case(COMMAND, "commit-trailers", trailer("Phases-Receipt", None)),
    "another transaction": case(COMMAND, "commit-trailers", trailer("Phases-Txn", "ab" * 8)),
    "no transaction": case(COMMAND, "commit-trailers", trailer("Phases-Txn", None)),
    "garbage": case(COMMAND, "commit-trailers", trailer("Phases-Attempt", "9" * 5000)),
    "another receipt of a failed attempt": case(
        FAILED, "commit-trailers", trailer("Phases-Receipt", f"sha256:{OTHER}")
    ),
    "no receipt of a failed attempt": case(
        ERRORED, "commit-trailers", trailer("Phases-Receipt", None)
    ),
    "a feature of a phase": case(HALTED, "commit-trailers", trailer("Phases-Feature", "Q-001")),
    "a receipt of a phase": case(
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
    "its subject: another title": case(
        COMMAND, "commit-trailers", commit_subject("Count 1", "Count 2")
    ),
    "its subject: approved": case(
        HALTED, "commit-trailers", commit_subject("awaiting approval", "approved")
    ),
}


@pytest.mark.parametrize("name", TRAILERS)
def test_what_a_commit_says_of_its_entry_follows_i_35(
    at: Callable[[Place], Quick], name: str
) -> None:
    check(at, TRAILERS[name])


#### locks, halts, decisions

LOCK = "lock-contradicts"
REQUEST = "request-contradicts"
DECISION = f"approval-invalid|{ENTRY}"
PHASES = {
    "GENESIS: another project": case(
        COMMAND, ENTRY, line("project Eventful", "project Uneventful", "GENESIS")
    ),
    "GENESIS: another history": case(
        COMMAND,
        "genesis-foreign",
        lambda record: record.draft("GENESIS").lines.__setitem__(1, "root " + "ab" * 20),
    ),
    "GENESIS: one line more": case(COMMAND, ENTRY, extra_line("approved by me", kind="GENESIS")),
    "LOCKED: it asks for a signature": case(
        COMMAND, f"{LOCK}|approval-lowered", line("approval presence", "approval signed", "LOCKED")
    ),
    "LOCKED: another approver": case(
        COMMAND, LOCK, extra_line("approver another-user", "head ", "LOCKED")
    ),
    "LOCKED: nothing of approvals": case(COMMAND, LOCK, without_line("approval ", "LOCKED")),
    "LOCKED: a line more": case(
        COMMAND, f"{LOCK}|{ENTRY}", extra_line("reset: Q-001", kind="LOCKED")
    ),
    "LOCKED: another part": case(
        COMMAND, LOCK, in_document("lock", "components", "plan: Q-001", to=OTHER)
    ),
    "LOCKED: another gate": case(
        COMMAND, LOCK, in_document("lock", "components", "gates/test_small.py", to=OTHER)
    ),
    "LOCKED: an invented part": case(
        COMMAND, LOCK, in_document("lock", "components", "gates/more.py", to=OTHER)
    ),
    "LOCKED: a part less": case(
        COMMAND, LOCK, lambda record: record.document("lock")["components"].pop("settings.yaml")
    ),
    "LOCKED: another phase": case(COMMAND, LOCK, in_document("lock", "phase", to=2)),
    "HALTED: more checks": case(HALTED, ENTRY, line("1 passed", "9 passed")),
    "HALTED: more mutants": case(HALTED, ENTRY, line("mutants 3/3", "mutants 9/9")),
    "HALTED: no gate": case(HALTED, ENTRY, without_line("gate ")),
    "HALTED: another gate": case(HALTED, ENTRY, line("Q-001/result.json &&", "Q-001/x.json &&")),
    "HALTED: a failed check": case(HALTED, ENTRY, extra_line("failing x: no", "verdict ")),
    "HALTED: other counts": case(
        HALTED, f"{ENTRY}|halt-contradicts", line("2 verified", "1 verified, 1 waived")
    ),
    "HALTED: another next command": case(HALTED, ENTRY, line("approve 1", "approve 2")),
    "HALTED: no next command": case(HALTED, ENTRY, without_line("next: ")),
    "HALTED: no commit": case(HALTED, f"{ENTRY}|{REQUEST}", without_line("head ")),
    "HALTED: another commit": case(
        HALTED,
        f"{ENTRY}|{REQUEST}",
        lambda record: record.last.replace(
            record.last.lines[record.last.index("head ")],
            "head " + record.toy.git("rev-parse", "HEAD~3"),
        ),
    ),
    "HALTED: a line more": case(HALTED, ENTRY, extra_line("measured total 14")),
    "HALTED: no verdict": case(HALTED, f"{ENTRY}|{REQUEST}", without_line("verdict ")),
    "HALTED: another request file": case(
        HALTED, f"{ENTRY}|{REQUEST}", elsewhere("request", "results/phase-1/r.json")
    ),
    "request: another title": case(
        HALTED, REQUEST, in_document("request", "predicate", "features", 0, "title", to="Count all")
    ),
    "request: fewer attempts": case(
        HALTED, REQUEST, in_document("request", "predicate", "features", 1, "attempts", to=1)
    ),
    "request: better coverage": case(
        HALTED,
        REQUEST,
        in_document("request", "predicate", "features", 0, "measurementCoverage", to=[2, 0, 2]),
    ),
    "request: another state": case(
        HALTED_WAIVED,
        REQUEST,
        in_document("request", "predicate", "features", 0, "state", to="verified"),
    ),
    "request: another receipt": case(
        HALTED, REQUEST, in_document("request", "predicate", "features", 0, "receipt", to=OTHER)
    ),
    "request: a feature less": case(
        HALTED,
        REQUEST,
        lambda record: record.document("request")["predicate"]["features"].pop(),
    ),
    "request: another subject": case(
        HALTED, REQUEST, in_document("request", "subject", 0, "digest", to={"sha256": OTHER})
    ),
    "request: no subject": case(HALTED, REQUEST, in_document("request", "subject", to=[])),
    "request: another phase": case(
        HALTED, REQUEST, in_document("request", "predicate", "phase", "id", to=2)
    ),
    "request: another name": case(
        HALTED, REQUEST, in_document("request", "predicate", "phase", "name", to="Guessing")
    ),
    "request: another attempt": case(
        HALTED, REQUEST, in_document("request", "predicate", "attempt", to=2)
    ),
    "request: another lock": case(
        HALTED, REQUEST, in_document("request", "predicate", "lock", to={"sha256": OTHER})
    ),
    "request: another gate": case(
        HALTED,
        REQUEST,
        in_document("request", "predicate", "gates", 0, "digest", to={"sha256": OTHER}),
    ),
    "request: a gate less": case(
        HALTED, REQUEST, lambda record: record.document("request")["predicate"]["gates"].pop()
    ),
    "request: another exit verdict": case(
        HALTED, REQUEST, in_document("request", "predicate", "exitVerdict", to={"sha256": OTHER})
    ),
    "request: no exit verdict": case(
        HALTED, REQUEST, in_document("request", "predicate", "exitVerdict", to=None)
    ),
    "request: another transaction": case(
        HALTED,
        f"{REQUEST}|commit-trailers",
        in_document("request", "predicate", "txn", to="ab" * 8),
    ),
    "request: an older commit": case(
        HALTED,
        REQUEST,
        lambda record: record.document("request")["predicate"]["commit"].update(
            gitCommit=record.toy.git("rev-parse", "HEAD~3")
        ),
    ),
    "exit gates: another phase": case(HALTED, VERDICT, in_document("verdict", "phase", to=2)),
    "exit gates: a mutant survived": case(
        HALTED, f"{VERDICT}|{REQUEST}", mutant("measurements", "Q-001", **SURVIVED), lines_follow
    ),
    "exit gates: no mutant of a feature": case(
        HALTED, VERDICT, without_mutant("measurements", "Q-001"), lines_follow
    ),
    "exit gates: no empty mutant": case(HALTED, VERDICT, without_mutant("empty", ""), lines_follow),
    "exit gates: another gate": case(
        HALTED, VERDICT, verdict("predicate", "configuration", 0, "digest", to={"sha256": OTHER})
    ),
    "exit gates: other outputs": case(
        HALTED, f"{VERDICT}|verdict-foreign", verdict("subject", 0, "digest", to={"sha256": OTHER})
    ),
    "exit gates: an output less": case(
        HALTED, f"{VERDICT}|verdict-foreign", lambda record: record.verdict["subject"].pop()
    ),
    "exit gates: no verdict": case(
        HALTED, f"{VERDICT}|{REQUEST}|{ENTRY}", in_document("verdict", "verdicts", to=[])
    ),
    "exit gates: two verdicts of one": case(
        HALTED,
        f"{VERDICT}|{REQUEST}|{ENTRY}",
        lambda record: record.document("verdict")["verdicts"].append(record.verdict),
    ),
    "exit gates: exempt": case(
        HALTED,
        VERDICT,
        judged("exempt", to=[{"files": "*", "reason": "why not"}]),
        lines_follow,
    ),
    "exit gates: exit code 1": case(HALTED, VERDICT, judged("exitCode", to=1)),
    "exit gates: state failed": case(HALTED, f"{VERDICT}|{REQUEST}", judged("state", to="failed")),
    "exit gates failed: nothing failed": case(
        EXIT_FAILED, f"{VERDICT}|{ENTRY}", predicate("result", "PASSED")
    ),
    "exit gates failed: more checks": case(EXIT_FAILED, ENTRY, line("0 passed", "9 passed")),
    "exit gates failed: another reason": case(
        EXIT_FAILED, ENTRY, line("reason exit 1", "reason bad luck")
    ),
    "exit gates failed: no failed check": case(EXIT_FAILED, ENTRY, without_line("failing ")),
    "exit gates failed: another gate": case(
        EXIT_FAILED,
        VERDICT,
        verdict("predicate", "configuration", 0, "digest", to={"sha256": OTHER}),
    ),
    "APPROVED: by another user": case(APPROVED, DECISION, line("by ", "by nobody but ")),
    "APPROVED: another assurance": case(
        APPROVED, DECISION, line("assurance presence", "assurance signed")
    ),
    "APPROVED: another checkpoint": case(
        APPROVED,
        DECISION,
        lambda record: record.last.lines.__setitem__(
            record.last.index("checkpoint "), "checkpoint " + record.toy.git("rev-parse", "HEAD~2")
        ),
    ),
    "APPROVED: another commit": case(
        APPROVED,
        DECISION,
        lambda record: record.last.lines.__setitem__(
            record.last.index("head "), "head " + record.toy.git("rev-parse", "HEAD~4")
        ),
    ),
    "APPROVED: another request": case(
        APPROVED,
        DECISION,
        lambda record: record.last.lines.__setitem__(
            record.last.index("request "), f"request sha256:{OTHER} results/phase-1/request.json"
        ),
    ),
    "APPROVED: a reason": case(APPROVED, DECISION, extra_line("reason excellent work", "request ")),
    "APPROVED: a line more": case(APPROVED, DECISION, extra_line("measured total 14")),
    "APPROVED: no name": case(APPROVED, DECISION, without_line("by ")),
    "record: by another user": case(
        APPROVED, DECISION, in_document("record", "predicate", "by", "user", to="somebody")
    ),
    "record: at another terminal": case(
        APPROVED, DECISION, in_document("record", "predicate", "by", "tty", to="/dev/pts/99")
    ),
    "record: another reason": case(
        REJECTED, DECISION, in_document("record", "predicate", "reason", to="it is ugly")
    ),
    "record: another name of the phase": case(
        APPROVED, DECISION, in_document("record", "predicate", "phase", "name", to="Guessing")
    ),
    "record: another text of what is not proved": case(
        APPROVED, DECISION, in_document("record", "predicate", "notProved", to="All is proved.")
    ),
    "record: another request": case(
        APPROVED,
        DECISION,
        in_document("record", "predicate", "request", "digest", to={"sha256": OTHER}),
    ),
    "REJECTED: another reason": case(REJECTED, DECISION, line("count once more", "well done")),
    "REJECTED: no reason": case(REJECTED, DECISION, without_line("reason ")),
    "WAIVED: another state before": case(
        WAIVED, DECISION, line("no attempt under this lock", "9 attempts under this lock")
    ),
    "WAIVED: no state before": case(WAIVED, DECISION, without_line("previous state: ")),
    "WAIVED: another reason": case(WAIVED, DECISION, line("no such number", "it is fine")),
    "WAIVED: another title": case(WAIVED, DECISION, title("Count everything")),
    "RELOCKED: another reason": case(RELOCKED, DECISION, line("a better title", "a typo")),
    "RELOCKED: by another user": case(
        RELOCKED, DECISION, line("relocked by ", "relocked by nobody but ")
    ),
    "RELOCKED: another commit": case(
        RELOCKED,
        f"{DECISION}|{LOCK}",
        lambda record: record.last.lines.__setitem__(
            record.last.index("head "), "head " + record.toy.git("rev-parse", "HEAD~2")
        ),
    ),
}


@pytest.mark.parametrize("name", PHASES)
def test_locks_halts_and_decisions_follow_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, PHASES[name])
