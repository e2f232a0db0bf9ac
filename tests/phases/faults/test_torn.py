"""Ends of files as a power loss leaves them: torn in the middle of an entry, or filled with NUL bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from converging import converges, fault
from invariants import entries, progress, shape, violations
from quick import Quick
from terminal_user import as_asked, at_terminal


@pytest.fixture
def halfway(quick: Quick) -> Quick:
    """Killed with an outcome committed and nothing under way: journal, progress.txt and HEAD are equal."""
    quick.run("run", "--next", code=-9, env=fault("halt"))
    return quick


def journal(quick: Quick) -> Path:
    return quick.root / ".git/phases/journal"


NEXT = (
    b"\n### 0005 \xc2\xb7 2026-11-24T00:00:00Z \xc2\xb7 HALTED \xc2\xb7 Phase 1\n- features: 1 ver"
)


@pytest.mark.parametrize(
    "torn", [NEXT[:1], NEXT[:30], NEXT, b"\0" * 4096], ids=["1", "30", "most", "nul"]
)
def test_a_torn_journal_is_set_aside_and_told(torn: bytes, halfway: Quick) -> None:
    before = progress(halfway.root)
    journal(halfway).write_bytes(journal(halfway).read_bytes() + torn)
    halfway.run(
        "run", "--next", code=-9, env=fault("recovered")
    )  # and killed before it could go on
    halfway.run("run", "--next")
    repaired = [block for block in entries(halfway.root) if block.kind == "REPAIRED"]
    assert len(repaired) == 1
    assert f"in {len(torn)} bytes that were no entry" in repaired[0].facts[0]
    kept = list((halfway.root / ".phases/quarantine/.torn").iterdir())
    assert [path.read_bytes() for path in kept] == [torn]
    assert violations(halfway.root, before) == []
    halfway.run("audit")


@pytest.mark.parametrize("cut", [1, 40, 10_000], ids=["newline", "middle", "whole entries"])
def test_a_progress_txt_that_lacks_its_uncommitted_end_gets_it_back(
    cut: int, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    quick.run("run", "--next", code=-9, env=fault("work"))
    whole = progress(quick.root)
    header = whole.index(b"\n### ")
    (quick.root / "progress.txt").write_bytes(whole[: max(header, len(whole) - cut)])
    quick.run("run", "--next")
    assert progress(quick.root).startswith(whole)
    assert "RECOVERED" in [block.kind for block in entries(quick.root)]
    assert violations(quick.root, whole) == []
    assert shape(quick.root)["results"] == undisturbed["results"]


def test_a_progress_txt_that_ends_in_nul_bytes_is_repaired(halfway: Quick) -> None:
    before = progress(halfway.root)
    (halfway.root / "progress.txt").write_bytes(before + b"\0" * 512)
    halfway.run("run", "--next")
    repaired = next(block for block in entries(halfway.root) if block.kind == "REPAIRED")
    assert "progress.txt ended, after entry 0004, in 512 bytes" in repaired.facts[0]
    assert violations(halfway.root, before) == []


def test_damage_before_the_end_changes_nothing(halfway: Quick) -> None:
    path = halfway.root / "progress.txt"
    path.write_bytes(path.read_bytes().replace(b"seed 0", b"seed 1", 1))
    before = halfway.snapshot()
    refused = halfway.run("run", "--next", code=3)
    assert "was edited" in refused.stderr
    assert "next: " in refused.stderr
    assert halfway.snapshot() == before


def test_a_torn_journal_at_a_checkpoint_blocks_nobody(waiting: Quick) -> None:
    """An approval binds progress.txt as it was: the repair makes a new checkpoint, and that can be approved."""
    journal(waiting).write_bytes(journal(waiting).read_bytes() + NEXT)
    code, screen = at_terminal(waiting.root, "approve", "1", answer=as_asked)
    assert code == 7, screen
    waiting.run("run", "--next")
    assert [block.kind for block in entries(waiting.root)][-3:] == ["HALTED", "REPAIRED", "HALTED"]
    assert at_terminal(waiting.root, "approve", "1", answer=as_asked)[0] == 0
    assert violations(waiting.root) == []
    waiting.run("audit")


def test_a_kill_between_repair_and_its_entry_is_made_good(
    halfway: Quick, undisturbed: dict[str, Any]
) -> None:
    journal(halfway).write_bytes(journal(halfway).read_bytes() + NEXT)
    halfway.run("run", "--next", code=-9, env=fault("journalled"))
    converges(halfway, {**undisturbed}, progress(halfway.root))
    told = [block.kind for block in entries(halfway.root)]
    assert told.count("REPAIRED") == 1


LEFT = ["results/phase-1/.request.json.77.tmp", "results/Q-001/.result.json.77.tmp", ".phases/.writable.77.tmp",
        ".git/phases/.journal.77.tmp", ".progress.txt.77.tmp"]  # fmt: skip


def test_temporary_files_of_a_killed_runner_are_swept(
    halfway: Quick, undisturbed: dict[str, Any]
) -> None:
    for name in LEFT:
        halfway.write(name, "half")
    mine = ".notes.tmp"  # not of the runner's making
    halfway.write(mine, "mine")
    halfway.run("run", "--next")
    assert [name for name in LEFT if (halfway.root / name).exists()] == []
    assert (halfway.root / mine).read_text() == "mine"
