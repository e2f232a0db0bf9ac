"""Law 4: history is append-only and can be proved offline. Every way of tampering here must be named by its own code.

The commands run inside this process: they do what the child processes of the other tests do, without their start-up.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from terminal_user import as_asked, at_terminal
from toy import Toy

from phases import cli
from phases.base import durable
from phases.base.text import utc_now
from phases.record.ledger import Ledger, append_entry, chain_problems, parse_ledger, seal_entry

Tamper = Callable[[Toy], object]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def phases(toy: Toy, *words: str) -> Done:
    """`python -m phases --root … WORDS`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["phases", "--root", str(toy.root), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def audited(toy: Toy) -> tuple[int, dict[str, Any]]:
    """`audit --json`: the exit code and the report."""
    done = phases(toy, "audit", "--json")
    return done.code, json.loads(done.out)


@pytest.fixture(scope="session")
def _approved(_halted: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = _halted.copy(tmp_path_factory.mktemp("approved") / "toy")
    code, screen = at_terminal(toy.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    return toy


@pytest.fixture
def approved(_approved: Toy, tmp_path: Path) -> Toy:
    """A toy repository whose only phase is approved."""
    return _approved.copy(tmp_path / "toy")


#### what a forger does


def progress(toy: Toy) -> Path:
    return toy.root / "progress.txt"


def journal(toy: Toy) -> Path:
    return toy.root / ".git/phases/journal"


def edit_a_byte(path: Callable[[Toy], Path]) -> Tamper:
    """One digit of a past entry."""

    def tamper(toy: Toy) -> None:
        text = path(toy).read_text()
        assert text.count("mean 2.8") == 2
        path(toy).write_text(text.replace("mean 2.8", "mean 2.9", 1))

    return tamper


def chained_anew(text: str, old: str, new: str) -> str:
    """The ledger with a passage exchanged in one entry, and all hashes from there on made right again."""
    ledger = parse_ledger(text.encode())
    forged = Ledger(ledger.header, ())
    for entry in ledger.entries:
        lines = tuple(line.replace(old, new) for line in entry.lines)
        place = {"phase": entry.phase, "feature": entry.feature, "title": entry.title}
        again = seal_entry(forged, entry.kind, lines, time=entry.time, **place)
        forged = Ledger(ledger.header, (*forged.entries, again))
    assert chain_problems(forged) == ()
    assert forged.data != text.encode()
    return forged.data.decode()


def rewrite(*paths: Callable[[Toy], Path], commit: bool = False) -> Tamper:
    """An entry and all later hashes, in progress.txt, in the journal, in a commit that looks like the runner's."""

    def tamper(toy: Toy) -> None:
        forged = chained_anew(toy.progress, "mean 2.8", "mean 2.9")
        for path in paths:
            path(toy).write_text(forged)
        if commit:
            last = parse_ledger(forged.encode()).entries[-1]
            trailers = (
                f"Phases-Phase: 1\nPhases-Entry: {last.seq:04d}\nPhases-Head: {last.self_hash}"
            )
            toy.commit(f"Phase 1 Counting 1: awaiting approval\n\n{trailers}")
            toy.git("update-ref", "refs/phases/log", "HEAD")

    return tamper


def cut(*paths: Callable[[Toy], Path], entries: int = 1) -> Tamper:
    """The last entries taken away."""

    def tamper(toy: Toy) -> None:
        ledger = parse_ledger(toy.progress.encode())
        for path in paths:
            path(toy).write_bytes(Ledger(ledger.header, ledger.entries[:-entries]).data)

    return tamper


def add_an_entry(toy: Toy) -> None:
    ledger = parse_ledger(toy.progress.encode())
    entry = seal_entry(
        ledger,
        "VERIFIED",
        ("found nothing",),
        time=utc_now(),
        phase=1,
        feature="TOY-001",
        title="x",
    )
    progress(toy).write_bytes(ledger.data + entry.block)


def rebase(toy: Toy) -> None:
    toy.git("-c", "user.name=Somebody Else", "rebase", "-q", "--force-rebase", "--root")
    toy.git("diff", "--exit-code", "ORIG_HEAD", "HEAD")  # the same files, other commits


def without_trailers(toy: Toy) -> None:
    toy.git("commit", "-q", "--amend", "-m", "awaiting approval")
    toy.git("update-ref", "refs/phases/log", "HEAD")


def amended(path: str) -> Tamper:
    """A file of the last commit changed in that commit, trailers and the log's ref kept."""

    def tamper(toy: Toy) -> None:
        toy.write(path, (toy.root / path).read_text() + " ")
        toy.git("commit", "-q", "--amend", "--no-edit", "--", path)
        toy.git("update-ref", "refs/phases/log", "HEAD")

    return tamper


def replaced(path: str, old: str, new: str, commit: bool = False) -> Tamper:
    """A passage of a file, exchanged."""

    def tamper(toy: Toy) -> None:
        text = (toy.root / path).read_text()
        assert old in text
        toy.write(path, text.replace(old, new))
        if commit:
            toy.commit("a small correction")

    return tamper


def removed(path: str) -> Tamper:
    """A file deleted in a commit."""

    def tamper(toy: Toy) -> None:
        (toy.root / path).unlink()
        toy.commit("tidy up")

    return tamper


def another_artifact(toy: Toy) -> None:
    next((toy.root / ".phases/artifacts").rglob("*/*")).write_text("[3, 1, 4, 1, 6]")


#### the matrix: what it is, what audit calls it, how `run --next` ends (4: the phase still waits, nothing runs)

LEDGER = {
    "a byte of a past entry": (edit_a_byte(progress), "chain-self", 3),
    "a byte of the journal": (edit_a_byte(journal), "journal-chain-self", 3),
    "an entry and all later hashes": (rewrite(progress), "ledger-differs", 3),
    "the same in the journal only": (rewrite(journal), "journal-lacks-commit", 3),
    "the same in both": (rewrite(progress, journal), "journal-lacks-commit", 3),
    "the end cut off": (cut(progress), "ledger-differs", 3),
    "both ends cut off": (cut(progress, journal), "journal-lacks-commit", 3),
    "half the entries cut off both": (cut(progress, journal, entries=4), "journal-lacks-commit", 3),
    "an entry that nobody wrote": (add_an_entry, "entry-unknown", 3),
    "text after the end": (
        lambda toy: progress(toy).write_text(toy.progress + "approved by me\n"),
        "chain-format",
        3,
    ),
    "another header": (
        replaced("progress.txt", "# progress.txt of Toy", "# progress.txt of Joy"),
        "chain-prev",
        3,
    ),
    "progress.txt deleted": (removed("progress.txt"), "ledger-deleted", 4),
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
    "trailers taken away": (without_trailers, "commit-untrailed", 4),
    "everything rewritten and committed": (
        rewrite(progress, journal, commit=True),
        "ledger-rewritten",
        4,
    ),
}
STORED = {
    "a forged receipt": (
        replaced("results/TOY-001/receipt.json", '"seed": 0', '"seed": 1'),
        "receipt-changed",
        4,
    ),
    "a forged receipt in a commit": (
        replaced("results/TOY-001/receipt.json", '"exitCode": 0', '"exitCode": 00', commit=True),
        "receipt-changed",
        4,
    ),
    "a result": (replaced("results/TOY-001/result.json", "2.8", "2.9"), "result-changed", 4),
    "a result in a commit": (
        replaced("results/TOY-002/note.md", "five", "six", commit=True),
        "result-changed",
        4,
    ),
    "a result deleted": (removed("results/TOY-001/note.md"), "result-changed", 4),
    "the exit verdict, in its own commit": (
        amended("results/phase-1/verdict.json"),
        "named-file-changed",
        4,
    ),
    "the review request, in its own commit": (
        amended("results/phase-1/request.json"),
        "named-file-changed",
        4,
    ),
    "an artifact": (another_artifact, "artifact-changed", 4),
    "the plan lock": (
        replaced("results/phase-1/lock.json", '"phase": 1', '"phase": 2'),
        "lock-changed",
        4,
    ),
    "the plan lock in a commit": (
        replaced("results/phase-1/lock.json", '"phase": 1', '"phase": 2', commit=True),
        "lock-changed",
        4,
    ),
}


def check(toy: Toy, tamper: Tamper, code: str, run: int) -> None:
    assert audited(toy)[0] == 0  # the control: before, everything holds
    tamper(toy)
    ended, report = audited(toy)
    assert ended == 3
    assert report["ok"] is False
    assert code in {item["code"] for item in report["findings"]}
    before = toy.git("rev-parse", "HEAD"), toy.git("status", "--porcelain")
    assert phases(toy, "run", "--next").code == run
    assert (toy.git("rev-parse", "HEAD"), toy.git("status", "--porcelain")) == before


@pytest.mark.parametrize("name", LEDGER)
def test_what_is_done_to_the_ledger_is_named_and_views_warn(halted: Toy, name: str) -> None:
    check(halted, *LEDGER[name])
    for view in (["status"], ["log"], ["plan"]):
        shown = phases(halted, *view)
        assert shown.code == 0, shown.err
        assert "warning: " in shown.err


@pytest.mark.parametrize("name", HISTORY)
def test_what_is_done_to_the_history_is_named_and_views_warn(halted: Toy, name: str) -> None:
    lost = halted.git("rev-parse", "refs/phases/log")
    check(halted, *HISTORY[name])
    for view in (["status"], ["log"], ["plan"]):
        shown = phases(halted, *view)
        assert shown.code == 0, shown.err
        assert "warning: history-rewound" in shown.err
        assert lost[:12] in shown.err  # the way back


@pytest.mark.parametrize("name", [*COMMITTED, *STORED])
def test_what_is_done_to_commits_and_results_is_named(halted: Toy, name: str) -> None:
    check(halted, *(COMMITTED | STORED)[name])


def test_views_of_a_sound_record_warn_of_nothing(halted: Toy) -> None:
    for view in (["status"], ["log"], ["plan"]):
        shown = phases(halted, *view)
        assert (shown.code, shown.err) == (0, "")


def test_the_text_names_entry_commit_and_path(halted: Toy) -> None:
    replaced("results/TOY-001/note.md", "five", "six")(halted)
    done = phases(halted, "audit")
    assert done.code == 3
    line = next(line for line in done.out.splitlines() if line.startswith("ERROR result-changed"))
    assert "[entry 0004 path results/TOY-001/note.md]" in line
    assert "1 things do not hold" in done.out


def test_an_absent_artifact_is_listed_and_no_error(halted: Toy) -> None:
    for path in (halted.root / ".phases/artifacts").rglob("*/*"):
        path.unlink()
    code, report = audited(halted)
    assert code == 0
    assert [item["code"] for item in report["uncovered"]] == ["artifact-absent", "artifact-absent"]
    assert report["checked"]["artifacts"] == 0


def test_a_clone_says_what_it_cannot_cover(halted: Toy, tmp_path: Path) -> None:
    halted.git("clone", "-q", str(halted.root), str(tmp_path / "clone"))
    clone = object.__new__(Toy)
    clone.root = tmp_path / "clone"
    code, report = audited(clone)
    assert code == 0
    assert report["ok"] is True
    assert {item["code"] for item in report["uncovered"]} == {"no-journal", "artifact-absent"}
    assert report["checked"] == {
        "entries": 7,
        "commits": 3,
        "receipts": 2,
        "approvals": 0,
        "artifacts": 0,
    }
    assert phases(clone, "status").err == ""
    assert phases(clone, "run", "--next").code == 4
    edit_a_byte(progress)(clone)
    assert audited(clone)[0] == 3


def test_entries_of_a_run_that_is_not_over_are_listed(halted: Toy) -> None:
    ledger = parse_ledger(halted.progress.encode())
    entry = seal_entry(ledger, "RECOVERED", ("reason a test",), time=utc_now())
    append_entry(progress(halted), journal(halted), ledger, entry)
    code, report = audited(halted)
    assert code == 0
    assert [item["code"] for item in report["uncovered"]] == ["uncommitted-entries"]
    cut(progress)(halted)  # only what was never committed: the next run restores it
    code, report = audited(halted)
    assert code == 0
    assert "uncommitted-end" in {item["code"] for item in report["uncovered"]}


def test_a_ledger_of_another_history_is_foreign(halted: Toy, make_toy: Callable[..., Toy]) -> None:
    other = make_toy(name="other")
    other.write("progress.txt", halted.progress)
    other.commit("all done already")
    code, report = audited(other)
    assert code == 3
    assert {"genesis-foreign", "commit-untrailed"} <= {item["code"] for item in report["findings"]}


def test_commits_of_the_user_in_between_break_nothing(halted: Toy) -> None:
    halted.write("notes.md", "mine\n")
    halted.commit("my notes")
    halted.git("switch", "-q", "-c", "side", "HEAD~1")
    halted.write("more.md", "more\n")
    halted.commit("more notes")
    halted.git("switch", "-q", "main")
    halted.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    code, report = audited(halted)
    assert (code, report["findings"]) == (0, [])


#### approvals


def test_an_approved_phase_holds(approved: Toy) -> None:
    code, report = audited(approved)
    assert (code, report["findings"]) == (0, [])
    assert report["checked"]["approvals"] == 1
    assert phases(approved, "run", "--next").code == 0


@pytest.mark.parametrize(
    ("tamper", "code", "run"),
    [
        (replaced("prd/approvals/phase-1.1.json", '"reason": ""', '"reason": "well done"'), "approval-unrecorded", 3),
        (removed("prd/approvals/phase-1.1.json"), "approval-missing", 4),
        (without_trailers, "approval-missing", 4),
        (lambda toy: toy.git("reset", "-q", "--hard", "HEAD~1"), "history-rewound", 3),
        (
            lambda toy: toy.write("prd/approvals/phase-1.2.json", "{}"),
            "approval-unrecorded",
            3,
        ),
    ],
    ids=["record edited", "record deleted", "no trailers", "approval dropped", "a record that no entry names"],
)  # fmt: skip
def test_what_is_done_to_an_approval_is_named(
    approved: Toy, tamper: Tamper, code: str, run: int
) -> None:
    tamper(approved)
    ended, report = audited(approved)
    assert ended == 3
    assert code in {item["code"] for item in report["findings"]}
    assert phases(approved, "run", "--next").code == run


def test_a_record_bound_to_another_commit_is_invalid(approved: Toy) -> None:
    """Who holds journal, ref and trailers can forge a decision's entry; what the record binds still gives it away."""
    path = "prd/approvals/phase-1.1.json"
    record = (approved.root / path).read_text()
    document = json.loads(record)
    parent = approved.git("rev-parse", "HEAD~2")
    forged = record.replace(document["subject"][0]["digest"]["gitCommit"], parent)
    old, new = durable.sha256(record.encode()), durable.sha256(forged.encode())
    approved.git("reset", "-q", "--soft", "HEAD~1")
    approved.write(path, forged)
    text = chained_anew(approved.progress, old, new)
    for file in (progress(approved), journal(approved)):
        file.write_text(text)
    last = parse_ledger(text.encode()).entries[-1]
    approved.commit(
        f"approved\n\nPhases-Phase: 1\nPhases-Entry: {last.seq:04d}\nPhases-Head: {last.self_hash}"
    )
    approved.git("update-ref", "refs/phases/log", "HEAD")
    code, report = audited(approved)
    assert code == 3
    assert {item["code"] for item in report["findings"]} == {"approval-invalid"}


def test_a_rejection_does_not_count_as_an_approval(halted: Toy) -> None:
    """Who can rewrite everything turns a person's "no" into a "yes": the record still says what was decided."""
    code, screen = at_terminal(
        halted.root, "reject", "1", "--reason", "count twice", answer=as_asked
    )
    assert code == 0, screen
    ledger = parse_ledger(halted.progress.encode())
    said = ledger.entries[-1]
    assert said.kind == "REJECTED"
    forged = Ledger(ledger.header, ledger.entries[:-1])
    yes = seal_entry(forged, "APPROVED", said.lines, time=said.time, phase=said.phase)
    for file in (progress(halted), journal(halted)):
        file.write_bytes(forged.data + yes.block)
    halted.git("reset", "-q", "--soft", "HEAD~1")
    halted.commit(
        f"approved\n\nPhases-Phase: 1\nPhases-Entry: {yes.seq:04d}\nPhases-Head: {yes.self_hash}"
    )
    halted.git("update-ref", "refs/phases/log", "HEAD")
    ended, report = audited(halted)
    assert ended == 3
    assert "approval-missing" in {item["code"] for item in report["findings"]}
    assert (
        json.loads(phases(halted, "status", "--json").out)["phases"][0]["state"]
        == "awaiting_approval"
    )
    assert phases(halted, "run", "--next").code in (3, 4)
