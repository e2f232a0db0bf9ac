"""A decision counts if its record says what its entry says and binds what the history holds.

Each test composes a record and its entry on a project that waits, and asks what the history would
say of both if the next commit brought them. One thing is false each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hints import follow
from quick import Quick

from phases.base import durable
from phases.git.record_history import RecordCommit
from phases.record import entries
from phases.record.approvals import Checkpoint, read_checkpoint
from phases.record.decision_check import DecisionCheck, ValidDecision
from phases.record.decision_record import (
    Decision,
    DecisionRecord,
    DecisionResult,
    Presence,
    Repository,
    RequestDigest,
)
from phases.record.entries import RecordedFile
from phases.record.evidence import Evidence, weigh_cut, weigh_prepared
from phases.record.ledger import Ledger, Problem, seal_entry
from phases.record.project import load_verified, open_project
from phases.record.review_request import PhaseName, Sha256

PATH = "prd/approvals/phase-1.1.json"
TIME = "2026-11-23T10:12:31Z"
REQUEST = "results/phase-1/request.json"
DIGEST = "ab" * 32


@dataclass(frozen=True)
class Waiting:
    """A project that waits for its approver."""

    root: Path
    ledger: Ledger
    checkpoint: Checkpoint

    def record(self, result: DecisionResult, **changes: Any) -> dict[str, Any]:
        """Return the record of a decision on the checkpoint, as the runner would write it."""
        genesis = self.ledger.entries[0]
        root = genesis.match(entries.ROOT)
        assert root
        values = {
            "result": result,
            "phase": PhaseName(id=1, name="Phase 1"),
            "decision": 1,
            "repository": Repository(root_commit=root["commit"], genesis=genesis.self_hash),
            "request": RequestDigest(digest=Sha256(sha256=self.checkpoint.request_sha256)),
            "reason": "a reason",
            "reset": (),
            "decided_on": TIME,
            "by": Presence(user="u", uid=1, tty="/dev/pts/1", host="h", git_identity="u <u@x>"),
            **changes,
        }
        record = DecisionRecord(subject=self.checkpoint.subject, predicate=Decision(**values))
        document: dict[str, Any] = json.loads(record.encode())
        return document


@dataclass
class Case:
    """A decision's record and its entries, before they are sealed."""

    document: dict[str, Any]
    kind: str
    lines: tuple[str, ...] = ()
    features: Sequence[str | None] = (None,)
    phase: int = 1
    path: str = PATH
    others: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """Entries before the decision's: kind and lines."""

    def weigh(self, waiting: Waiting) -> Evidence:
        """Return what the history would say of it."""
        data = json.dumps(self.document).encode()
        line = RecordedFile(durable.sha256(data), self.path).line(entries.RECORD)
        ledger = waiting.ledger
        for kind, lines in self.others:
            ledger = ledger.with_entry(seal_entry(ledger, kind, lines, time=TIME, phase=1))
        for feature in self.features:
            entry = seal_entry(
                ledger,
                self.kind,
                (line, *self.lines),
                time=TIME,
                phase=self.phase,
                feature=feature,
                title="Count" if feature else "",
            )
            ledger = ledger.with_entry(entry)
        files = {self.path: data}
        return weigh_prepared(waiting.root, ledger, files, waiting.checkpoint.commit)


@pytest.fixture(scope="module")
def here(_waiting: Quick) -> Waiting:
    """Return a project that waits; no test changes it."""
    project = open_project(_waiting.root)
    snapshot = load_verified(project, project.repo())
    halted = snapshot.state.phase(1).halted
    assert halted is not None
    commit = _waiting.git("rev-parse", "HEAD")
    checkpoint = read_checkpoint(project.repo(), commit, 1, halted, REQUEST)
    assert checkpoint is not None
    return Waiting(_waiting.root, snapshot.ledger, checkpoint)


def approval(here: Waiting) -> Case:
    return Case(here.record(DecisionResult.PASS), "APPROVED")


def rejection(here: Waiting) -> Case:
    document = here.record(DecisionResult.FAIL, reset=("Q-001", "Q-002"))
    return Case(document, "REJECTED", entries.reset_lines(["Q-002", "Q-001"]))


def relock(here: Waiting) -> Case:
    document = here.record(DecisionResult.RELOCK, lock=Sha256(sha256=DIGEST))
    lock = RecordedFile(DIGEST, "results/phase-1/lock.json").line(entries.LOCK)
    return Case(document, "LOCKED", (lock,))


