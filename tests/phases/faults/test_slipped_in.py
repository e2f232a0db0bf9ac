"""Records that an agent composes by itself: in commits alone, .git/phases untouched, or half so."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forging import audit_codes, forge_commit, forge_entry
from hints import follow
from quick import Quick, plan
from terminal_user import as_asked, at_terminal

from phases.base import durable
from phases.base.text import utc_now
from phases.record.ledger import Ledger, new_header, seal_entry

RECORD = "prd/approvals/phase-1.1.json"
STARTED = "attempt 1, sh worker.sh, seed 0, profile cpu, sandbox none"


def decide(quick: Quick, *words: str) -> tuple[int | None, str]:
    env = {"TMPDIR": str(quick.temporary)}
    return at_terminal(quick.root, *words, answer=as_asked, env=env)


@pytest.fixture(scope="session")
def _two_phases(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = Quick(tmp_path_factory.mktemp("two") / "quick", plan(phases=2))
    quick.run("run", "--next")
    return quick


@pytest.fixture(scope="session")
def _approved(_two_phases: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _two_phases.copy(tmp_path_factory.mktemp("opened") / "quick")
    code, screen = decide(quick, "approve", "1")
    assert code == 0, screen
    return quick


@pytest.fixture
def halted(_two_phases: Quick, tmp_path: Path) -> Quick:
    """Return a repository of two phases, the first of which waits."""
    return _two_phases.copy(tmp_path / "quick")


@pytest.fixture
def approved(_approved: Quick, tmp_path: Path) -> Quick:
    """Return the same, its first phase approved."""
    return _approved.copy(tmp_path / "quick")


def forge(
    quick: Quick,
    kind: str,
    *lines: str,
    phase: int | None = 1,
    feature: str | None = None,
    **files: str,
) -> None:
    """Commit an entry as the runner would, and leave journal and ref as they are."""
    journal = quick.root / ".git/phases/journal"
    before, log = journal.read_bytes(), quick.git("rev-parse", "refs/phases/log")
    entry = forge_entry(quick, kind, lines, phase, feature)
    forge_commit(quick, entry, {path.replace("__", "/"): text for path, text in files.items()})
    journal.write_bytes(before)
    quick.git("update-ref", "refs/phases/log", log)


def file_line(quick: Quick, word: str, path: str) -> str:
    return f"{word} sha256:{durable.sha256_file(quick.root / path)} {path}"


def assert_refused(quick: Quick, *codes: str) -> None:
    """Check that run and audit exit 3, and that audit names one of the codes."""
    head = quick.git("rev-parse", "HEAD")
    assert audit_codes(quick) & set(codes)
    assert "next: " in quick.call("run", "--next", code=3).stderr
    assert quick.git("rev-parse", "HEAD") == head


def assert_seen_everywhere(quick: Quick, code: str) -> None:
    """Check that run, status and audit name the same problem, by one function."""
    assert_refused(quick, code)
    assert f"warning: {code}" in quick.call("status").stderr


#### the order of entries


def test_an_outcome_that_was_not_started_counts_for_nothing(approved: Quick) -> None:
    forge(approved, "VERIFIED", "measured nothing", phase=2, feature="Q-002")
    assert_seen_everywhere(approved, "entry-order")
    assert approved.states()["Q-002"] == "pending"


def test_an_outcome_in_an_approved_phase_replaces_nothing(approved: Quick) -> None:
    """What was approved is final, until a human rejects it."""
    forge(approved, "STARTED", STARTED, feature="Q-001")
    assert_seen_everywhere(approved, "entry-order")
    assert approved.states()["Q-001"] == "verified"


def test_no_phase_begins_before_the_one_before_it_is_approved(halted: Quick) -> None:
    """Only audit saw this, and not where the phase began with an outcome or a halt."""
    forge(halted, "HALTED", "features: 1 verified", phase=2)
    assert_seen_everywhere(halted, "phase-unapproved")
    assert halted.status()["phases"][1]["state"] == "pending"


@pytest.mark.parametrize("kind", ["HALTED", "FAILED"])
def test_a_phase_that_waits_does_not_halt_or_fail_once_more(halted: Quick, kind: str) -> None:
    path = "results/phase-1/request.json"
    forge(halted, kind, "features: 1 verified", file_line(halted, "request", path))
    assert_seen_everywhere(halted, "entry-order")
    assert halted.status()["phases"][0]["state"] == "awaiting_approval"


def test_what_was_not_started_is_not_interrupted(halted: Quick) -> None:
    """It made a verified feature pending: only a new attempt or a human's decision does."""
    forge(halted, "INTERRUPTED", "reason none", feature="Q-001")
    assert_seen_everywhere(halted, "entry-order")
    assert halted.states()["Q-001"] == "verified"


