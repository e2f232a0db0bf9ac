"""One record, one entry, one commit; an outcome counts only by the commit that was made for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from forging import audit_codes, forge_commit, forge_entry
from quick import Quick, plan
from terminal_user import as_asked, at_terminal

from phases.base import durable

RECORD = "prd/approvals/phase-1.1.json"


def decide(quick: Quick, *words: str) -> None:
    env = {"TMPDIR": str(quick.temporary)}
    code, screen = at_terminal(quick.root, *words, answer=as_asked, env=env)
    assert code == 0, screen


def record_line(quick: Quick, path: str = RECORD) -> str:
    return f"record sha256:{durable.sha256_file(quick.root / path)} {path}"


@pytest.fixture(scope="session")
def _approved(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = Quick(tmp_path_factory.mktemp("approved") / "quick", plan(phases=2))
    quick.run("run", "--next")
    decide(quick, "approve", "1")
    return quick


@pytest.fixture
def approved(_approved: Quick, tmp_path: Path) -> Quick:
    """Return a repository of two phases, the first of which is approved."""
    return _approved.copy(tmp_path / "quick")


@pytest.fixture(scope="session")
def _waiting_again(_approved: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _approved.copy(tmp_path_factory.mktemp("again") / "quick")
    decide(quick, "reject", "1", "--reason", "once more")
    quick.run("run", "--next")
    return quick


@pytest.fixture
def waiting_again(_waiting_again: Quick, tmp_path: Path) -> Quick:
    """Return the same, rejected after its approval and run again: it waits once more."""
    return _waiting_again.copy(tmp_path / "quick")


def assert_refused(quick: Quick, *codes: str) -> None:
    """Check that neither run nor decision goes on, and that audit names one of the codes."""
    head = quick.git("rev-parse", "HEAD")
    refused = quick.call("run", "--next", code=3)
    assert "next: " in refused.stderr
    assert audit_codes(quick) & set(codes)
    assert "warning: " in quick.call("status").stderr
    _, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert "type exactly" not in screen
    assert quick.git("rev-parse", "HEAD") == head


def state(quick: Quick, phase: int = 1) -> str:
    return str(quick.status()["phases"][phase - 1]["state"])


#### decisions


def test_an_old_approval_that_is_named_again_approves_nothing_i_23(waiting_again: Quick) -> None:
    entry = forge_entry(waiting_again, "APPROVED", [record_line(waiting_again)])
    forge_commit(waiting_again, entry)
    assert state(waiting_again) != "approved"
    assert_refused(waiting_again, "approval-missing")


def test_an_old_record_under_a_new_name_approves_nothing_i_23(waiting_again: Quick) -> None:
    copy = "prd/approvals/phase-1.3.json"
    text = (waiting_again.root / RECORD).read_text()
    document = json.loads(text)
    document["predicate"]["decision"] = 3
    waiting_again.write(copy, json.dumps(document))
    entry = forge_entry(waiting_again, "APPROVED", [record_line(waiting_again, copy)])
    forge_commit(waiting_again, entry)
    assert state(waiting_again) != "approved"
    assert_refused(waiting_again, "approval-invalid")


def test_an_approval_without_a_checkpoint_approves_nothing_i_23(approved: Quick) -> None:
    """A record that is right but for its phase: nothing of phase 2 was run."""
    copy = "prd/approvals/phase-2.1.json"
    document = json.loads((approved.root / RECORD).read_text())
    document["predicate"]["phase"] = {"id": 2, "name": "Phase 2"}
    approved.write(copy, json.dumps(document))
    entry = forge_entry(approved, "APPROVED", [record_line(approved, copy)], phase=2)
    forge_commit(approved, entry)
    assert state(approved, 2) == "pending"
    assert_refused(approved, "approval-invalid")


def test_a_record_that_was_brought_by_another_commit_counts_for_nothing(waiting: Quick) -> None:
    """First the file, in a commit of a user's, then the entry."""
    waiting.write(RECORD, '{"predicate": {"result": "pass"}}')
    waiting.commit("a note")
    entry = forge_entry(waiting, "APPROVED", [record_line(waiting)])
    forge_commit(waiting, entry)
    assert state(waiting) != "approved"
    assert_refused(waiting, "approval-missing")


def test_run_checks_a_record_as_audit_does_i_25(waiting: Quick) -> None:
    waiting.write(RECORD, '{"predicate": {"result": "pass"}}')
    entry = forge_entry(waiting, "APPROVED", [record_line(waiting)])
    forge_commit(waiting, entry)
    assert state(waiting) != "approved"
    assert_refused(waiting, "approval-invalid")


def test_a_record_that_is_edited_afterwards_no_longer_counts(approved: Quick) -> None:
    document = json.loads((approved.root / RECORD).read_text())
    document["predicate"]["reason"] = "it was good"
    approved.write(RECORD, json.dumps(document))
    approved.commit("a word more")
    assert state(approved) != "approved"
    assert_refused(approved, "approval-missing", "approval-unrecorded")


def test_an_old_waiver_that_is_named_again_waives_nothing_i_24(
    make_quick: Callable[..., Quick],
) -> None:
    # 1. A feature fails, is waived, and is tried again.
    document = plan()
    document["phases"][0]["features"][0]["gate"] = {"shell": "test ! -s result.json"}
    quick = make_quick(document)
    quick.run("run", "--next", code=1)
    decide(quick, "approve", "1", "--waive", "Q-001", "--reason", "no such data")
    assert quick.states() == {"Q-001": "waived"}
    quick.run("run", "--feature", "Q-001", "--force", code=1)
    assert quick.states() == {"Q-001": "failed"}

    # 2. The old record again.
    entry = forge_entry(quick, "WAIVED", [record_line(quick)], feature="Q-001")
    forge_commit(quick, entry)
    assert quick.states() == {"Q-001": "failed"}
    assert_refused(quick, "approval-missing")


