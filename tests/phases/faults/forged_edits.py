"""What an adversary changes in a record, and what the audit must say of it.

Each case is one contradiction in a commit that is consistent otherwise (`forged_record.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from eventful import eventful_plan
from forged_record import Edit, LastRecord, Place, audit_report, describe, forge
from quick import Quick

from phases.base import durable
from tests.soak import mark_soak

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

RECEIPT = "receipt-contradicts"
VERDICT = "verdict-contradicts"
ENTRY = "entry-contradicts"
"""Codes of findings."""
OTHER = "ab" * 32
"""A digest of nothing."""
PARAMETERS = ("predicate", "buildDefinition", "externalParameters")
INTERNAL = ("predicate", "buildDefinition", "internalParameters")
DEPENDENCIES = ("predicate", "buildDefinition", "resolvedDependencies")
DETAILS = ("predicate", "runDetails")
ENV = (*INTERNAL, "env")


class Case(NamedTuple):
    """A contradiction: where, what, and the codes of the findings that may name it."""

    place: Place
    edits: Sequence[Edit]
    codes: Collection[str]
    is_rare: bool = False
    """Whether it is a variant that `make soak` alone tries."""


def case(place: Place, code: str, *edits: Edit) -> Case:
    """Return a case; `code` may be several, with `|` between them."""
    return Case(place, edits, code.split("|"))


def rare(place: Place, code: str, *edits: Edit) -> Case:
    """Return a case that is a variant of another one."""
    return case(place, code, *edits)._replace(is_rare=True)


def names_of(cases: Mapping[str, Case]) -> list[Any]:
    """Return the names of cases as parameters of a test."""
    return mark_soak(cases, short=[name for name in cases if not cases[name].is_rare])


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


GATE = gate_of(COMMAND)


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


def other_digest(word: str, kind: str | None = None) -> Edit:
    """Return a change by which a line names its document by another digest than the true one."""

    def edit(record: LastRecord) -> None:
        draft = record.draft(kind) if kind else record.last
        draft.lines[draft.index(f"{word} sha256:")] = f"{word} sha256:{OTHER} {record.path(word)}"

    return edit


def both(word: str, old: str, new: str) -> Edit:
    """Return a replacement of a text in a document and in the lines of the entry."""

    def edit(record: LastRecord) -> None:
        path = record.path(word)
        assert old.encode() in record.files[path]
        record.files[path] = record.files[path].replace(old.encode(), new.encode())
        record.last.replace(old, new)

    return edit


#### what the audit must say


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