def test_a_failed_attempt_is_not_forgotten_by_a_commit_that_holds_more(
    make_quick: Callable[..., Quick],
) -> None:
    """The commits of two attempts squashed into one, behind a merge that has the true ones too."""
    document = plan()
    document["phases"][0]["features"][0]["gate"] = {"shell": "test ! -s result.json"}
    quick = make_quick(document)
    start = quick.git("rev-parse", "HEAD")
    quick.run("run", "--next", code=1)
    quick.run("run", "--next", code=1)
    message = quick.git("log", "-1", "--format=%B")
    tree = quick.git("rev-parse", "HEAD^{tree}")
    squashed = quick.git("commit-tree", tree, "-p", start, "-m", message)
    merge = quick.git("commit-tree", tree, "-p", squashed, "-p", "HEAD", "-m", "merge")
    quick.git("reset", "-q", "--soft", merge)
    assert_refused(quick, "log-ref-moved")
    quick.git("update-ref", "refs/phases/log", squashed)  # as the hint says
    assert_seen_everywhere(quick, "entry-order")


#### what a halt says


def test_a_halt_of_features_that_did_not_run_cannot_be_approved(approved: Quick) -> None:
    document = json.loads((approved.root / "results/phase-1/request.json").read_text())
    head = approved.git("rev-parse", "HEAD")
    document["predicate"]["phase"] = {"id": 2, "name": "Phase 2"}
    document["predicate"]["commit"]["gitCommit"] = head
    path = "results/phase-2/request.json"
    approved.write(path, json.dumps(document))
    forge(approved, "HALTED", file_line(approved, "request", path), phase=2)
    assert {"halt-contradicts", "request-contradicts"} <= audit_codes(approved)
    code, screen = decide(approved, "approve", "2")
    assert code == 3, screen
    assert "type exactly" not in screen


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"state": "verified"', '"state": "waived"'),
        ('"id": "Q-001"', '"id": "Q-009"'),
        ('"gitCommit": "', '"gitCommit": "HEAD'),
        ('{\n "_type"', '{\n "more": 1,\n "_type"'),
    ],
    ids=["state", "feature", "commit", "no request"],
)
def test_a_request_says_what_the_ledger_says(halted: Quick, old: str, new: str) -> None:
    path = "results/phase-1/request.json"
    text = (halted.root / path).read_text()
    assert old in text
    forge(halted, "REPAIRED", "reason none", phase=None)  # so that the phase can halt once more
    halted.write(path, text.replace(old, new))
    forge(halted, "HALTED", "features: 1 verified", file_line(halted, "request", path))
    assert "request-contradicts" in audit_codes(halted)


#### decisions


def test_heads_record_is_the_one_that_was_recorded(approved: Quick) -> None:
    """The work tree has the true one, every clone would get the other."""
    text = (approved.root / RECORD).read_text()
    approved.write(RECORD, text.replace('"pass"', '"fail"'))
    approved.commit("another record")
    approved.write(RECORD, text)
    assert_seen_everywhere(approved, "approval-missing")
    follow_hint(approved)
    approved.commit("as it was")
    approved.assert_audit_is_clean()
    approved.run("run", "--next")


@pytest.mark.parametrize("way", ["removed", "a link"])
def test_heads_record_is_a_file(approved: Quick, way: str) -> None:
    path = approved.root / RECORD
    if way == "removed":
        approved.git("rm", "-q", "--cached", RECORD)
    else:
        path.rename(approved.root / "elsewhere.json")
        path.symlink_to("../../elsewhere.json")
        approved.git("add", "-A")
    approved.git("commit", "-q", "-m", "no record")
    assert_seen_everywhere(approved, "approval-missing")


def follow_hint(quick: Quick) -> None:
    """Type the command that a refused run names."""
    follow(quick.root, quick.call("run", "--next", code=3).stderr)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gitCommit", "\0"),
        ("gitCommit", "HEAD"),
        ("gitCommit", "--help"),
        ("gitCommit", "a\nb"),
        ("name", "../x"),
        ("name", "x\0y"),
    ],
    ids=ascii,
)
def test_a_record_about_no_commit_is_refused(
    halted: Quick, _approved: Quick, field: str, value: str
) -> None:
    document = json.loads((_approved.root / RECORD).read_text())
    if field == "name":
        document["subject"][2]["name"] = value
    else:
        document["subject"][0]["digest"][field] = value
    halted.write(RECORD, json.dumps(document))
    forge(halted, "APPROVED", file_line(halted, "record", RECORD))
    assert_seen_everywhere(halted, "approval-invalid")