def waiver(here: Waiting) -> Case:
    document = here.record(DecisionResult.WAIVE, waived=("Q-001", "Q-002"))
    return Case(document, "WAIVED", features=("Q-001", "Q-002"))


DECISIONS = (approval, rejection, relock, waiver)


def refusals(evidence: Evidence, code: str = "approval-invalid") -> str:
    """Check that no decision counts, and why; return the reasons, one a line."""
    assert evidence.decisions == {}
    assert evidence.problems
    for problem in evidence.problems:
        assert problem.code == code
        assert len(problem.message.split()) > 3
        assert isinstance(problem.hint, str)
    return "\n".join(problem.message for problem in evidence.problems)


#### what counts


@pytest.mark.parametrize("make", DECISIONS)
def test_a_decision_whose_record_says_the_same_counts(
    here: Waiting, make: Callable[[Waiting], Case]
) -> None:
    case = make(here)
    evidence = case.weigh(here)
    assert evidence.problems == ()
    count = len(here.ledger.entries)
    expected = ValidDecision(
        checkpoint=here.checkpoint.entry,
        request=here.checkpoint.request_sha256,
        lock=DIGEST if make is relock else None,
    )
    numbers = range(count + 1, count + 1 + len(case.features))
    assert evidence.decisions == dict.fromkeys(numbers, expected)


def test_the_order_of_the_subjects_means_nothing(here: Waiting) -> None:
    case = approval(here)
    case.document["subject"].reverse()
    assert case.weigh(here).problems == ()


def test_a_decision_may_come_after_entries_that_are_no_decisions(here: Waiting) -> None:
    case = approval(here)
    case.others = [("REPAIRED", ("reason none",))]
    assert list(case.weigh(here).decisions) == [len(here.ledger.entries) + 2]


def test_each_of_several_decisions_is_judged_by_itself(here: Waiting) -> None:
    case = approval(here)
    case.others = [("APPROVED", ("reason it names no record",))]
    evidence = case.weigh(here)
    number = len(here.ledger.entries) + 1
    assert list(evidence.decisions) == [number + 1]
    found = [(problem.code, problem.entry) for problem in evidence.problems]
    assert found == [("approval-missing", number)]
    assert "APPROVED" in evidence.problems[0].message


@pytest.mark.parametrize("make", DECISIONS)
def test_where_commits_are_missing_record_and_entry_are_compared(
    here: Waiting, quick_copy: Quick, make: Callable[[Waiting], Case]
) -> None:
    """A shallow clone has neither the commit that was decided on nor the one that recorded it."""
    case = make(here)
    data = json.dumps(case.document).encode()
    quick_copy.write(PATH, data.decode())
    line = RecordedFile(durable.sha256(data), PATH).line(entries.RECORD)
    ledger = here.ledger
    for feature in case.features:
        words = (line, *case.lines)
        title = "Count" if feature else ""
        entry = seal_entry(
            ledger, case.kind, words, time=TIME, phase=1, feature=feature, title=title
        )
        ledger = ledger.with_entry(entry)
    head = quick_copy.git("rev-parse", "HEAD")
    oldest = RecordCommit(head, "", (), {}, {})
    evidence = weigh_cut(quick_copy.root, ledger, oldest, len(ledger.entries))
    assert evidence.problems == ()
    assert len(evidence.decisions) == len(case.features)
    case.document["predicate"]["phase"]["id"] = 2
    quick_copy.write(PATH, json.dumps(case.document))
    assert weigh_cut(quick_copy.root, ledger, oldest, len(ledger.entries)).decisions == {}


#### the record against its entry


@pytest.mark.parametrize("result", list(DecisionResult))
@pytest.mark.parametrize("make", DECISIONS)
def test_the_result_is_the_entrys_kind(
    here: Waiting, make: Callable[[Waiting], Case], result: DecisionResult
) -> None:
    case = make(here)
    if case.document["predicate"]["result"] == result:
        return
    case.document["predicate"]["result"] = str(result)
    reasons = refusals(case.weigh(here))
    assert repr(str(result)) in reasons
    assert case.kind in reasons


def test_the_phase_is_the_entrys(here: Waiting) -> None:
    case = approval(here)
    case.phase = 2
    reasons = refusals(case.weigh(here))
    assert "phase 1, its entry about 2" in reasons


@pytest.mark.parametrize("path", ["prd/approvals/phase-1.2.json", "prd/approvals/1.json"])
def test_the_name_is_the_phase_and_the_decisions_number(here: Waiting, path: str) -> None:
    case = approval(here)
    case.path = path
    reasons = refusals(case.weigh(here))
    assert f"got {path}" in reasons
    assert PATH in reasons


