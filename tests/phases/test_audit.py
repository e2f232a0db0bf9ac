"""Law 4: history is append-only and can be proved offline; each way of tampering has its own code.

The commands run inside this process: they do what the child processes of the other tests do,
without their start-up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged_record import audit_report
from terminal_user import as_asked, at_terminal
from toy import Toy, toy_plan, with_shell_gates

from phases.audit.clean import require_clean_audit
from phases.audit.findings import Finding, Report, Severity, Uncovered, audit_json, audit_text
from phases.base import durable
from phases.base.text import is_printable, utc_now
from phases.errors import IntegrityError
from phases.record.ledger import (
    Entry,
    EntryKind,
    Ledger,
    append_entry,
    chain_problems,
    parse_ledger,
    seal_entry,
)
from phases.record.project import open_project

Tamper = Callable[[Toy], object]


def codes(report: dict[str, Any], kind: str = "findings") -> set[str]:
    return {item["code"] for item in report[kind]}


@pytest.fixture(scope="session")
def _approved(_halted: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = _halted.copy(tmp_path_factory.mktemp("approved") / "toy")
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    return toy


@pytest.fixture
def approved(_approved: Toy, tmp_path: Path) -> Toy:
    """Return a toy repository whose only phase is approved."""
    return _approved.copy(tmp_path / "toy")


#### ways of tampering


def progress(toy: Toy) -> Path:
    return toy.root / "progress.txt"


def journal(toy: Toy) -> Path:
    return toy.root / ".git/phases/journal"


def edit_a_byte(path: Callable[[Toy], Path]) -> Tamper:
    """Return a change of one digit in a past entry."""

    def tamper(toy: Toy) -> None:
        text = path(toy).read_text()
        assert text.count("mean 2.8") == 2
        path(toy).write_text(text.replace("mean 2.8", "mean 2.9", 1))

    return tamper


def rechain(text: str, old: str, new: str) -> str:
    """Return the ledger with a passage replaced in its entries, and all hashes recomputed."""
    ledger = parse_ledger(text.encode())
    forged = Ledger(ledger.header, ())
    for entry in ledger.entries:
        lines = tuple(line.replace(old, new) for line in entry.lines)
        resealed = seal_entry(
            forged,
            entry.kind,
            lines,
            time=entry.time,
            phase=entry.phase,
            feature=entry.feature,
            title=entry.title,
        )
        forged = forged.with_entry(resealed)
    assert chain_problems(forged) == ()
    assert forged.data != text.encode()
    return forged.data.decode()


def trailers(entry: Entry) -> str:
    """Return the trailers of the runner's commit that ends with this entry."""
    head = f"Phases-Head: {entry.self_hash}"
    return f"Phases-Phase: 1\nPhases-Entry: {entry.seq:04d}\n{head}"


def rewrite(*paths: Callable[[Toy], Path], commit: bool = False) -> Tamper:
    """Return a change of an entry and all later hashes in these files.

    `commit`: also in a commit that looks like the runner's.
    """

    def tamper(toy: Toy) -> None:
        forged = rechain(toy.progress, "mean 2.8", "mean 2.9")
        for path in paths:
            path(toy).write_text(forged)
        if commit:
            last = parse_ledger(forged.encode()).entries[-1]
            toy.commit(f"Phase 1 Counting 1: awaiting approval\n\n{trailers(last)}")
            toy.git("update-ref", "refs/phases/log", "HEAD")

    return tamper


def cut(*paths: Callable[[Toy], Path], entries: int = 1) -> Tamper:
    """Return a change that removes the last entries from these files."""

    def tamper(toy: Toy) -> None:
        ledger = parse_ledger(toy.progress.encode())
        for path in paths:
            path(toy).write_bytes(Ledger(ledger.header, ledger.entries[:-entries]).data)

    return tamper


def add_an_entry(toy: Toy) -> None:
    ledger = parse_ledger(toy.progress.encode())
    entry = seal_entry(
        ledger,
        EntryKind.VERIFIED,
        ("measured nothing",),
        time=utc_now(),
        phase=1,
        feature="TOY-001",
        title="x",
    )
    progress(toy).write_bytes(ledger.data + entry.block)


