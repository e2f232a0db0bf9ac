"""Tails as a power loss leaves them: truncated in the middle of an entry, or of NUL bytes."""

from __future__ import annotations

from typing import Any

import pytest
from converging import converges, failpoint_env
from invariants import Block, entries, progress, shape, violations
from quick import Quick
from terminal_user import as_asked, at_terminal

from tests.soak import mark_soak

NEXT_ENTRY = "\n### 0005 · 2026-11-24T00:00:00Z · HALTED · Phase 1\n- features: 1 ver".encode()
TORN = {
    "one byte": NEXT_ENTRY[:1],
    "30 bytes": NEXT_ENTRY[:30],
    "most of it": NEXT_ENTRY,
    "NUL bytes": b"\0" * 4096,
}
"""Truncated tails of a file whose next entry is 0005."""


@pytest.fixture
def halfway(quick: Quick) -> Quick:
    """Return a repository killed with an outcome committed and nothing under way.

    Journal, progress.txt and HEAD are equal.
    """
    quick.run("run", "--next", code=-9, env=failpoint_env("halt"))
    return quick


def append_to_journal(quick: Quick, data: bytes) -> None:
    journal = quick.root / ".git/phases/journal"
    journal.write_bytes(journal.read_bytes() + data)


def repairs(quick: Quick) -> list[Block]:
    return [block for block in entries(quick.root) if block.kind == "REPAIRED"]


@pytest.mark.parametrize("name", mark_soak(TORN, short={"one byte", "NUL bytes", "most of it"}))
def test_a_torn_journal_is_set_aside_and_recorded(name: str, halfway: Quick) -> None:
    before, torn = progress(halfway.root), TORN[name]
    append_to_journal(halfway, torn)
    # The recovery is killed too before the run can go on.
    halfway.run("run", "--next", code=-9, env=failpoint_env("recovered"))
    halfway.run("run", "--next")

    # It is recorded once, and the bytes are in the quarantine.
    assert len(repairs(halfway)) == 1
    assert f"in {len(torn)} bytes that were no entry" in repairs(halfway)[0].lines[0]
    files = list((halfway.root / ".phases/quarantine/.torn").iterdir())
    assert [file.read_bytes() for file in files] == [torn]
    assert violations(halfway.root, before) == []
    halfway.assert_audit_is_clean()


CUTS = {"newline": 1, "middle": 40, "whole entries": 10_000}
"""What is lost -> how many bytes, at most."""


@pytest.mark.parametrize("name", mark_soak(CUTS, short={"newline", "whole entries"}))
def test_a_progress_txt_that_lacks_its_uncommitted_end_is_restored(
    name: str, quick: Quick, undisturbed: dict[str, Any]
) -> None:
    quick.run("run", "--next", code=-9, env=failpoint_env("work"))
    whole = progress(quick.root)
    header = whole.index(b"\n### ")
    (quick.root / "progress.txt").write_bytes(whole[: max(header, len(whole) - CUTS[name])])
    quick.run("run", "--next")
    assert progress(quick.root).startswith(whole)
    assert "RECOVERED" in [block.kind for block in entries(quick.root)]
    assert violations(quick.root, whole) == []
    assert shape(quick.root)["results"] == undisturbed["results"]


def test_a_progress_txt_that_ends_in_nul_bytes_is_repaired(halfway: Quick) -> None:
    before = progress(halfway.root)
    (halfway.root / "progress.txt").write_bytes(before + b"\0" * 512)
    halfway.run("run", "--next")
    reason = repairs(halfway)[0].lines[0]
    assert "progress.txt ended, after entry 0004, in 512 bytes" in reason
    assert violations(halfway.root, before) == []


def test_damage_before_the_end_changes_nothing(halfway: Quick) -> None:
    path = halfway.root / "progress.txt"
    path.write_bytes(path.read_bytes().replace(b"seed 0", b"seed 1", 1))
    before = halfway.record_contents()
    refused = halfway.run("run", "--next", code=3)
    assert "was edited" in refused.stderr
    assert "next: " in refused.stderr
    assert halfway.record_contents() == before


def test_a_torn_journal_at_a_checkpoint_blocks_no_approval(waiting: Quick) -> None:
    """An approval binds progress.txt: the repair makes a new checkpoint, and that is approved."""
    append_to_journal(waiting, NEXT_ENTRY)
    code, screen = at_terminal(waiting.root, "approve", "1", answer=as_asked)
    assert code == 7, screen
    waiting.run("run", "--next")
    kinds = [block.kind for block in entries(waiting.root)]
    assert kinds[-3:] == ["HALTED", "REPAIRED", "HALTED"]
    assert at_terminal(waiting.root, "approve", "1", answer=as_asked)[0] == 0
    assert violations(waiting.root) == []
    waiting.assert_audit_is_clean()


def test_a_kill_between_a_repair_and_its_entry_is_recovered(
    halfway: Quick, undisturbed: dict[str, Any]
) -> None:
    append_to_journal(halfway, NEXT_ENTRY)
    halfway.run("run", "--next", code=-9, env=failpoint_env("journalled"))
    converges(halfway, undisturbed, progress(halfway.root))
    assert len(repairs(halfway)) == 1


LEFTOVERS = [
    "results/phase-1/.request.json.77.tmp",
    "results/Q-001/.result.json.77.tmp",
    ".phases/.writable.77.tmp",
    ".git/phases/.journal.77.tmp",
    ".progress.txt.77.tmp",
    "prd/approvals/.phase-1.1.json.77.tmp",
]
"""Temporary files, named as the runner names them."""


def test_temporary_files_of_a_killed_runner_are_swept(halfway: Quick) -> None:
    for name in LEFTOVERS:
        halfway.write(name, "half")
    users = ".notes.tmp"  # the runner names its own otherwise
    halfway.write(users, "text")
    assert "approval-unrecorded" not in halfway.call("audit", code=None).stdout
    halfway.run("run", "--next")
    assert [name for name in LEFTOVERS if (halfway.root / name).exists()] == []
    assert (halfway.root / users).read_text() == "text"
