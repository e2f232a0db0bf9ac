"""The checker sees every violation that is made on purpose, and none in a valid repository."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from invariants import (
    entries,
    exit_violations,
    git,
    leftovers,
    progress,
    sha256,
    shape,
    untouched,
    user_violations,
    violations,
)
from quick import Quick
from terminal_user import as_asked, at_terminal


def names(problems: list[str]) -> set[str]:
    """Return the names of the invariants that are violated."""
    return {problem.split(" ", 1)[0] for problem in problems}


def test_a_valid_repository_has_none(waiting: Quick) -> None:
    assert violations(waiting.root, progress(waiting.root)) == []
    assert leftovers(waiting.root, waiting.temporary) == []
    assert len(entries(waiting.root)) == 5


#### violations in the record


def append_forged_entry(
    quick: Quick, heading: str, *lines: str, with_trailers: bool = False
) -> None:
    """Append a well-formed entry, as a forger who knows the format writes it, and commit it."""
    blocks = entries(quick.root)
    body = "".join(f"- {line}\n" for line in lines)
    number = f"{len(blocks) + 1:04d}"
    text = f"### {number} · 2026-11-23T00:00:00Z · {heading}\n{body}"
    sealed = f"{text}- chain prev={blocks[-1].self_hash}".encode()
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes() + b"\n" + sealed + f" self={sha256(sealed)}\n".encode())
    message = "forged"
    if with_trailers:
        message += f"\n\nPhases-Entry: {number}\nPhases-Head: {sha256(sealed)}\n"
    quick.commit(message)


def edit_a_byte(quick: Quick) -> None:
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes().replace(b"total 14", b"total 15"))


def cut_the_end(quick: Quick) -> None:
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes()[:-200])


def verify_twice(quick: Quick) -> None:
    lines = next(block.lines for block in entries(quick.root) if block.kind == "VERIFIED")
    append_forged_entry(quick, "VERIFIED · Phase 1 · Q-001 Count 1", *lines)


def rewrite_and_commit(quick: Quick) -> None:
    path = quick.root / "progress.txt"
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\n### ")])
    quick.commit("rewritten")


def change_a_receipt(quick: Quick) -> None:
    quick.git("reset", "-q", "--soft", "HEAD~2")
    quick.write("results/Q-001/receipt.json", "{}\n")
    quick.git("add", "-A")
    quick.git("commit", "-q", "-m", "x\n\nPhases-Entry: 0004\n")


def damage_an_artifact(quick: Quick) -> None:
    store = quick.root / ".phases/artifacts"
    artifact = next(path for path in store.rglob("*") if path.is_file())
    artifact.write_text("[15]\n")


def begin_the_next_phase(quick: Quick) -> None:
    started = "attempt 1, sh worker.sh, seed 0, profile cpu, sandbox none"
    append_forged_entry(quick, "STARTED · Phase 2 · Q-002 Count 2", started)


def approve_without_a_record(quick: Quick) -> None:
    record = f"record sha256:{'0' * 64} prd/approvals/phase-1.1.json"
    append_forged_entry(quick, "APPROVED · Phase 1", record)


def commit_twice(quick: Quick) -> None:
    txn = quick.git("log", "-1", "--format=%(trailers:key=Phases-Txn,valueonly)").strip()
    quick.git("commit", "-q", "--allow-empty", "-m", f"again\n\nPhases-Txn: {txn}\n")


def verify_with_trailers(quick: Quick) -> None:
    lines = next(block.lines for block in entries(quick.root) if block.kind == "VERIFIED")
    append_forged_entry(quick, "VERIFIED · Phase 1 · Q-001 Count 1", *lines, with_trailers=True)


def merge_an_outcome(quick: Quick) -> None:
    quick.git("switch", "-q", "-c", "side", "HEAD~1")
    quick.write("note.txt", "a note\n")
    quick.commit("a note")
    quick.git("switch", "-q", "main")
    quick.git("merge", "-q", "--no-ff", "--no-commit", "side")
    append_forged_entry(quick, "ERRORED · Phase 1 · Q-001 Count 1", "reason none")


def pull_a_receipt(quick: Quick) -> None:
    append_forged_entry(quick, "PULLED", f"receipt sha256:{'0' * 64} results/Q-001/receipt.json")


VIOLATIONS: dict[str, tuple[Callable[[Quick], None], set[str]]] = {
    "a byte is edited": (edit_a_byte, {"I1", "I3", "I4"}),
    "the end is cut off": (cut_the_end, {"I1", "I3", "I4"}),
    "one attempt is verified twice": (verify_twice, {"I2", "I5", "I14"}),
    "a commit rewrites the ledger": (rewrite_and_commit, {"I1", "I4"}),
    "a receipt is changed": (change_a_receipt, {"I5", "I14"}),
    "an artifact is damaged": (damage_an_artifact, {"I5"}),
    "a phase begins too early": (begin_the_next_phase, {"I6"}),
    "an approval has no record": (approve_without_a_record, {"I6", "I14"}),
    "a transaction has two commits": (commit_twice, {"I2"}),
    "one attempt is verified twice, with trailers": (verify_with_trailers, {"I2"}),
    "a merge brings an outcome": (merge_an_outcome, {"I14"}),
    "an entry takes a receipt over": (pull_a_receipt, {"I14"}),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_in_the_record_is_seen(name: str, waiting: Quick) -> None:
    before = progress(waiting.root)
    violate, expected = VIOLATIONS[name]
    violate(waiting)
    assert names(violations(waiting.root, before)) == expected


def test_an_entry_that_only_takes_over_is_none(waiting: Quick) -> None:
    append_forged_entry(waiting, "PULLED", "reason entries 0001 to 0005 came from elsewhere")
    assert violations(waiting.root, progress(waiting.root)) == []


#### violations in decisions


@pytest.fixture(scope="session")
def _decided(_waiting: Quick, tmp_path_factory: pytest.TempPathFactory) -> Quick:
    quick = _waiting.copy(tmp_path_factory.mktemp("decided") / "quick")
    code, screen = at_terminal(quick.root, "approve", "1", answer=as_asked)
    assert code == 0, screen
    assert violations(quick.root) == []
    return quick


@pytest.fixture
def decided(_decided: Quick, tmp_path: Path) -> Quick:
    """Return a repository whose only phase is approved."""
    return _decided.copy(tmp_path / "quick")


def name_the_record_again(quick: Quick) -> None:
    lines = entries(quick.root)[-1].lines
    append_forged_entry(quick, "APPROVED · Phase 1", *lines, with_trailers=True)


def name_the_record_as_another_decision(quick: Quick) -> None:
    lines = entries(quick.root)[-1].lines
    append_forged_entry(quick, "REJECTED · Phase 1", *lines, with_trailers=True)


def approve_in_a_users_commit(quick: Quick) -> None:
    quick.git("reset", "-q", "--soft", "HEAD~1")
    quick.git("commit", "-q", "-m", "approved by me")


def approve_without_a_halt(quick: Quick) -> None:
    """Let the approval follow a new attempt: what it approves no longer waits."""
    lines = entries(quick.root)[-1].lines
    quick.git("reset", "-q", "--hard", "HEAD~1")
    started = "attempt 2, sh worker.sh, seed 0, profile cpu, sandbox none"
    append_forged_entry(quick, "STARTED · Phase 1 · Q-001 Count 1", started)
    quick.git("checkout", "-q", "ORIG_HEAD", "--", "prd/approvals")
    append_forged_entry(quick, "APPROVED · Phase 1", *lines, with_trailers=True)


def approve_another_halt(quick: Quick) -> None:
    """Let the approval follow a second halt of the same request."""
    lines = entries(quick.root)[-1].lines
    halt = next(block.lines for block in entries(quick.root) if block.kind == "HALTED")
    quick.git("reset", "-q", "--hard", "HEAD~1")
    append_forged_entry(quick, "HALTED · Phase 1", *halt, with_trailers=True)
    quick.git("checkout", "-q", "ORIG_HEAD", "--", "prd/approvals")
    append_forged_entry(quick, "APPROVED · Phase 1", *lines, with_trailers=True)


def delete_the_record(quick: Quick) -> None:
    quick.git("rm", "-q", "-r", "prd/approvals")
    quick.git("commit", "-q", "-m", "deleted")


DECISIONS: dict[str, tuple[Callable[[Quick], None], set[str]]] = {
    "two entries name one record": (name_the_record_again, {"I14"}),
    "two kinds of entries name one record": (name_the_record_as_another_decision, {"I14"}),
    "a user's commit brings a decision": (approve_in_a_users_commit, {"I14"}),
    "nothing waits": (approve_without_a_halt, {"I14"}),
    "another halt waits": (approve_another_halt, {"I14"}),
    "the record is deleted": (delete_the_record, {"I6", "I14"}),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_a_violation_in_a_decision_is_seen(name: str, decided: Quick) -> None:
    violate, expected = DECISIONS[name]
    violate(decided)
    assert names(violations(decided.root)) == expected


#### what is left


@pytest.fixture
def with_process(waiting: Quick) -> Iterator[Quick]:
    """Return a repository in which a process runs."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(command, cwd=waiting.root)
    yield waiting
    process.kill()
    process.wait()