def rebase(toy: Toy) -> None:
    toy.git("-c", "user.name=Somebody Else", "rebase", "-q", "--force-rebase", "--root")
    toy.git("diff", "--exit-code", "ORIG_HEAD", "HEAD")  # the same files, other commits


def remove_trailers(toy: Toy) -> None:
    toy.git("commit", "-q", "--amend", "-m", "awaiting approval")
    toy.git("update-ref", "refs/phases/log", "HEAD")


def amend(path: str) -> Tamper:
    """Return a change of a file in the last commit, which keeps its trailers and the log's ref."""

    def tamper(toy: Toy) -> None:
        toy.write(path, (toy.root / path).read_text() + " ")
        toy.git("commit", "-q", "--amend", "--no-edit", "--", path)
        toy.git("update-ref", "refs/phases/log", "HEAD")

    return tamper


def replace(path: str, old: str, new: str, *, commit: bool = False) -> Tamper:
    """Return a change of a passage of a file."""

    def tamper(toy: Toy) -> None:
        text = (toy.root / path).read_text()
        assert old in text
        toy.write(path, text.replace(old, new))
        if commit:
            toy.commit("a small correction")

    return tamper


def remove(path: str) -> Tamper:
    """Return a commit that deletes a file."""

    def tamper(toy: Toy) -> None:
        (toy.root / path).unlink()
        toy.commit("tidy up")

    return tamper


def change_artifact(toy: Toy) -> None:
    next((toy.root / ".phases/artifacts").rglob("*/*")).write_text("[3, 1, 4, 1, 6]")


#### the matrix: the change, audit's code, the exit code of `run --next` (4: nothing runs)

LEDGER = {
    "a byte of a past entry": (edit_a_byte(progress), "chain-self", 3),
    "a byte of the journal": (edit_a_byte(journal), "journal-chain-self", 3),
    "an entry and all later hashes": (rewrite(progress), "ledger-differs", 3),
    "the same in the journal only": (rewrite(journal), "journal-lacks-commit", 3),
    "the same in both": (rewrite(progress, journal), "journal-lacks-commit", 3),
    "the end cut off": (cut(progress), "ledger-differs", 3),
    "both ends cut off": (cut(progress, journal), "journal-lacks-commit", 3),
    "half the entries cut off both": (cut(progress, journal, entries=4), "journal-lacks-commit", 3),
    "an entry that the runner did not write": (add_an_entry, "entry-unknown", 3),
    "text after the end": (
        lambda toy: progress(toy).write_text(toy.progress + "approved by me\n"),
        "chain-format",
        3,
    ),
    "another header": (
        replace("progress.txt", "# progress.txt of Toy", "# progress.txt of Joy"),
        "chain-prev",
        3,
    ),
    "progress.txt deleted": (remove("progress.txt"), "ledger-deleted", 3),
}
HISTORY = {
    "the last commit dropped": (
        lambda toy: toy.git("reset", "-q", "--hard", "HEAD~1"),
        "history-rewound",
        3,
    ),
    "the last commit amended": (
        lambda toy: toy.git(
            "commit", "-q", "--amend", "--no-edit", "--author", "Somebody <x@example.org>"
        ),
        "history-rewound",
        3,
    ),
    "a rebase": (rebase, "history-rewound", 3),
    "another branch": (
        lambda toy: toy.git("switch", "-q", "-c", "other", "HEAD~2"),
        "history-rewound",
        3,
    ),
}
COMMITTED = {
    "trailers taken away": (remove_trailers, "commit-untrailed", 3),
    "everything rewritten and committed": (
        rewrite(progress, journal, commit=True),
        "ledger-rewritten",
        3,
    ),
}
STORED = {
    "a forged receipt": (
        replace("results/TOY-001/receipt.json", '"seed": 0', '"seed": 1'),
        "receipt-changed",
        4,
    ),
    "a forged receipt in a commit": (
        replace("results/TOY-001/receipt.json", '"exitCode": 0', '"exitCode": 00', commit=True),
        "receipt-changed",
        4,
    ),
    "a result": (replace("results/TOY-001/result.json", "2.8", "2.9"), "result-changed", 4),
    "a result in a commit": (
        replace("results/TOY-002/note.md", "five", "six", commit=True),
        "result-changed",
        4,
    ),
    "a result deleted": (remove("results/TOY-001/note.md"), "result-changed", 4),
    "the exit verdict, in its own commit": (
        amend("results/phase-1/verdict.json"),
        "named-file-changed",
        4,
    ),
    "the review request, in its own commit": (
        amend("results/phase-1/request.json"),
        "named-file-changed",
        4,
    ),
    "an artifact": (change_artifact, "artifact-changed", 4),
    "the plan lock": (
        replace("results/phase-1/lock.json", '"phase": 1', '"phase": 2'),
        "lock-changed",
        4,
    ),
    "the plan lock in a commit": (
        replace("results/phase-1/lock.json", '"phase": 1', '"phase": 2', commit=True),
        "lock-changed",
        4,
    ),
}