@pytest.mark.parametrize("reset", [[], ["Q-001"], ["Q-001", "Q-001"], ["Q-001", "Q-003"]])
def test_the_features_that_are_reset_are_the_entrys(here: Waiting, reset: list[str]) -> None:
    case = rejection(here)
    case.document["predicate"]["reset"] = reset
    reasons = refusals(case.weigh(here))
    assert str(reset) in reasons
    assert "['Q-001', 'Q-002']" in reasons


@pytest.mark.parametrize("lock", [None, {"sha256": "cd" * 32}])
def test_a_relocks_record_names_the_lock_of_its_entry(here: Waiting, lock: Any) -> None:
    case = relock(here)
    case.document["predicate"]["lock"] = lock
    assert "lock" in refusals(case.weigh(here))


def test_a_relocks_entry_names_a_lock(here: Waiting) -> None:
    case = relock(here)
    case.lines = ()
    assert "lock" in refusals(case.weigh(here))


@pytest.mark.parametrize("make", [approval, rejection, waiver])
def test_only_a_relocks_record_names_a_lock(here: Waiting, make: Callable[[Waiting], Case]) -> None:
    case = make(here)
    case.document["predicate"]["lock"] = {"sha256": DIGEST}
    assert "lock" in refusals(case.weigh(here))


@pytest.mark.parametrize("waived", [[], ["Q-001"], ["Q-002", "Q-001"], ["Q-001", "Q-003"]])
def test_a_waiver_has_one_entry_for_each_feature_in_order(here: Waiting, waived: list[str]) -> None:
    case = waiver(here)
    case.document["predicate"]["waived"] = waived
    reasons = refusals(case.weigh(here))
    assert str(waived) in reasons
    assert "['Q-001', 'Q-002']" in reasons


@pytest.mark.parametrize("make", [approval, rejection, relock])
def test_a_record_of_another_decision_has_one_entry(
    here: Waiting, make: Callable[[Waiting], Case]
) -> None:
    case = make(here)
    case.features = (None, None)
    reasons = refusals(case.weigh(here))
    number = len(here.ledger.entries) + 1
    assert f"entries {number:04d}, {number + 1:04d} name it" in reasons


@pytest.mark.parametrize("name", ["genesis", "rootCommit"])
def test_a_record_of_another_run_or_repository_counts_for_nothing(here: Waiting, name: str) -> None:
    case = approval(here)
    value = case.document["predicate"]["repository"][name]
    case.document["predicate"]["repository"][name] = value[::-1]
    refusals(case.weigh(here))


#### the record against the history


def subject(case: Case, name: str) -> dict[str, Any]:
    """Return one of the record's subjects."""
    found: dict[str, Any] = next(item for item in case.document["subject"] if item["name"] == name)
    return found


def test_the_tree_is_that_of_the_commit(here: Waiting) -> None:
    for tree in (None, here.checkpoint.commit, "0" * 40):
        case = approval(here)
        digest = subject(case, "commit")["digest"]
        digest["gitTree"] = tree
        if tree is None:
            del digest["gitTree"]
        assert here.checkpoint.commit[:12] in refusals(case.weigh(here))


def test_the_commit_is_before_the_one_that_records_it(here: Waiting, quick_copy: Quick) -> None:
    case = approval(here)
    subject(case, "commit")["digest"]["gitCommit"] = "f" * 40
    assert "f" * 12 in refusals(case.weigh(here))
    # A commit of the same tree, in no history.
    alone = quick_copy.git("commit-tree", "HEAD^{tree}", "-m", "alone")
    case = rejection(here)
    subject(case, "commit")["digest"]["gitCommit"] = alone
    assert alone[:12] in refusals(case.weigh(replace(here, root=quick_copy.root)))


def test_an_approval_is_about_the_commit_that_recorded_the_checkpoint(
    here: Waiting, quick_copy: Quick
) -> None:
    """A user's commit after it holds the same record; other decisions may be about it."""
    quick_copy.write("note.md", "a note\n")
    quick_copy.commit("a note")
    later = {"gitCommit": quick_copy.git("rev-parse", "HEAD")}
    later["gitTree"] = quick_copy.git("rev-parse", "HEAD^{tree}")
    checkpoint = replace(here.checkpoint, commit=later["gitCommit"])
    there = replace(here, root=quick_copy.root, checkpoint=checkpoint)
    for make in (rejection, relock, waiver):
        case = make(here)
        assert case.weigh(there).problems == ()  # about the checkpoint
        subject(case, "commit")["digest"] = later
        assert case.weigh(there).problems == ()
    case = approval(here)
    assert case.weigh(there).problems == ()
    subject(case, "commit")["digest"] = later
    assert later["gitCommit"][:12] in refusals(case.weigh(there))