def test_a_decision_in_the_first_commit_is_refused(approved: Quick) -> None:
    """It names a commit before its own, and there is none."""
    ledger = Ledger(new_header("Quick"), ())
    genesis = seal_entry(ledger, "GENESIS", ("project Quick", "root " + "a" * 40), time=utc_now())
    document = json.loads((approved.root / RECORD).read_text())
    document["predicate"]["repository"] = {
        "rootCommit": "a" * 40,
        "genesis": genesis.self_hash,
    }
    approved.git("switch", "-q", "--orphan", "other")
    approved.git("checkout", "-q", "main", "--", "prd/plan.json", "worker.sh", ".gitignore")
    (approved.root / "progress.txt").write_bytes(ledger.with_entry(genesis).data)
    approved.write(RECORD, json.dumps(document))
    forge(approved, "APPROVED", file_line(approved, "record", RECORD))
    assert_refused(approved, "approval-invalid")


@pytest.mark.parametrize("path", ["prd/approvals", "progress.txt"])
def test_no_decision_is_asked_for_where_it_could_not_be_recorded(
    halted: Quick, tmp_path: Path, path: str
) -> None:
    """It was written through the link, and then it could not be committed."""
    if path == "progress.txt":
        (halted.root / path).rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
        (halted.root / path).parent.mkdir(exist_ok=True)
    (halted.root / path).symlink_to(tmp_path / "elsewhere")
    before = (halted.root / ".git/phases/journal").read_bytes()
    code, screen = decide(halted, "approve", "1")
    assert (code, "type exactly" in screen) == (7, False), screen
    assert "is a symbolic link" in screen
    assert (halted.root / ".git/phases/journal").read_bytes() == before
    (halted.root / path).unlink()
    code, screen = decide(halted, "approve", "1")
    assert code == 0, screen
    halted.assert_audit_is_clean()


@pytest.mark.parametrize("option", ["--depth=1", "--filter=blob:none"])
def test_a_clone_that_lacks_history_is_told_so(
    approved: Quick, tmp_path: Path, option: str
) -> None:
    """`run` called the record invalid, `audit` said what is missing."""
    approved.git("config", "uploadpack.allowFilter", "true")
    approved.git("clone", "-q", option, f"file://{approved.root}", str(tmp_path / "clone"))
    clone = Quick.__new__(Quick)
    clone.root = tmp_path / "clone"
    for command in (["audit"], ["run", "--next"]):
        refused = clone.call(*command, code=7)
        assert "clone" in refused.stderr.rpartition("next: ")[0]


#### numbers and names

MANY = "9" * 5000  # more digits than `int` takes


def test_a_trailer_of_thousands_of_digits_is_no_number(approved: Quick) -> None:
    approved.write("prd/approvals/note", "a note")
    approved.commit(f"a note\n\nPhases-Entry: {MANY}")
    approved.git("rm", "-q", "prd/approvals/note")
    approved.git("commit", "-q", "-m", "no note")
    approved.assert_audit_is_clean()
    approved.call("status")


@pytest.mark.parametrize("number", ["8", "٠٠٠٨", "+008", "0x08"])
def test_a_trailer_has_one_spelling(approved: Quick, number: str) -> None:
    """`run` read what `audit` refused."""
    forge(approved, "STARTED", STARTED, "txn 00", phase=2, feature="Q-002")
    forge(approved, "VERIFIED", "measured nothing", phase=2, feature="Q-002")
    message = approved.git("log", "-1", "--format=%B")
    changed = re.sub("Phases-Entry: .*", f"Phases-Entry: {number}", message)
    approved.git("commit", "-q", "--amend", "-m", changed)
    assert approved.states()["Q-002"] == "running"
    assert_refused(approved, "commit-trailers", "commit-untrailed")


@pytest.mark.parametrize(
    "heading",
    [f"### {MANY} · 2026-11-28T11:10:47Z · STARTED", "### 0007 · TIME · STARTED · Phase " + MANY],
)
def test_a_heading_of_thousands_of_digits_is_no_entry(approved: Quick, heading: str) -> None:
    heading = heading.replace("TIME", "2026-11-28T11:10:47Z")
    chain = f"- chain prev={'a' * 64} self={'b' * 64}"
    approved.write("progress.txt", f"{approved.progress}\n{heading}\n{chain}\n")
    assert_refused(approved, "chain-format")
    approved.call("status")


def test_a_line_of_thousands_of_digits_is_no_number(approved: Quick) -> None:
    forge(approved, "STARTED", STARTED, "txn 00", phase=2, feature="Q-002")
    ran = f"ran x for {MANY} s: attempt 1, seed 0, profile cpu, sandbox none"
    forge(approved, "VERIFIED", ran, phase=2, feature="Q-002")
    assert_refused(approved, "receipt-missing")
    approved.call("status")