def check(toy: Toy, tamper: Tamper, code: str, run: int) -> None:
    assert audit_report(toy)[0] == 0  # the control: before, everything is valid
    tamper(toy)
    exit_code, report = audit_report(toy)
    assert exit_code == 3
    assert report["ok"] is False
    assert code in codes(report)
    before = toy.git("rev-parse", "HEAD"), toy.git("status", "--porcelain")
    toy.call("run", "--next", code=run)
    assert (toy.git("rev-parse", "HEAD"), toy.git("status", "--porcelain")) == before


@pytest.mark.parametrize("name", LEDGER)
def test_tampering_with_the_ledger_is_named_and_views_warn(halted: Toy, name: str) -> None:
    check(halted, *LEDGER[name])
    for view in ("status", "log", "plan"):
        result = halted.call(view)
        assert "warning: " in result.stderr


@pytest.mark.parametrize("name", HISTORY)
def test_tampering_with_the_history_is_named_and_views_warn(halted: Toy, name: str) -> None:
    newest = halted.git("rev-parse", "refs/phases/log")
    check(halted, *HISTORY[name])
    for view in ("status", "log", "plan"):
        result = halted.call(view)
        assert "warning: history-rewound" in result.stderr
        assert newest[:12] in result.stderr  # the way back


@pytest.mark.parametrize("name", [*COMMITTED, *STORED])
def test_tampering_with_commits_and_results_is_named(halted: Toy, name: str) -> None:
    check(halted, *(COMMITTED | STORED)[name])


def test_views_of_a_valid_record_warn_of_nothing(halted: Toy) -> None:
    for view in ("status", "log", "plan"):
        assert halted.call(view).stderr == ""


#### the report


def test_the_text_names_entry_and_path(halted: Toy) -> None:
    replace("results/TOY-001/note.md", "five", "six")(halted)
    result = halted.call("audit", code=3)
    lines = result.stdout.splitlines()
    line = next(line for line in lines if line.startswith("ERROR result-changed"))
    assert line.endswith("  [entry 0004 path results/TOY-001/note.md]")
    assert lines[-1] == "audit: 1 error"


def test_the_last_line_of_a_valid_record(halted: Toy) -> None:
    lines = halted.call("audit").stdout.splitlines()
    assert lines[0].startswith("checked 7 entries, 3 commits, 2 receipts, 0 approvals, ")
    assert lines[-1] == "audit: ok"


@pytest.mark.parametrize(
    ("errors", "warnings", "ok", "line"),
    [
        (0, 0, True, "audit: ok"),
        (1, 0, False, "audit: 1 error"),
        (3, 1, False, "audit: 3 errors, 1 warning"),
        (0, 2, True, "audit: 2 warnings"),
    ],
)
def test_the_last_line_counts_errors_and_warnings(
    *, errors: int, warnings: int, ok: bool, line: str
) -> None:
    error = Finding("chain-self", "entry 0002 was edited", entry=2, commit="ab" * 20)
    warning = Finding("published-changed", "edited", path="README.md", severity=Severity.WARNING)
    uncovered = Uncovered("no-journal", "a clone")
    report = Report(findings=[error] * errors + [warning] * warnings, uncovered=[uncovered])
    lines = audit_text(report).splitlines()
    assert lines[-1] == line
    assert lines[-2] == "uncovered no-journal: a clone"
    assert report.ok is ok
    document = json.loads(json.dumps(audit_json(report)))
    assert document["ok"] is ok
    severities = [finding["severity"] for finding in document["findings"]]
    assert severities == ["error"] * errors + ["warning"] * warnings
    if errors:
        assert "ERROR chain-self: entry 0002 was edited  [entry 0002 commit abababababab]" in lines
    if warnings:
        assert "WARNING published-changed: edited  [path README.md]" in lines