@pytest.fixture
def quick_copy(_waiting: Quick, tmp_path: Path) -> Quick:
    """Return a copy of the project that waits."""
    return _waiting.copy(tmp_path / "quick")


def test_the_request_is_a_file_of_the_commit(here: Waiting) -> None:
    case = approval(here)
    subject(case, REQUEST)["name"] = "results/phase-1/other.json"
    assert "results/phase-1/other.json" in refusals(case.weigh(here))
    case = approval(here)
    subject(case, REQUEST)["name"] = "worker.sh"
    assert "worker.sh" in refusals(case.weigh(here))


def test_the_digests_of_the_request_are_that_files(here: Waiting) -> None:
    case = approval(here)
    subject(case, REQUEST)["digest"]["sha256"] = DIGEST
    reasons = refusals(case.weigh(here))
    assert len(reasons.splitlines()) == 2  # the file differs, and the record has two digests
    case = approval(here)
    case.document["predicate"]["request"]["digest"]["sha256"] = DIGEST
    assert len(refusals(case.weigh(here)).splitlines()) == 1
    case = approval(here)
    del subject(case, REQUEST)["digest"]
    refusals(case.weigh(here))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("size", lambda value: value + 1),
        ("head", lambda value: value[::-1]),
        ("entry", lambda value: value - 1),
        ("entry", lambda value: value + 1),
        ("entry", lambda _: 0),
        ("entry", lambda _: -1),
        ("entry", lambda _: 9999),
    ],
)
def test_progress_is_the_ledger_as_it_was(
    here: Waiting, name: str, change: Callable[[Any], Any]
) -> None:
    case = approval(here)
    annotations = subject(case, "progress.txt")["annotations"]
    annotations[name] = change(annotations[name])
    assert "progress.txt" in refusals(case.weigh(here))


def test_progress_has_its_digest_and_its_annotations(here: Waiting) -> None:
    case = approval(here)
    subject(case, "progress.txt")["digest"]["sha256"] = DIGEST
    assert "progress.txt" in refusals(case.weigh(here))
    case = approval(here)
    del subject(case, "progress.txt")["digest"]
    assert "progress.txt" in refusals(case.weigh(here))
    case = approval(here)
    subject(case, "progress.txt")["annotations"]["more"] = 1
    assert "progress.txt" in refusals(case.weigh(here))


def bind(case: Case, here: Waiting, count: int) -> None:
    """Let a record bind the ledger up to an entry."""
    then = Ledger(here.ledger.header, here.ledger.entries[:count])
    progress = subject(case, "progress.txt")
    progress["digest"]["sha256"] = durable.sha256(then.data)
    progress["annotations"] = {"size": len(then.data), "head": then.head, "entry": count}


def test_progress_is_that_of_the_commit(here: Waiting) -> None:
    """The ledger was so once, but not at the commit that is named."""
    case = approval(here)
    bind(case, here, here.checkpoint.entry - 1)
    assert "progress.txt" in refusals(case.weigh(here))


#### what is no record


@pytest.mark.parametrize("name", ["commit", "progress.txt", REQUEST])
def test_a_record_has_each_subject_once(here: Waiting, name: str) -> None:
    case = approval(here)
    case.document["subject"].remove(subject(case, name))
    assert PATH in refusals(case.weigh(here))


def test_a_record_is_about_one_named_file_inside_the_repository(here: Waiting) -> None:
    for change in (
        {"name": None},
        {"name": "/etc/passwd"},
        {"name": "a/../b"},
        {"name": "a\u202e"},
    ):
        case = approval(here)
        subject(case, REQUEST).update(change)
        assert PATH in refusals(case.weigh(here))
    case = approval(here)
    case.document["subject"].append({"name": "more", "digest": {"sha256": DIGEST}})
    assert PATH in refusals(case.weigh(here))


@pytest.mark.parametrize("entry", [None, "7", 7.0, [7]])
def test_a_record_names_a_number_of_an_entry(here: Waiting, entry: Any) -> None:
    case = approval(here)
    subject(case, "progress.txt")["annotations"]["entry"] = entry
    assert PATH in refusals(case.weigh(here))
    del subject(case, "progress.txt")["annotations"]
    assert PATH in refusals(case.weigh(here))


@pytest.mark.parametrize("digest", [None, {}, {"gitCommit": "abc"}])
def test_a_record_names_a_commit(here: Waiting, digest: Any) -> None:
    case = approval(here)
    subject(case, "commit")["digest"] = digest
    assert PATH in refusals(case.weigh(here))