def test_a_process_that_is_left_is_seen(with_process: Quick) -> None:
    assert names(leftovers(with_process.root)) == {"I11"}


FILES = {
    "results/Q-001/.result.json.77.tmp": "I8",
    "results/Q-001/half.json": "I8",
    ".phases/pending/abc/0": "I8",
    ".git/index.lock": "I12",
    ".git/refs/heads/main.lock": "I12",
}


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_is_left_is_seen(path: str, waiting: Quick) -> None:
    waiting.write(path, "x")
    assert names(leftovers(waiting.root)) == {FILES[path]}


def test_a_held_lock_and_a_staging_folder_are_seen(waiting: Quick) -> None:
    (waiting.temporary / "phases-run-x").mkdir()
    with (waiting.root / ".git/phases/lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert names(leftovers(waiting.root, waiting.temporary)) == {"I11", "I12"}


#### the user's files, exits, the end


def test_a_users_change_is_seen(waiting: Quick) -> None:
    before = untouched(waiting.root)
    assert user_violations(waiting.root, before) == []
    waiting.write("user.txt", "text\n")
    assert names(user_violations(waiting.root, before)) == {"I7"}
    before = untouched(waiting.root)
    waiting.git("add", "user.txt")
    assert user_violations(waiting.root, before) == ["I7 the user's part of the index changed"]


def test_exits_are_judged() -> None:
    def judge(code: int, stderr: str) -> set[str]:
        return names(exit_violations(SimpleNamespace(returncode=code, stderr=stderr)))

    assert judge(0, "") == set()
    assert judge(7, "error: x\nnext: y\n") == set()
    assert judge(7, "error: x\n") == {"I9"}
    assert judge(-9, "") == {"I9"}
    assert judge(1, "Traceback (most recent call last)") == {"I9"}


def test_the_shape_differs_where_the_end_does(waiting: Quick, tmp_path: Path) -> None:
    other = waiting.copy(tmp_path / "other")
    assert shape(other.root) == shape(waiting.root)
    commit_twice(other)
    assert shape(other.root) != shape(waiting.root)


def test_what_git_commits_meanwhile_is_no_violation(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner is killed alone, and its git goes on while the record is checked."""
    quick.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "files:kill"})
    calls = 0
    commit_at = None
    checked = quick

    def git_beside(root: Path, *words: str) -> bytes:
        nonlocal calls
        calls += 1
        if calls == commit_at:
            checked.run("run", "--next", code=-9, env={"PHASES_FAILPOINT": "committed:kill"})
        return git(root, *words)

    monkeypatch.setattr("invariants.git", git_beside)
    assert violations(quick.root) == []
    for number in range(1, calls + 1):
        checked = quick.copy(tmp_path / f"copy-{number}" / "quick")
        calls, commit_at = 0, number
        assert violations(checked.root) == []
        assert calls >= number
