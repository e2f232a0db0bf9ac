"""The checker sees what is planted, and sees nothing in a sound repository."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from invariants import (
    entries,
    exit_violations,
    leftovers,
    progress,
    sha256,
    shape,
    untouched,
    user_violations,
    violations,
)
from quick import Quick


def codes(found: list[str]) -> set[str]:
    return {line.split(" ", 1)[0] for line in found}


def reseal(text: bytes, prev: str) -> bytes:
    """An entry's block with its hashes computed as the format says; what a forger who knows the format writes."""
    sealed = text.replace(b"PREV", prev.encode())
    return b"\n" + sealed + b" self=" + sha256(sealed).encode() + b"\n"


def forged(quick: Quick, heading: str, *facts: str) -> None:
    """Appends a well-formed entry and commits it."""
    blocks = entries(quick.root)
    body = "".join(f"- {fact}\n" for fact in facts)
    text = f"### {len(blocks) + 1:04d} · 2026-11-23T00:00:00Z · {heading}\n{body}- chain prev=PREV".encode()
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes() + reseal(text, blocks[-1].self_hash))
    quick.commit("forged")


def test_a_sound_repository_has_none(waiting: Quick) -> None:
    assert violations(waiting.root, progress(waiting.root)) == []
    assert leftovers(waiting.root, waiting.temporary) == []
    assert len(entries(waiting.root)) == 5


def edit_a_byte(quick: Quick) -> None:
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes().replace(b"total 14", b"total 15"))


def cut_the_end(quick: Quick) -> None:
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes()[:-200])


def verify_twice(quick: Quick) -> None:
    facts = next(block.facts for block in entries(quick.root) if block.kind == "VERIFIED")
    forged(quick, "VERIFIED · Phase 1 · Q-001 Count 1", *facts)


def rewrite_and_commit(quick: Quick) -> None:
    path = quick.root / "progress.txt"
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b"\n### ")])
    quick.commit("rewritten")


def change_a_result(quick: Quick) -> None:
    quick.git("reset", "-q", "--soft", "HEAD~2")
    quick.write("results/Q-001/receipt.json", "{}\n")
    quick.git("add", "-A")
    quick.git("commit", "-q", "-m", "x\n\nPhases-Entry: 0004\n")


def damage_an_artifact(quick: Quick) -> None:
    path = next(path for path in (quick.root / ".phases/artifacts").rglob("*") if path.is_file())
    path.write_text("[15]\n")


def begin_the_next_phase(quick: Quick) -> None:
    forged(
        quick,
        "STARTED · Phase 2 · Q-002 Count 2",
        "attempt 1, sh worker.sh, seed 0, profile cpu, sandbox none",
    )


def approve_without_a_record(quick: Quick) -> None:
    forged(quick, "APPROVED · Phase 1", f"record sha256:{'0' * 64} prd/approvals/phase-1.1.json")


def commit_twice(quick: Quick) -> None:
    txn = quick.git("log", "-1", "--format=%(trailers:key=Phases-Txn,valueonly)").strip()
    quick.git("commit", "-q", "--allow-empty", "-m", f"again\n\nPhases-Txn: {txn}\n")


PLANTED: dict[str, tuple[Callable[[Quick], None], set[str]]] = {
    "a byte is edited": (edit_a_byte, {"I1", "I3", "I4"}),
    "the end is cut off": (cut_the_end, {"I1", "I3", "I4"}),
    "one attempt is verified twice": (verify_twice, {"I2", "I5"}),
    "a commit rewrites the ledger": (rewrite_and_commit, {"I1", "I4"}),
    "a receipt is changed": (change_a_result, {"I5"}),
    "an artifact is damaged": (damage_an_artifact, {"I5"}),
    "a phase begins too early": (begin_the_next_phase, {"I6"}),
    "an approval has no record": (approve_without_a_record, {"I6"}),
    "a transaction has two commits": (commit_twice, {"I2"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_in_the_record_is_seen(name: str, waiting: Quick) -> None:
    before = progress(waiting.root)
    plant, wanted = PLANTED[name]
    plant(waiting)
    assert codes(violations(waiting.root, before)) == wanted


@pytest.fixture
def at_work(waiting: Quick) -> Iterator[Quick]:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], cwd=waiting.root
    )
    yield waiting
    child.kill()
    child.wait()


def test_a_process_that_is_left_is_seen(at_work: Quick) -> None:
    assert codes(leftovers(at_work.root)) == {"I11"}


@pytest.mark.parametrize(
    ("path", "code"),
    [("results/Q-001/.result.json.77.tmp", "I8"), ("results/Q-001/half.json", "I8"), (".phases/pending/abc/0", "I8"),
     (".git/index.lock", "I12"), (".git/refs/heads/main.lock", "I12")],
)  # fmt: skip
def test_what_is_left_on_disk_is_seen(path: str, code: str, waiting: Quick) -> None:
    waiting.write(path, "x")
    assert codes(leftovers(waiting.root)) == {code}


def test_a_held_lock_and_a_staging_folder_are_seen(waiting: Quick) -> None:
    import fcntl

    (waiting.temporary / "phases-run-x").mkdir()
    with (waiting.root / ".git/phases/lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert codes(leftovers(waiting.root, waiting.temporary)) == {"I11", "I12"}


def test_a_users_change_is_seen(waiting: Quick) -> None:
    before = untouched(waiting.root)
    assert user_violations(waiting.root, before) == []
    waiting.write("mine.txt", "mine\n")
    assert codes(user_violations(waiting.root, before)) == {"I7"}
    before = untouched(waiting.root)
    waiting.git("add", "mine.txt")
    assert user_violations(waiting.root, before) == ["I7 the user's part of the index changed"]


def test_exits_are_judged() -> None:
    def done(code: int, stderr: str) -> SimpleNamespace:
        return SimpleNamespace(returncode=code, stderr=stderr)

    assert exit_violations(done(0, "")) == []
    assert exit_violations(done(7, "error: x\nnext: y\n")) == []
    assert codes(exit_violations(done(7, "error: x\n"))) == {"I9"}
    assert codes(exit_violations(done(-9, ""))) == {"I9"}
    assert codes(exit_violations(done(1, "Traceback (most recent call last)"))) == {"I9"}


def test_the_shape_differs_where_the_end_does(waiting: Quick, tmp_path: Path) -> None:
    other = waiting.copy(tmp_path / "other")
    assert shape(other.root) == shape(waiting.root)
    commit_twice(other)
    assert shape(other.root) != shape(waiting.root)