def test_bytes_that_the_entry_does_not_name_are_no_record(here: Waiting) -> None:
    case = approval(here)
    data = json.dumps(case.document).encode()
    line = RecordedFile(durable.sha256(data), PATH).line(entries.RECORD)
    entry = seal_entry(here.ledger, "APPROVED", (line,), time=TIME, phase=1)
    ledger = here.ledger.with_entry(entry)
    head = here.checkpoint.commit
    assert weigh_prepared(here.root, ledger, {PATH: data}, head).decisions  # the control
    evidence = weigh_prepared(here.root, ledger, {PATH: data + b"\n"}, head)
    reasons = refusals(evidence, "approval-missing")
    assert PATH in reasons
    assert durable.sha256(data)[:12] in reasons
    # A commit that brings the entry brings the record.
    evidence = weigh_prepared(here.root, ledger, {}, head)
    assert PATH in refusals(evidence, "approval-missing")


#### what git has of a record that was recorded


@pytest.fixture
def recorded(here: Waiting, quick_copy: Quick) -> DecisionCheck:
    """Return the check of a project where an approval was recorded."""
    case = approval(here)
    data = json.dumps(case.document).encode()
    line = RecordedFile(durable.sha256(data), PATH).line(entries.RECORD)
    entry = seal_entry(here.ledger, "APPROVED", (line,), time=TIME, phase=1)
    ledger = here.ledger.with_entry(entry)
    quick_copy.write(PATH, data.decode())
    (quick_copy.root / "progress.txt").write_bytes(ledger.data)
    quick_copy.commit("approved")
    commit = RecordCommit(
        sha=quick_copy.git("rev-parse", "HEAD"),
        tree=quick_copy.git("rev-parse", "HEAD^{tree}"),
        parents=(here.checkpoint.commit,),
        trailers={"Phases-Entry": f"{entry.seq:04d}"},
        blobs={PATH: quick_copy.git("rev-parse", f"HEAD:{PATH}")},
    )
    commits = {**case.weigh(here).commits, entry.seq: commit}
    check = DecisionCheck(quick_copy.root, ledger, commits, {})
    assert len(check.run(ledger.entries)[0]) == 1  # the control
    return check


def only_problem(check: DecisionCheck) -> Problem:
    """Return why the only decision does not count."""
    decisions, problems = check.run(check.ledger.entries)
    assert decisions == {}
    [problem] = problems
    assert (problem.code, problem.entry) == ("approval-missing", check.ledger.entries[-1].seq)
    assert PATH in problem.message
    assert "APPROVED" in problem.message or "commit" in problem.message
    return problem


def test_a_decision_is_recorded_by_a_commit_of_the_runners(recorded: DecisionCheck) -> None:
    last = recorded.ledger.entries[-1].seq
    without = {number: commit for number, commit in recorded.commits.items() if number != last}
    assert "APPROVED" in only_problem(replace(recorded, commits=without)).message
    # That commit brings the record, too.
    bare = replace(recorded.commits[last], blobs={})
    problem = only_problem(replace(recorded, commits={**recorded.commits, last: bare}))
    assert bare.sha[:12] in problem.message


@pytest.mark.parametrize("way", ["edited", "removed"])
def test_the_hint_restores_a_record_of_the_work_tree(recorded: DecisionCheck, way: str) -> None:
    path = recorded.root / PATH
    if way == "edited":
        path.write_text(path.read_text() + " ")
    else:
        path.unlink()
    follow(recorded.root, only_problem(recorded).hint)
    assert len(recorded.run(recorded.ledger.entries)[0]) == 1


def test_the_hint_restores_a_record_of_head(recorded: DecisionCheck, quick_copy: Quick) -> None:
    text = (recorded.root / PATH).read_text()
    quick_copy.write(PATH, text + " ")
    quick_copy.commit("another record")
    quick_copy.write(PATH, text)
    problem = only_problem(recorded)
    assert "HEAD" in problem.message
    follow(recorded.root, problem.hint)
    quick_copy.commit("as it was")
    assert len(recorded.run(recorded.ledger.entries)[0]) == 1


def test_a_record_is_the_blob_of_its_commit(recorded: DecisionCheck) -> None:
    """The entry names these bytes, and its commit brought others."""
    last = recorded.ledger.entries[-1].seq
    other = replace(recorded.commits[last], blobs={PATH: "0" * 40})
    only_problem(replace(recorded, commits={**recorded.commits, last: other}))
