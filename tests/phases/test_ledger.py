"""The ledger: writer and parser are inverse, and whatever is done to the text afterwards is found and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.base import durable
from phases.base.text import is_printable, printable
from phases.errors import IntegrityError
from phases.record.ledger import (
    KINDS,
    Entry,
    Ledger,
    append_entry,
    chain_problems,
    new_header,
    parse_ledger,
    seal_entry,
)
from phases.record.reconcile import reconcile

TIME = "2026-11-23T10:12:31Z"
HEADER = new_header("Toy")

lines = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
    .map(printable)
    .map(str.strip)
    .filter(bool)
)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)


@st.composite
def ledgers(draw: st.DrawFn, least: int = 0) -> Ledger:
    ledger = Ledger(HEADER, ())
    for number in range(draw(st.integers(least, 6))):
        kind = (
            "GENESIS"
            if number == 0
            else draw(st.sampled_from([k for k in KINDS if k != "GENESIS"]))
        )
        phase = draw(st.none() | st.integers(1, 12))
        feature = draw(st.none() | ids) if phase else None
        entry = seal_entry(
            ledger, kind, tuple(draw(st.lists(lines, max_size=4))), time=TIME, phase=phase, feature=feature,
            title=draw(lines) if feature else "",
        )  # fmt: skip
        ledger = Ledger(ledger.header, (*ledger.entries, entry))
    return ledger


def codes(data: bytes) -> set[str]:
    return {problem.code for problem in chain_problems(parse_ledger(data))}


@given(ledgers())
def test_what_was_written_is_read_back(ledger: Ledger) -> None:
    assert parse_ledger(ledger.data) == ledger
    assert chain_problems(ledger) == ()


@given(ledgers(least=1), st.data())
def test_any_changed_byte_is_found(ledger: Ledger, data: st.DataObject) -> None:
    at = data.draw(st.integers(len(HEADER), len(ledger.data) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != ledger.data[at]))
    changed = ledger.data[:at] + bytes([byte]) + ledger.data[at + 1 :]
    assert codes(changed), changed[at - 20 : at + 20]


@given(ledgers(least=1), st.integers(0, 200), st.integers(0, 255))
def test_a_changed_header_is_found(ledger: Ledger, at: int, byte: int) -> None:
    at %= len(HEADER)
    changed = ledger.data[:at] + bytes([byte]) + ledger.data[at + 1 :]
    assert changed == ledger.data or codes(changed)


@given(ledgers(least=3), st.data())
def test_a_deleted_moved_or_doubled_entry_is_found(ledger: Ledger, data: st.DataObject) -> None:
    blocks = [entry.block for entry in ledger.entries]
    at = data.draw(st.integers(0, len(blocks) - 2))
    deleted = [*blocks[:at], *blocks[at + 1 :]]
    moved = [*blocks[:at], blocks[at + 1], blocks[at], *blocks[at + 2 :]]
    doubled = [*blocks[: at + 1], blocks[at], *blocks[at + 1 :]]
    for changed in (deleted, moved, doubled):
        assert codes(HEADER + b"".join(changed)) & {"chain-order", "chain-prev", "chain-genesis"}


@given(ledgers(least=2), st.data())
def test_an_edit_with_its_own_hash_renewed_is_found_at_the_next_entry(
    ledger: Ledger, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(ledger.entries) - 2))
    old = ledger.entries[at]
    before = Ledger(HEADER, ledger.entries[:at])
    forged = seal_entry(
        before, old.kind, ("it went better than it did",), time=TIME, phase=old.phase
    )
    if forged == old:
        return
    found = chain_problems(
        Ledger(HEADER, (*ledger.entries[:at], forged, *ledger.entries[at + 1 :]))
    )
    assert [(p.code, p.entry) for p in found] == [("chain-prev", at + 2)]


@given(ledgers(least=2), st.data())
def test_a_cut_at_the_end_is_found_by_journal_and_commit(
    ledger: Ledger, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(0, len(ledger.entries) - 1))
    cut = Ledger(HEADER, ledger.entries[:keep]).data
    assert codes(cut) == set()  # the chain alone cannot see it
    # not committed: the journal brings it back
    mended = reconcile(cut, ledger.data, cut)
    assert (mended.problems, mended.restored) == ((), len(ledger.entries) - keep)
    assert mended.ledger == ledger
    # committed: progress.txt must hold it
    assert reconcile(cut, ledger.data, ledger.data).problems


@given(ledgers(least=1), ledgers(least=1))
def test_entries_that_the_runner_did_not_write_are_named(ledger: Ledger, other: Ledger) -> None:
    extra = seal_entry(ledger, "APPROVED", ("all is well",), time=TIME, phase=1)
    longer = ledger.data + extra.block
    found = reconcile(longer, ledger.data, ledger.data).problems
    assert [(p.code, p.entry) for p in found] == [("entry-unknown", len(ledger.entries) + 1)]
    found = reconcile(longer, None, ledger.data).problems  # a clone
    assert [p.code for p in found] == ["entry-unknown"]
    if other.data != ledger.data:
        assert reconcile(other.data, ledger.data, ledger.data).problems


@given(ledgers(least=1), st.data())
def test_a_torn_journal_entry_is_set_aside(ledger: Ledger, data: st.DataObject) -> None:
    entry = seal_entry(ledger, "STARTED", ("attempt 1",), time=TIME, phase=1)
    torn = entry.block[: data.draw(st.integers(1, len(entry.block) - 1))]
    found = reconcile(ledger.data, ledger.data + torn, ledger.data)
    assert (found.problems, found.torn, found.ledger) == ((), torn, ledger)


@given(ledgers(least=1), st.data())
def test_a_torn_progress_entry_is_restored_from_the_journal(
    ledger: Ledger, data: st.DataObject
) -> None:
    entry = seal_entry(ledger, "STARTED", ("attempt 1",), time=TIME, phase=1)
    torn = entry.block[: data.draw(st.integers(0, len(entry.block) - 1))]
    found = reconcile(ledger.data + torn, ledger.data + entry.block, ledger.data)
    assert (found.problems, found.restored) == ((), 1)
    assert found.ledger.entries[-1] == entry


@given(st.binary(max_size=400))
def test_the_parser_takes_any_bytes_and_loses_none(data: bytes) -> None:
    assert parse_ledger(data).data == data
    assert parse_ledger(HEADER + b"\n" + data).data == HEADER + b"\n" + data


@given(st.text(max_size=100))
def test_printable_text_is_one_line_and_kept(text: str) -> None:
    shown = printable(text)
    assert is_printable(shown) and printable(shown) == shown
    if is_printable(text):
        assert shown == text


@pytest.mark.parametrize(
    "text", ["two\nlines", "\x1b[2Jgone", "\u202ereversed", "- ", " padded ", "", "a\u2028b"]
)
def test_text_that_could_forge_a_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"printable|no such entry"):
        seal_entry(Ledger(HEADER, ()), "GENESIS", (text,), time=TIME)


def test_a_measured_word_cannot_become_a_fact() -> None:
    from phases.record import entries, state

    lines = entries.found(
        {"receipt sha256:" + "0" * 64 + " x": {"value": "receipt sha256:" + "0" * 64 + " x"}}
    )
    entry = seal_entry(Ledger(HEADER, ()), "GENESIS", lines, time=TIME)
    assert entry.fact(state.RECEIPT) is None


def grow(folder: Path, count: int) -> Ledger:
    ledger = Ledger(HEADER, ())
    for number in range(count):
        kind = "GENESIS" if number == 0 else "STARTED"
        entry = seal_entry(ledger, kind, (f"attempt {number}",), time=TIME)
        ledger = append_entry(folder / "progress.txt", folder / "git" / "journal", ledger, entry)
    return ledger


def test_appending_writes_journal_and_progress(tmp_path: Path) -> None:
    ledger = grow(tmp_path, 3)
    assert (
        (tmp_path / "progress.txt").read_bytes()
        == ledger.data
        == (tmp_path / "git/journal").read_bytes()
    )


def test_appending_completes_what_a_kill_left_between_the_two_writes(tmp_path: Path) -> None:
    ledger = grow(tmp_path, 2)
    entry = seal_entry(ledger, "STARTED", ("attempt 9",), time=TIME)
    durable.append(tmp_path / "git/journal", entry.block)
    grown = append_entry(tmp_path / "progress.txt", tmp_path / "git/journal", ledger, entry)
    assert (
        (tmp_path / "progress.txt").read_bytes()
        == grown.data
        == (tmp_path / "git/journal").read_bytes()
    )


def test_appending_refuses_a_ledger_that_moved(tmp_path: Path) -> None:
    ledger = grow(tmp_path, 2)
    with (tmp_path / "progress.txt").open("ab") as file:
        file.write(b"\nmore\n")
    with pytest.raises(IntegrityError, match="changed while the runner was at work"):
        append_entry(tmp_path / "progress.txt", tmp_path / "git/journal", ledger,
                      seal_entry(ledger, "STARTED", ("x",), time=TIME))  # fmt: skip


@settings(max_examples=50)
@given(ledgers(least=1))
def test_an_entry_finds_its_facts(ledger: Ledger) -> None:
    entry: Entry = ledger.entries[-1]
    for line in entry.lines:
        match = entry.fact(r".*")
        assert match is not None and match.string == entry.lines[0]
        assert line in entry.lines