def test_a_relock_names_the_lock_that_was_agreed_to_i_28(make_quick: Callable[..., Quick]) -> None:
    quick = make_quick()
    quick.run("run", "--next")
    quick.change_plan(title="Count again")
    decide(quick, "relock", "1", "--reason", "a better title")
    lock = durable.sha256_file(quick.root / "results/phase-1/lock.json")
    record = json.loads((quick.root / RECORD).read_text())
    assert record["predicate"]["lock"] == {"sha256": lock}
    quick.assert_audit_is_clean()

    # The control: a record that names another lock than its entry.
    record["predicate"]["lock"] = {"sha256": "ab" * 32}
    progress = quick.progress
    path = quick.root / RECORD
    path.write_text(json.dumps(record))
    old = progress.rpartition("\n### ")[2]
    lines = [line[2:] for line in old.splitlines()[1:-1] if not line.startswith("- record ")]
    shortened = progress[: progress.rindex("\n### ")]
    quick.git("reset", "-q", "--soft", "HEAD~1")
    (quick.root / "progress.txt").write_text(shortened)
    entry = forge_entry(quick, "LOCKED", [*lines, record_line(quick)])
    forge_commit(quick, entry)
    assert_refused(quick, "approval-invalid")


#### outcomes


def test_an_outcome_that_a_merge_brings_counts_for_nothing_i_26(approved: Quick) -> None:
    # 1. A merge whose progress.txt none of its parents has.
    approved.git("switch", "-q", "-c", "side")
    approved.write("side.txt", "a file")
    approved.commit("a file")
    approved.git("switch", "-q", "main")
    approved.git("merge", "-q", "--no-ff", "--no-commit", "side")
    forge_entry(approved, "STARTED", ["txn 00"], phase=2, feature="Q-002")
    forge_entry(approved, "VERIFIED", ["measured nothing"], phase=2, feature="Q-002")
    approved.git("add", "-A")
    approved.git("commit", "-q", "-m", "Merge branch 'side'")
    assert approved.states()["Q-002"] != "verified"
    assert "commit-untrailed" in audit_codes(approved)

    # 2. With the runner's trailers it is still a merge.
    last = approved.progress.rpartition(" self=")[2].strip()
    trailers = f"Phases-Entry: {approved.progress.count('### '):04d}\nPhases-Head: {last}"
    approved.git("commit", "-q", "--amend", "-m", f"Merge branch 'side'\n\n{trailers}")
    assert approved.states()["Q-002"] != "verified"
    assert "commit-untrailed" in audit_codes(approved)


def test_an_outcome_without_a_commit_of_its_own_counts_for_nothing(waiting: Quick) -> None:
    """A VERIFIED that a later commit of the runner's sweeps in."""
    waiting.run(
        "run", "--feature", "Q-001", "--force", env={"PHASES_FAILPOINT": "started:kill"}, code=None
    )
    forge_entry(waiting, "VERIFIED", ["measured nothing"], feature="Q-001")
    assert waiting.states() == {"Q-001": "running"}
    waiting.run("run", "--next")
    assert waiting.progress.count("· INTERRUPTED ·") == 1
    report = json.loads(waiting.call("audit", "--json").stdout)
    codes = {item["code"] for item in report["findings"]}
    assert codes == {"outcome-uncommitted"}


#### journal and ref


def test_a_ref_without_a_journal_is_named_i_27(waiting: Quick) -> None:
    (waiting.root / ".git/phases/journal").unlink()
    assert_refused(waiting, "journal-missing")


@pytest.mark.parametrize("planted", [False, True])
def test_a_journal_without_a_ref_is_named_i_27(waiting: Quick, *, planted: bool) -> None:
    waiting.git("update-ref", "-d", "refs/phases/log")
    if planted:  # as if a killed run was about to move the ref
        txn = waiting.git("log", "-1", "--format=%(trailers:key=Phases-Txn,valueonly)").strip()
        waiting.write(f".phases/pending/{txn}/record.json", "{}")
    assert_refused(waiting, "log-ref-missing")


def test_a_ref_that_was_moved_back_is_named_i_27(waiting: Quick) -> None:
    waiting.git("update-ref", "refs/phases/log", "HEAD~1")
    refused = waiting.call("run", "--next", code=3)
    assert "log-ref-moved" in audit_codes(waiting)
    command = refused.stderr.rpartition("next: ")[2].strip().strip("`").split()
    waiting.git(*command[1:])
    waiting.assert_audit_is_clean()
    waiting.call("run", "--next", code=4)


def test_a_mirror_is_told_how_it_becomes_a_clone_i_27(waiting: Quick, tmp_path: Path) -> None:
    waiting.git("clone", "-q", str(waiting.root), str(tmp_path / "mirror"))
    mirror = Quick.__new__(Quick)
    mirror.root = tmp_path / "mirror"
    mirror.git("fetch", "-q", "origin", "+refs/phases/*:refs/phases/*")
    refused = mirror.call("run", "--next", code=3)
    assert "mirror clone" in refused.stderr
    mirror.git("update-ref", "-d", "refs/phases/log")
    assert "git update-ref -d refs/phases/log" in refused.stderr
    mirror.assert_audit_is_clean()
    mirror.call("run", "--next", code=4)
