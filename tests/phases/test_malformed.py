"""I-36: a malformed document is a finding, never a traceback, and never stops the other checks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from forged_record import LastRecord, Place, audit_report, describe, encode, forge
from quick import Quick

from phases.base import durable
from tests.soak import mark_soak

CONTENTS = {
    "an object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"text"',
    "nothing": b"",
    "no JSON": b"approved by me\n",
    "half of it": b'{"_type": "https://in-toto.io/Statement/v1",',
    "no UTF-8": b"\xff\xfe{}",
    "a NUL": b"{}\0",
    "1e999": b'{"a": 1e999}',
    "10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "NaN": b'{"a": NaN}',
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "half a surrogate": b'{"a": "\\ud800"}',
    "a name twice": b'{"a": 1, "a": 2}',
}
COMMON = ("an object", "a list", "nothing", "no UTF-8", "nested", "half a surrogate")

COMMAND: Place = ("VERIFIED", "Q-001", 0)
LATER: Place = ("VERIFIED", "Q-002", 0)
FAILED: Place = ("FAILED", "Q-003", 0)
ERRORED: Place = ("ERRORED", "Q-002", 0)
HALTED: Place = ("HALTED", None, 0)
APPROVED: Place = ("APPROVED", None, 0)
WAIVED: Place = ("WAIVED", None, 0)
RELOCKED: Place = ("LOCKED", None, 0)
CODES = {
    "receipt": {"receipt-changed"},
    "verdict": {"verdict-changed"},
    "attempt-record": {"named-file-changed", "entry-contradicts"},
    "lock": {"lock-changed"},
    "request": {"request-contradicts"},
    "record": {"approval-invalid"},
    "exit verdict": {"verdict-contradicts", "verdict-changed", "request-contradicts"},
    "result.json": {"result-changed"},
}
"""Document -> codes by which it may be named."""
ANY = {
    *set().union(*CODES.values()),
    "receipt-contradicts",
    "receipt-foreign",
    "receipt-commit",
    "verdict-foreign",
    "lock-contradicts",
    "prediction-score",
    "artifact-changed",
}
"""What a value that is none may be called."""
NOTE = "results/Q-001/note.md"


def forge_bytes(quick: Quick, word: str, data: bytes) -> LastRecord:
    """Put bytes in the place of a document of the last record; all digests follow."""

    def edit(record: LastRecord) -> None:
        path = record.path("verdict" if word == "exit verdict" else word)
        record.files[path] = data

    return forge(quick, edit)


def assert_named(quick: Quick, record: LastRecord, codes: set[str]) -> None:
    """Check that audit names it, and an unrelated change of another entry in the same report."""
    file = quick.root / NOTE
    file.write_bytes(file.read_bytes() + b"more\n")
    code, report = audit_report(quick)
    assert code == 3
    findings = report["findings"]
    numbers = {draft.entry.seq for draft in record.drafts}
    own = {item["code"] for item in findings if item["entry"] in numbers}
    assert own & codes, describe(findings)
    unrelated = {item["code"] for item in findings if item["path"] == NOTE}
    assert "result-changed" in unrelated, f"the other checks did not run: {describe(findings)}"
    quick.call("status", code=None)  # no traceback


CASES = [
    *[("receipt", LATER, content) for content in CONTENTS],
    *[("verdict", LATER, content) for content in COMMON],
    *[("attempt-record", FAILED, content) for content in COMMON],
    *[("lock", RELOCKED, content) for content in COMMON],
    *[("request", HALTED, content) for content in COMMON],
    *[("record", APPROVED, content) for content in COMMON],
    *[("record", WAIVED, content) for content in ("an object", "nested")],
    *[("exit verdict", HALTED, content) for content in COMMON],
]


@pytest.mark.parametrize(
    ("word", "place", "content"),
    mark_soak(CASES, short=[item for item in CASES if item[2] in COMMON]),
    ids=str,
)
def test_a_document_that_is_none_is_a_finding_i_36(
    at: Callable[[Place], Quick], word: str, place: Place, content: str
) -> None:
    quick = at(place)
    record = forge_bytes(quick, word, CONTENTS[content])
    assert_named(quick, record, CODES[word])


@pytest.mark.parametrize(
    "data",
    [
        *[CONTENTS[content] for content in COMMON if content != "an object"],
        b'{"measurements": []}',
        b'{"measurements": {"total": {"value": {"a": []}, "n": [[]], "unit": 3, "stderr": "x"}}}',
        b'{"measurements": {"total": {"value": 1e308, "n": 1e308, "stderr": -1}}, "headline": 1}',
        b'{"measurements": {"' + b"t" * 100_000 + b'": 1}}',
    ],
    ids=lambda data: ascii(data[:30]),
)
def test_a_result_that_is_none_is_a_finding_i_36(at: Callable[[Place], Quick], data: bytes) -> None:
    def edit(record: LastRecord) -> None:
        record.files["results/Q-002/result.json"] = data
        for document in (record.receipt, record.verdict):
            for item in document["subject"]:
                if item["name"] == "result.json":
                    item["digest"]["sha256"] = durable.sha256(data)

    quick = at(LATER)
    record = forge(quick, edit)
    codes = {"result-changed", "prediction-score", "verdict-contradicts", "entry-contradicts"}
    assert_named(quick, record, codes)


#### documents of the right form with values that are none

HUGE = int("9" * 4000)
BUILD = ("predicate", "buildDefinition")
PARAMETERS = (*BUILD, "externalParameters")
GATE = ("predicate", "phases/gate/v1")
VALUES: dict[str, tuple[str, Place, tuple[str | int, ...], Any]] = {
    "a huge seed": ("receipt", LATER, (*PARAMETERS, "seed"), HUGE),
    "a huge attempt": ("receipt", LATER, (*PARAMETERS, "attempt"), HUGE),
    "a feature with a NUL": ("receipt", LATER, (*PARAMETERS, "feature"), "Q\0-001"),
    "a path as a feature": ("receipt", LATER, (*PARAMETERS, "feature"), "../../etc"),
    "no words": ("receipt", LATER, (*PARAMETERS, "argv"), []),
    "no dependencies": ("receipt", LATER, (*BUILD, "resolvedDependencies"), []),
    "a dependency without a name": ("receipt", LATER, (*BUILD, "resolvedDependencies", 0), {}),
    "a dependency without a digest": (
        "receipt",
        LATER,
        (*BUILD, "resolvedDependencies", 0),
        {"uri": "code:exp"},
    ),
    "no byproducts": ("receipt", LATER, ("predicate", "runDetails", "byproducts"), []),
    "a process without content": (
        "receipt",
        LATER,
        ("predicate", "runDetails", "byproducts"),
        [{"name": "process"}],
    ),
    "seconds that are a text": (
        "receipt",
        LATER,
        ("predicate", "runDetails", "byproducts", 1, "content", "seconds"),
        "1",
    ),
    "seconds that are a list": (
        "receipt",
        LATER,
        ("predicate", "runDetails", "byproducts", 1, "content", "seconds"),
        [1],
    ),
    "seconds without end": (
        "receipt",
        LATER,
        ("predicate", "runDetails", "byproducts", 1, "content", "seconds"),
        1e308,
    ),
    "huge seconds": (
        "receipt",
        LATER,
        ("predicate", "runDetails", "byproducts", 1, "content", "seconds"),
        HUGE,
    ),
    "an exit code that is a list": (
        "receipt",
        LATER,
        ("predicate", "runDetails", "byproducts", 1, "content", "exitCode"),
        [0],
    ),
    "no subject": ("receipt", LATER, ("subject",), []),
    "a subject without a name": ("receipt", LATER, ("subject", 0), {"digest": {"sha256": "ab"}}),
    "a digest that is a path": (
        "receipt",
        LATER,
        ("subject", 0),
        {"name": "artifacts/x.json", "digest": {"sha256": "/etc/passwd"}},
    ),
    "a digest with a NUL": (
        "receipt",
        LATER,
        ("subject", 0),
        {"name": "artifacts/x.json", "digest": {"sha256": "a\0b"}},
    ),
    "an endless digest": (
        "receipt",
        LATER,
        ("subject", 0),
        {"name": "artifacts/x.json", "digest": {"sha256": "a" * 5000}},
    ),
    "no tests and no mutants": ("verdict", LATER, (*GATE, "mutants"), []),
    "a huge fraction": ("verdict", LATER, (*GATE, "measurementCoverage", "fraction"), HUGE),
    "no configuration": ("verdict", LATER, ("predicate", "configuration"), []),
    "a configuration of nothing": ("verdict", LATER, ("predicate", "configuration"), [{}]),
    "exempt by no pattern": (
        "verdict",
        LATER,
        (*GATE, "exempt"),
        [{"files": "[" * 500 + "**/" * 500, "reason": "\u202e"}],
    ),
    "a part with a NUL": ("lock", RELOCKED, ("components", "a\0b"), "ab" * 32),
    "a part outside": ("lock", RELOCKED, ("components", "../../etc/passwd"), "ab" * 32),
    "a part that is an option": ("lock", RELOCKED, ("components", "--help"), "ab" * 32),
    "no parts": ("lock", RELOCKED, ("components",), {}),
    "another schema": ("lock", RELOCKED, ("schema",), 2),
    "a commit that is an option": (
        "request",
        HALTED,
        ("predicate", "commit", "gitCommit"),
        "--help",
    ),
    "a commit with a NUL": ("request", HALTED, ("predicate", "commit", "gitCommit"), "a\0b"),
    "an absent commit": ("request", HALTED, ("predicate", "commit", "gitCommit"), "ab" * 20),
    "a huge phase": ("request", HALTED, ("predicate", "phase", "id"), HUGE),
    "no features": ("request", HALTED, ("predicate", "features"), []),
    "a gate without a name": ("request", HALTED, ("predicate", "gates"), [{}]),
    "no verdicts": ("exit verdict", HALTED, ("verdicts",), []),
    "no record of a phase": ("record", APPROVED, ("predicate", "phase", "id"), HUGE),
    "a record of an absent commit": (
        "record",
        APPROVED,
        ("subject", 0, "digest", "gitCommit"),
        "ab" * 20,
    ),
    "a huge attempt of a record": ("attempt-record", FAILED, ("attempt",), HUGE),
    "no receipt in a record": ("attempt-record", FAILED, ("receipt",), None),
    "a log with half a surrogate": ("attempt-record", FAILED, ("logTail",), ["\ud800"]),
}


RARE = (
    "a huge attempt",
    "a path as a feature",
    "no dependencies",
    "a dependency without a digest",
    "no byproducts",
    "seconds that are a list",
    "huge seconds",
    "no subject",
    "a digest with a NUL",
    "no configuration",
    "a part outside",
    "no parts",
    "another schema",
    "a commit with a NUL",
    "a huge phase",
    "no record of a phase",
    "a huge attempt of a record",
)


@pytest.mark.parametrize("name", mark_soak(VALUES, short=VALUES.keys() - {*RARE}))
def test_a_value_that_is_none_is_a_finding_i_36(at: Callable[[Place], Quick], name: str) -> None:
    word, place, keys, value = VALUES[name]

    def edit(record: LastRecord) -> None:
        document = part = record.document("verdict" if word == "exit verdict" else word)
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        if isinstance(value, list) and "\ud800" in value:  # only escaped it is UTF-8
            record.files[record.path(word)] = json.dumps(document, indent=1).encode()
            record.forget(word)

    quick = at(place)
    record = forge(quick, edit)
    assert_named(quick, record, ANY)


#### history


def test_a_lock_of_an_absent_commit_is_a_finding_i_36(at: Callable[[Place], Quick]) -> None:
    def edit(record: LastRecord) -> None:
        draft = record.draft("LOCKED")
        draft.lines[draft.index("head ")] = "head " + "ab" * 20

    quick = at(RELOCKED)
    record = forge(quick, edit)
    assert_named(quick, record, {"plan-missing", "lock-contradicts"})


@pytest.mark.parametrize("kind", ["tree", "blob", "tag"])
def test_a_lock_of_what_is_no_commit_is_a_finding_i_36(
    at: Callable[[Place], Quick], kind: str
) -> None:
    """A tree has the same files as its commit."""

    def edit(record: LastRecord) -> None:
        draft = record.draft("LOCKED")
        number = draft.index("head ")
        head = draft.lines[number].split(" ")[1]
        git = record.toy.git
        git("tag", "-a", "-m", "a tag", "v1", head)
        names = {"tree": f"{head}^{{tree}}", "blob": f"{head}:worker.sh", "tag": "v1"}
        draft.lines[number] = "head " + git("rev-parse", names[kind])

    quick = at(RELOCKED)
    record = forge(quick, edit)
    codes = {"plan-missing", "lock-contradicts", "entry-contradicts", "approval-invalid"}
    assert_named(quick, record, codes)


@pytest.mark.parametrize("what", ["no plan", "an unknown input"])
def test_a_plan_that_cannot_be_used_is_a_finding_i_36(
    at: Callable[[Place], Quick], what: str
) -> None:
    """The record names a commit with such a plan; a later commit has a good one again."""

    def edit(record: LastRecord) -> None:
        toy = record.toy
        path = toy.root / "prd/plan.json"
        plan = path.read_bytes()
        unusable = b"{}"
        if what == "an unknown input":
            document = json.loads(plan)
            document["phases"][0]["features"][1]["inputs"] = ["nowhere"]
            unusable = encode(document)
        toy.git("reset", "-q", "--hard", record.parent)
        before = record.parent
        path.write_bytes(unusable)
        toy.git("commit", "-q", "-a", "-m", "a plan that is none")
        record.parent = toy.git("rev-parse", "HEAD")
        path.write_bytes(plan)
        for draft in record.drafts:
            draft.lines[:] = [line.replace(before, record.parent) for line in draft.lines]
        record.replace(before, record.parent)
        tree = toy.git("rev-parse", f"{record.parent}^{{tree}}")
        record.replace(toy.git("rev-parse", f"{before}^{{tree}}"), tree)

    quick = at(LATER)
    record = forge(quick, edit)
    quick.git("commit", "-q", "-m", "a plan again", "prd/plan.json")
    assert_named(quick, record, {"plan-missing"})


@pytest.mark.parametrize("what", ["receipt", "receipts", "request", "tree", "old plan"])
def test_a_missing_object_is_a_finding_i_36(at: Callable[[Place], Quick], what: str) -> None:
    quick = at(HALTED)
    _unpack(quick)
    commit = quick.git("log", "--format=%H", "-1", "--", "results/Q-001/receipt.json")
    name = {
        "receipt": f"{commit}:results/Q-001/receipt.json",
        "receipts": f"{commit}:results/Q-001/receipt.json HEAD:results/Q-002/receipt.json",
        "request": "HEAD:results/phase-1/request.json",
        "tree": f"{commit}:results/Q-001",
        "old plan": f"{commit}~1:exp/main.py",
    }[what]
    for sha in quick.git("rev-parse", *name.split()).split():
        (quick.root / ".git/objects" / sha[:2] / sha[2:]).unlink()
    lock = quick.root / "results/phase-1/lock.json"
    lock.write_bytes(lock.read_bytes() + b" ")
    code, report = audit_report(quick)
    assert code == 3
    found = {item["code"] for item in report["findings"]}
    assert "git-object" in found, describe(report["findings"])
    assert "lock-changed" in found, f"the other checks did not run: {describe(report['findings'])}"


TREES = {
    "half a line": b"100644 a",
    "no mode": b"\xff\xfe a\0" + b"a" * 20,
    "half an id": b"100644 a\0abc",
}


@pytest.mark.parametrize("name", TREES)
def test_a_malformed_tree_is_a_finding_i_36(at: Callable[[Place], Quick], name: str) -> None:
    quick = at(HALTED)
    _replace_results(quick, _write_tree(quick, TREES[name]))
    code, report = audit_report(quick)
    found = {item["code"] for item in report["findings"]}
    assert code == 3
    assert {"receipt-changed", "result-changed"} <= found, describe(report["findings"])


def test_a_damaged_tree_above_the_decisions_is_named_i_36(at: Callable[[Place], Quick]) -> None:
    quick = at(HALTED)
    _unpack(quick)
    sha = quick.git("rev-parse", "HEAD:prd")
    file = quick.root / ".git/objects" / sha[:2] / sha[2:]
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    assert "git cannot read HEAD:prd/approvals" in quick.call("audit", code=3).stderr


def test_a_deep_tree_is_no_traceback_i_36(at: Callable[[Place], Quick]) -> None:
    quick = at(HALTED)
    tree = quick.git("rev-parse", "HEAD:results")
    for _level in range(1200):
        tree = _write_tree(quick, b"40000 d\0" + bytes.fromhex(tree))
    _replace_results(quick, tree)
    code, report = audit_report(quick)
    assert code == 3, describe(report["findings"])


def _write_tree(quick: Quick, data: bytes) -> str:
    """Write the bytes as a tree object; return its id."""
    store = f"tree {len(data)}".encode() + b"\0" + data
    sha = hashlib.sha1(store).hexdigest()
    file = quick.root / ".git/objects" / sha[:2] / sha[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(zlib.compress(store))
    return sha


def _replace_results(quick: Quick, tree: str) -> None:
    """Commit another tree in the place of the results; the work tree stays as it is."""
    command = ["git", "cat-file", "tree", "HEAD^{tree}"]
    top = subprocess.run(command, cwd=quick.root, capture_output=True, check=True).stdout
    old = bytes.fromhex(quick.git("rev-parse", "HEAD:results"))
    top = top.replace(old, bytes.fromhex(tree))
    commit = quick.git("commit-tree", _write_tree(quick, top), "-p", "HEAD", "-m", "a tree")
    quick.git("update-ref", "refs/heads/main", commit)


@pytest.mark.parametrize(
    "path",
    ["x" * 400, "x/" * 3000, "../../../etc/passwd", "/etc/passwd"],
    ids=["a long name", "a deep path", "a path outside", "an absolute path"],
)
def test_a_path_that_no_file_can_have_is_a_finding_i_36(
    at: Callable[[Place], Quick], path: str
) -> None:
    def edit(record: LastRecord) -> None:
        record.last.replace(" results/Q-002/receipt.json", f" {path}/receipt.json")

    quick = at(LATER)
    record = forge(quick, edit)
    assert_named(quick, record, {"receipt-missing"})


def _unpack(quick: Quick) -> None:
    """Make every object a file of its own."""
    pack = quick.root / ".git/objects/pack"
    elsewhere = quick.root.with_name("pack")
    pack.rename(elsewhere)
    pack.mkdir()
    for file in elsewhere.glob("*.pack"):
        with file.open("rb") as stream:
            command = ["git", "unpack-objects", "-q"]
            subprocess.run(command, cwd=quick.root, stdin=stream, check=True)


def test_a_clone_of_a_rebased_history_has_findings_i_36(at: Callable[[Place], Quick]) -> None:
    quick = at(APPROVED)
    quick.git("-c", "user.name=Somebody Else", "rebase", "-q", "--force-rebase", "--root")
    root = quick.root.with_name("clone")
    quick.git("clone", "-q", str(quick.root), str(root))
    clone = quick.at(root)
    lock = clone.root / "results/phase-1/lock.json"
    lock.write_bytes(lock.read_bytes() + b" ")
    code, report = audit_report(clone)
    found = {item["code"] for item in report["findings"]}
    assert code == 3
    assert {"genesis-foreign", "lock-changed"} <= found, describe(report["findings"])
    clone.call("status", code=None)
    clone.call("run", "--next", code=3)


@pytest.mark.parametrize(
    "message",
    [
        "forged\n\nPhases-Entry: \n",
        "forged\n\nPhases-Entry: 0004\nPhases-Entry: 0004\n",
        "forged\n\nPhases-Entry: " + "9" * 5000 + "\nPhases-Head: x\n",
        "forged\n\nPhases-Head: " + "ab" * 32 + "\n",
        "forged\n\nPhases-Entry: \x1b[2J\nPhases-Attempt: -1\n",
    ],
    ids=lambda message: ascii(message[8:40]),
)
def test_garbage_in_trailers_is_a_finding_i_36(at: Callable[[Place], Quick], message: str) -> None:
    quick = at(LATER)
    quick.git("commit", "-q", "--amend", "-m", message)
    quick.git("update-ref", "refs/phases/log", "HEAD")
    file = quick.root / NOTE
    file.write_bytes(file.read_bytes() + b"more\n")
    code, report = audit_report(quick)
    assert code == 3
    found = {item["code"] for item in report["findings"]}
    assert "result-changed" in found, describe(report["findings"])
    assert found & {"commit-untrailed", "commit-trailers", "outcome-uncommitted"}


def test_files_that_cannot_be_read_are_findings_i_36(at: Callable[[Place], Quick]) -> None:
    """What is in the place of the files that the entries name, in the work tree."""
    quick = at(HALTED)
    results = quick.root / "results"
    (results / "Q-001/receipt.json").unlink()
    os.mkfifo(results / "Q-001/receipt.json")
    (results / "Q-002").rename(quick.root.with_name("elsewhere"))
    (results / "Q-002").symlink_to("Q-002")  # a loop
    (results / "phase-1/lock.json").unlink()
    (results / "phase-1/lock.json").symlink_to("/dev/zero")
    (results / "phase-1/request.json").unlink()
    (results / "phase-1/request.json").mkdir()
    code, report = audit_report(quick)
    assert code == 3
    found = {item["code"] for item in report["findings"]}
    expected = {"receipt-changed", "result-changed", "lock-changed", "named-file-changed"}
    assert expected <= found, describe(report["findings"])


def test_control_what_is_encoded_again_is_the_same(at: Callable[[Place], Quick]) -> None:
    record = LastRecord(at(LATER))
    for word in ("receipt", "verdict"):
        assert encode(record.document(word)) == record.files[record.path(word)]