def test_a_quoted_document_moves_no_cursor() -> None:
    forged = "all is well\x1b[2J\x1b[H\r\nOK \u202e" + "x" * 10_000
    report = Report()
    report.add(Finding("receipt-foreign", forged, path=f"results/{forged}"))
    report.add(Uncovered("record-moved", forged))
    lines = audit_text(report).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert is_printable(line)
        assert len(line) < 5000
    assert is_printable(
        json.dumps(audit_json(report)["findings"][0]["message"], ensure_ascii=False)
    )


def test_an_absent_artifact_is_listed_and_no_error(halted: Toy) -> None:
    for path in (halted.root / ".phases/artifacts").rglob("*/*"):
        path.unlink()
    code, report = audit_report(halted)
    assert code == 0
    uncovered = [item["code"] for item in report["uncovered"]]
    assert uncovered == ["artifact-absent", "artifact-absent"]
    assert report["checked"]["artifacts"] == 0


def test_a_clone_says_what_it_cannot_cover(halted: Toy, tmp_path: Path) -> None:
    halted.git("clone", "-q", str(halted.root), str(tmp_path / "clone"))
    clone = object.__new__(Toy)
    clone.root = tmp_path / "clone"
    code, report = audit_report(clone)
    assert code == 0
    assert report["ok"] is True
    assert codes(report, "uncovered") == {"no-journal", "artifact-absent"}
    assert report["checked"] == {
        "entries": 7,
        "commits": 3,
        "receipts": 2,
        "approvals": 0,
        "artifacts": 0,
    }
    assert clone.call("status").stderr == ""
    clone.call("run", "--next", code=4)
    edit_a_byte(progress)(clone)
    assert audit_report(clone)[0] == 3


def kinds(toy: Toy) -> list[str]:
    return [entry.kind for entry in parse_ledger(toy.progress.encode()).entries]


def test_a_halt_that_no_commit_has_yet_is_no_finding(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(with_shell_gates(toy_plan(features=1)))
    toy.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "entered:kill:5"})
    assert kinds(toy)[-2:] == ["VERIFIED", "HALTED"]
    code, report = audit_report(toy)
    assert (code, report["findings"]) == (0, [])


def test_a_lock_that_another_one_replaced_binds_nothing(make_toy: Callable[..., Toy]) -> None:
    """Its commit was amended before anything was judged: git need not have it any more."""
    toy = make_toy(with_shell_gates(toy_plan(features=1)))
    toy.write("notes.md", "mine\n")
    toy.commit("my notes")
    toy.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "locked:kill"})
    assert kinds(toy) == ["GENESIS", "LOCKED"]
    locked = toy.git("rev-parse", "HEAD")
    toy.git("commit", "-q", "--amend", "-m", "my own notes")
    toy.git("reflog", "expire", "--expire=now", "--all")
    toy.git("gc", "-q", "--prune=now")
    assert locked not in toy.git("rev-list", "--all")
    toy.run("run", "--next")
    assert kinds(toy)[:4] == ["GENESIS", "LOCKED", "LOCKED", "STARTED"]
    code, report = audit_report(toy)
    assert (code, report["findings"]) == (0, [])


def test_what_a_user_commits_of_an_unfinished_run_is_a_warning(halted: Toy) -> None:
    ledger = parse_ledger(halted.progress.encode())
    entry = seal_entry(ledger, EntryKind.RECOVERED, ("reason a test",), time=utc_now())
    append_entry(progress(halted), journal(halted), ledger, entry)
    halted.commit("all that there is")
    code, report = audit_report(halted)
    assert code == 0
    assert [item["code"] for item in report["findings"]] == ["commit-untrailed"]