#### receipts


def forge_attempt(quick: Quick, change: Callable[[dict[str, Any]], None], result: str = "") -> None:
    """Record the verified attempt of Q-001 once more, its receipt changed."""
    folder = "results/Q-001"
    forge(quick, "STARTED", STARTED, "txn 00", feature="Q-001")
    for word in ("receipt", "verdict"):
        path = quick.root / folder / f"{word}.json"
        document = json.loads(path.read_text())
        for subject in document["subject"]:
            if result and subject["name"] == "result.json":
                subject["digest"]["sha256"] = durable.sha256(result.encode())
        if word == "receipt":
            change(document)
        path.write_text(json.dumps(document))
    if result:
        quick.write(f"{folder}/result.json", result)
    lines = [file_line(quick, word, f"{folder}/{word}.json") for word in ("receipt", "verdict")]
    forge(quick, "VERIFIED", *lines, feature="Q-001")


def unchanged(_document: dict[str, Any]) -> None:
    """Change nothing of a receipt."""


def test_a_receipt_belongs_to_one_attempt(halted: Quick) -> None:
    forge_attempt(halted, unchanged)
    assert_refused(halted, "receipt-foreign")


@pytest.mark.parametrize("result", ["[]", "{bad", '{"measurements": 3}', "[" * 5000])
def test_a_forged_result_is_a_finding_and_no_traceback(halted: Quick, result: str) -> None:
    forge_attempt(halted, unchanged, result)
    assert audit_codes(halted) & {"result-changed", "receipt-foreign"}


@pytest.mark.parametrize(
    "name", ["x\0", "a" * 256, "../x", "/etc/passwd", "a//b"], ids=lambda name: ascii(name[:12])
)
def test_a_forged_name_is_a_finding_and_no_traceback(halted: Quick, name: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["subject"][0]["name"] = name

    forge_attempt(halted, change)
    assert "receipt-changed" in audit_codes(halted)


#### journal and ref


def test_a_committed_takeover_excuses_no_ref(halted: Quick) -> None:
    """PULLED named a commit, and whatever ref there was counted as whole."""
    newest = halted.git("rev-parse", "HEAD")
    entry = forge_entry(
        halted, "PULLED", [f"entries 0001 to 0005 were recorded elsewhere, up to commit {newest}"]
    )
    journal = halted.root / ".git/phases/journal"
    journal.write_bytes(journal.read_bytes()[: -len(entry.block)])
    forge_commit(halted, entry)
    assert "journal-lacks-commit" in audit_codes(halted)
    assert "warning: journal-lacks-commit" in halted.call("status").stderr


def test_status_warns_of_a_journal_with_another_header(approved: Quick) -> None:
    journal = approved.root / ".git/phases/journal"
    journal.write_text(journal.read_text().replace("# progress", "# other", 1))
    assert "journal-chain-prev" in audit_codes(approved)
    assert "warning: ledger-differs" in approved.call("status").stderr


@pytest.mark.parametrize(
    "change",
    [
        "cp $RECORD $EXTRA",
        "cp $RECORD $EXTRA && git add -A && git commit -qm extra",
        "cp $RECORD $EXTRA && git add -A && git commit -qm extra && rm $EXTRA",
        "cp $RECORD $EXTRA && git add -A && git commit -qm extra && echo more >> $EXTRA",
        "ln -s nowhere $EXTRA && git add -A && git commit -qm extra && rm $EXTRA",
        "mkfifo $EXTRA",
        'echo > "prd/approvals/$(printf "\\351\\033")"',
    ],
    ids=["new", "committed", "deleted", "edited", "link", "FIFO", "no text"],
)
def test_a_file_beside_the_decisions_is_seen_everywhere(approved: Quick, change: str) -> None:
    """In the work tree or in HEAD; one hint sets it aside."""
    variables = f"RECORD={RECORD} EXTRA=prd/approvals/phase-1.9.json; "
    subprocess.run(["sh", "-c", variables + change], cwd=approved.root, check=True)
    assert_seen_everywhere(approved, "approval-unrecorded")
    follow_hint(approved)
    approved.assert_audit_is_clean()
    approved.run("run", "--next")


def test_a_decision_that_was_edited_and_committed_is_restored_at_once(approved: Quick) -> None:
    text = (approved.root / RECORD).read_text()
    approved.write(RECORD, text.replace('"pass"', '"fail"'))
    approved.commit("another decision")
    assert_seen_everywhere(approved, "approval-missing")
    follow_hint(approved)
    approved.assert_audit_is_clean()
    assert (approved.root / RECORD).read_text() == text
    approved.run("run", "--next")
