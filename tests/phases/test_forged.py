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
from eventful import make_eventful
from forged_record import Edit, LastRecord, audit_report, describe, forge, rewind, unchanged
from quick import Quick

from phases.base import durable

Place = tuple[str, str | None, int]
"""Kind and feature of the entry whose commit is forged, and which of them."""

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


@pytest.fixture(scope="session")
def _eventful(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    return make_eventful(tmp_path_factory.mktemp("eventful") / "quick")


@pytest.fixture(scope="session")
def _rewound(
    _eventful: Quick, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Place], Quick]:
    """Return a function that returns a repository whose last record is the one of a place."""
    made: dict[Place, Quick] = {}

    def rewound(place: Place) -> Quick:
        if place not in made:
            made[place] = _eventful.copy(tmp_path_factory.mktemp("rewound") / "quick")
            kind, feature, number = place
            rewind(made[place], kind, feature, number=number)
        return made[place]

    return rewound


@pytest.fixture
def at(_rewound: Callable[[Place], Quick], tmp_path: Path) -> Callable[[Place], Quick]:
    """Return a function that returns a copy of it."""
    return lambda place: _rewound(place).copy(tmp_path / "quick")


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


def gate_of(place: Place) -> str:
    """Return the name of a feature's gate, as receipt and verdict name it."""
    from eventful import eventful_plan

    for phase in eventful_plan()["phases"]:
        for feature in phase["features"]:
            if feature["id"] == place[1]:
                gate = feature["gate"]
                return str(gate.get("pytest") or f"`{gate['shell']}`")
    raise AssertionError(place)


def subject(name: str, sha256: str = OTHER) -> Edit:
    """Return the addition of an output to receipt and verdict."""

    def edit(record: LastRecord) -> None:
        for document in (record.receipt, record.verdict):
            document["subject"].append({"name": name, "digest": {"sha256": sha256}})

    return edit


def without_subject(name: str) -> Edit:
    """Return the removal of an output from receipt, verdict and commit."""

    def edit(record: LastRecord) -> None:
        for document in (record.receipt, record.verdict):
            kept = [item for item in document["subject"] if item["name"] != name]
            assert len(kept) == len(document["subject"]) - 1
            document["subject"][:] = kept

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
    others = [item for item in findings if item["entry"] not in numbers]
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
        lambda record: next(
            item for item in value_at(record.receipt, DEPENDENCIES) if item["uri"] == "git"
        )["digest"].update(gitTree="ab" * 20),
    ),
    "another git digest besides": case(
        COMMAND,
        RECEIPT,
        lambda record: next(
            item for item in value_at(record.receipt, DEPENDENCIES) if item["uri"] == "git"
        )["digest"].update(sha256=OTHER),
    ),
    "no plan": case(COMMAND, RECEIPT, without_dependency("prd/plan.json")),
    "no runner": case(COMMAND, RECEIPT, without_dependency("runner")),
    "no gate": case(COMMAND, RECEIPT, without_dependency(GATE)),
    "no code": case(COMMAND, RECEIPT, without_dependency("code")),
    "no code of the module itself": case(MODULE, RECEIPT, without_dependency("code:exp")),
    "no config": case(COMMAND, RECEIPT, without_dependency("settings.yaml")),
    "no input": case(COMMAND, RECEIPT, without_dependency("input:words")),
    "no needed feature": case(MODULE, RECEIPT, without_dependency("feature:Q-001")),
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
    "other words of a command": case(COMMAND, RECEIPT, parameter("argv", ["/bin/sh", "-c", "true"])),
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
        COMMAND, RECEIPT, subject("artifacts.md"), lines_follow
    ),
    "an output twice": case(COMMAND, RECEIPT, subject("note.md")),
    "a declared output is missing": case(
        COMMAND,
        RECEIPT,
        without_subject("extra.txt"),
        without_mutant("tamper", "extra.txt"),
        without_mutant("content", "extra.txt"),
        lines_follow,
    ),
}
EXTRA_OUTPUT = "an output that the plan does not declare"


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
        lambda record: next(
            item for item in value_at(record.receipt, DEPENDENCIES) if item["uri"] == "git"
        )["digest"].update(gitTree="ab" * 20),
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