def test_a_ledger_that_came_back_is_a_warning(halted: Toy) -> None:
    text = halted.progress
    progress(halted).unlink()
    halted.commit("tidy up")
    halted.write("progress.txt", text.replace("mean 2.8", "mean 2.9"))
    halted.commit("correct")
    halted.write("progress.txt", text)
    halted.commit("as it was")
    code, report = audit_report(halted)
    assert (code, codes(report)) == (0, {"ledger-deleted"})
    # The runner goes on; what came back once is no error later.
    code, screen = at_terminal(halted.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    code, report = audit_report(halted)
    assert (code, codes(report)) == (0, {"ledger-deleted"})


def test_a_command_that_needs_a_clean_audit_names_what_is_not(halted: Toy) -> None:
    change_artifact(halted)
    replace("results/TOY-001/note.md", "five", "six")(halted)
    replace("results/TOY-002/note.md", "five", "six")(halted)
    replace("results/phase-1/lock.json", '"phase": 1', '"phase": 2')(halted)
    with pytest.raises(IntegrityError) as caught:
        require_clean_audit(open_project(halted.root), "nothing was asked")
    error = caught.value
    first, *listing = str(error).splitlines()
    assert first == "the audit finds 5 errors; nothing was asked:"  # both features' artifact
    assert error.code == "lock-changed"
    report = audit_report(halted)[1]
    errors = [f"  {item['code']}: {item['message']}" for item in report["findings"]]
    assert [line.partition("  [")[0] for line in listing] == errors[:3]
    assert error.hint.endswith(
        " restores what was recorded; python -m phases audit lists all of it"
    )


def test_entries_of_an_unfinished_run_are_listed(halted: Toy) -> None:
    ledger = parse_ledger(halted.progress.encode())
    entry = seal_entry(ledger, EntryKind.RECOVERED, ("reason a test",), time=utc_now())
    append_entry(progress(halted), journal(halted), ledger, entry)
    code, report = audit_report(halted)
    assert code == 0
    assert [item["code"] for item in report["uncovered"]] == ["uncommitted-entries"]
    cut(progress)(halted)  # only what was never committed: the next run restores it
    code, report = audit_report(halted)
    assert code == 0
    assert "uncommitted-end" in codes(report, "uncovered")


def test_a_ledger_of_another_history_is_foreign(halted: Toy, make_toy: Callable[..., Toy]) -> None:
    other = make_toy(name="other")
    other.write("progress.txt", halted.progress)
    other.commit("all done already")
    code, report = audit_report(other)
    assert code == 3
    assert {"genesis-foreign", "commit-untrailed"} <= codes(report)


def test_commits_of_the_user_in_between_break_nothing(halted: Toy) -> None:
    halted.write("notes.md", "mine\n")
    halted.commit("my notes")
    halted.git("switch", "-q", "-c", "side", "HEAD~1")
    halted.write("more.md", "more\n")
    halted.commit("more notes")
    halted.git("switch", "-q", "main")
    halted.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    code, report = audit_report(halted)
    assert (code, report["findings"]) == (0, [])


#### approvals


def test_an_approved_phase_is_valid(approved: Toy) -> None:
    code, report = audit_report(approved)
    assert (code, report["findings"]) == (0, [])
    assert report["checked"]["approvals"] == 1
    approved.call("run", "--next")


APPROVALS = {
    "record edited": (
        replace("prd/approvals/phase-1.1.json", '"reason": ""', '"reason": "well done"'),
        "approval-unrecorded",
        3,
    ),
    "record deleted": (remove("prd/approvals/phase-1.1.json"), "approval-missing", 3),
    "no trailers": (remove_trailers, "approval-missing", 3),
    "approval dropped": (
        lambda toy: toy.git("reset", "-q", "--hard", "HEAD~1"),
        "history-rewound",
        3,
    ),
    "a record that no entry names": (
        lambda toy: toy.write("prd/approvals/phase-1.2.json", "{}"),
        "approval-unrecorded",
        3,
    ),
    "a FIFO that no entry names": (
        lambda toy: os.mkfifo(toy.root / "prd/approvals/phase-1.2.json"),
        "approval-unrecorded",
        3,
    ),
    "a link to nothing that no entry names": (
        lambda toy: (toy.root / "prd/approvals/phase-1.2.json").symlink_to("nothing"),
        "approval-unrecorded",
        3,
    ),
    "a loop that no entry names": (
        lambda toy: (toy.root / "prd/approvals/loop").symlink_to("loop"),
        "approval-unrecorded",
        3,
    ),
    "a FIFO in the place of the folder": (
        lambda toy: (
            (toy.root / "prd/approvals").rename(toy.root.with_name("approvals")),
            os.mkfifo(toy.root / "prd/approvals"),
        ),
        "approval-unrecorded",
        3,
    ),
}


@pytest.mark.parametrize("name", APPROVALS)
def test_tampering_with_an_approval_is_named(approved: Toy, name: str) -> None:
    check(approved, *APPROVALS[name])


def test_a_record_bound_to_another_commit_is_invalid(approved: Toy) -> None:
    """Journal, ref and trailers can be forged; what the record binds still gives it away."""
    path = "prd/approvals/phase-1.1.json"
    record = (approved.root / path).read_text()
    document = json.loads(record)
    parent = approved.git("rev-parse", "HEAD~2")
    forged = record.replace(document["subject"][0]["digest"]["gitCommit"], parent)
    old, new = durable.sha256(record.encode()), durable.sha256(forged.encode())
    approved.git("reset", "-q", "--soft", "HEAD~1")
    approved.write(path, forged)
    text = rechain(approved.progress, old, new)
    for file in (progress(approved), journal(approved)):
        file.write_text(text)
    last = parse_ledger(text.encode()).entries[-1]
    approved.commit(f"approved\n\n{trailers(last)}")
    approved.git("update-ref", "refs/phases/log", "HEAD")
    code, report = audit_report(approved)
    assert code == 3
    assert codes(report) == {"approval-invalid"}


def test_a_rejection_does_not_count_as_an_approval(halted: Toy) -> None:
    """Everything is rewritten to an approval; the record still says what was decided."""
    code, screen = at_terminal(
        halted.root, "reject", "1", "--reason", "count twice", answer=as_asked
    )
    assert code == 0, screen
    ledger = parse_ledger(halted.progress.encode())
    rejection = ledger.entries[-1]
    assert rejection.kind == "REJECTED"
    forged = Ledger(ledger.header, ledger.entries[:-1])
    approval = seal_entry(
        forged,
        EntryKind.APPROVED,
        rejection.lines,
        time=rejection.time,
        phase=rejection.phase,
    )
    for file in (progress(halted), journal(halted)):
        file.write_bytes(forged.data + approval.block)
    halted.git("reset", "-q", "--soft", "HEAD~1")
    halted.commit(f"approved\n\n{trailers(approval)}")
    halted.git("update-ref", "refs/phases/log", "HEAD")
    code, report = audit_report(halted)
    assert code == 3
    assert "approval-invalid" in codes(report)
    status = json.loads(halted.call("status", "--json").stdout)
    assert status["phases"][0]["state"] == "running"
    halted.call("run", "--next", code=3)


WITHOUT_MEASUREMENTS = """
import os, pathlib
out = pathlib.Path(os.environ["PHASES_OUT"])
(out / "artifacts").mkdir()
(out / "artifacts" / "numbers.json").write_text("[14]")
(out / "result.json").write_text("{}")
"""


def test_a_result_without_measurements_is_audited(make_toy: Callable[..., Toy]) -> None:
    plan = toy_plan(features=1)
    plan["phases"][0]["exit"] = []
    gate = {"shell": 'test "$(cat artifacts/numbers.json result.json)" = "[14]{}"'}
    outputs = ["result.json", "artifacts/**"]
    plan["phases"][0]["features"][0].update(gate=gate, outputs=outputs)
    toy = make_toy(plan)
    toy.write("experiment.py", WITHOUT_MEASUREMENTS)
    toy.commit("no measurements")
    toy.run("run", "--next")
    assert "audit: ok" in toy.call("audit").stdout
