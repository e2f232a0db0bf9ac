"""The ledger: writer and parser are inverse; any later change of the text is found and named."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.base import durable, failpoint
from phases.base.text import is_printable, printable
from phases.errors import IntegrityError
from phases.record import entries
from phases.record.entries import LineFormat
from phases.record.ledger import (
    EntryKind,
    Ledger,
    Problem,
    append_entry,
    chain_problems,
    new_header,
    parse_ledger,
    seal_entry,
)
from phases.record.reconcile import reconcile
from phases.record.result import ReportedMeasurements

TIME = "2026-11-23T10:12:31Z"
HEADER = new_header("Toy")
LATER_KINDS = [kind for kind in EntryKind if kind != EntryKind.GENESIS]
ANY_LINE = LineFormat("{text}", text=".*")

lines = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
    .map(printable)
    .map(str.strip)
    .filter(bool)
)
feature_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)


@st.composite
def ledgers(draw: st.DrawFn, least: int = 0) -> Ledger:
    ledger = Ledger(HEADER, ())
    for number in range(draw(st.integers(least, 6))):
        kind = EntryKind.GENESIS
        if number > 0:
            kind = draw(st.sampled_from(LATER_KINDS))
        # A feature has a phase, and a feature's entry has a title.
        phase = draw(st.none() | st.integers(1, 12))
        feature, title = None, ""
        if phase:
            feature = draw(st.none() | feature_ids)
        if feature:
            title = draw(lines)
        entry = seal_entry(
            ledger,
            kind,
            tuple(draw(st.lists(lines, max_size=4))),
            time=TIME,
            phase=phase,
            feature=feature,
            title=title,
        )
        ledger = ledger.with_entry(entry)
    return ledger


def problem_codes(data: bytes) -> set[str]:
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
    assert problem_codes(changed), changed[at - 20 : at + 20]


@given(ledgers(least=1), st.integers(0, 200), st.integers(0, 255))
def test_a_changed_header_is_found(ledger: Ledger, at: int, byte: int) -> None:
    at %= len(HEADER)
    changed = ledger.data[:at] + bytes([byte]) + ledger.data[at + 1 :]
    assert changed == ledger.data or problem_codes(changed)


@given(ledgers(least=3), st.data())
def test_a_deleted_moved_or_doubled_entry_is_found(ledger: Ledger, data: st.DataObject) -> None:
    blocks = [entry.block for entry in ledger.entries]
    at = data.draw(st.integers(0, len(blocks) - 2))
    deleted = [*blocks[:at], *blocks[at + 1 :]]
    moved = [*blocks[:at], blocks[at + 1], blocks[at], *blocks[at + 2 :]]
    doubled = [*blocks[: at + 1], blocks[at], *blocks[at + 1 :]]
    for changed in (deleted, moved, doubled):
        codes = problem_codes(HEADER + b"".join(changed))
        assert codes & {"chain-order", "chain-prev", "chain-genesis"}


@given(ledgers(least=2), st.data())
def test_an_edit_with_its_own_hash_renewed_is_found_at_the_next_entry(
    ledger: Ledger, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(ledger.entries) - 2))
    original = ledger.entries[at]
    before = Ledger(HEADER, ledger.entries[:at])
    forged = seal_entry(
        before, original.kind, ("it went better than it did",), time=TIME, phase=original.phase
    )
    if forged == original:
        return
    edited = Ledger(HEADER, (*ledger.entries[:at], forged, *ledger.entries[at + 1 :]))
    problems = [(problem.code, problem.entry) for problem in chain_problems(edited)]
    assert problems == [("chain-prev", at + 2)]


def sealed_block(text: str) -> bytes:
    """Return an entry of any text, after HEADER, with the hash of that text."""
    sealed = f"{text}\n- chain prev={durable.sha256(HEADER)}".encode()
    return b"\n" + sealed + f" self={durable.sha256(sealed)}\n".encode()


HEADING = f"### 0001 · {TIME} · GENESIS"
OF_FEATURE = f"{HEADING} · Phase 1 · TOY-001"


@pytest.mark.parametrize("text", [HEADING, f"{HEADING}\n- a line", f"{OF_FEATURE} a title"])
def test_an_entry_of_this_spelling_is_read(text: str) -> None:
    ledger = parse_ledger(HEADER + sealed_block(text))
    assert (len(ledger.entries), ledger.rest) == (1, b"")
    assert chain_problems(ledger) == ()


@pytest.mark.parametrize(
    "text",
    [
        HEADING.replace("0001", "00001"),
        HEADING.replace("GENESIS", "GENESES"),
        HEADING.replace("GENESIS", "Genesis"),
        HEADING.replace(TIME, "2026-11-23 10:12:31"),
        f"{HEADING} · Phase 0",
        f"{HEADING} · Phase 01",
        OF_FEATURE,
        f"{OF_FEATURE}  two blanks before the title",
        f"{OF_FEATURE} a blank after the title ",
        f"{OF_FEATURE} reversed \u202e title",
        f"{HEADING}\n- ",
        f"{HEADING}\n-  two blanks before the line",
        f"{HEADING}\n- a blank after the line ",
        f"{HEADING}\n- reversed \u202e line",
        f"{HEADING}\n- a\u2028b",
        f"{HEADING}\n- carriage return\r",
        f"{HEADING}\n* another bullet",
        f"{HEADING}\n",
    ],
)
def test_an_entry_of_another_spelling_is_not_read(text: str) -> None:
    ledger = parse_ledger(HEADER + sealed_block(text))
    assert ledger.entries == ()
    assert {problem.code for problem in chain_problems(ledger)} <= {"chain-format", "chain-header"}
    assert chain_problems(ledger)


def test_line_ends_that_git_changed_are_the_one_problem() -> None:
    entry = seal_entry(Ledger(HEADER, ()), EntryKind.GENESIS, ("a line",), time=TIME)
    data = (HEADER + entry.block).replace(b"\n", b"\r\n")
    [problem] = chain_problems(parse_ledger(data))
    assert (problem.code, problem.entry, problem.hint) == ("chain-format", 0, "")
    assert problem.message == (
        "its line ends are CRLF: git changed them at checkout; "
        "`progress.txt -text` in .gitattributes forbids it"
    )


IN_HEADER = "the header contains parts of an entry, or does not end its line"


@pytest.mark.parametrize(
    "header",
    [
        b"no line end",
        b"",
        b"# Title\n### 0001\n",
        b"# Title\n- chain prev=\n",
        b"# Title\n### 0001\n- chain prev=\n",
    ],
)
def test_a_header_that_could_hide_an_entry_is_a_problem(header: bytes) -> None:
    assert chain_problems(Ledger(header, ())) == (Problem("chain-header", 0, IN_HEADER),)


@pytest.mark.parametrize("header", [b"\n", b"# Title\n", b"## prev= chain ###\n- chain\n"])
def test_any_other_header_is_none(header: bytes) -> None:
    assert chain_problems(Ledger(header, ())) == ()


def long_ledger() -> Ledger:
    """Return a ledger of three entries."""
    ledger = Ledger(HEADER, ())
    for kind in (EntryKind.GENESIS, EntryKind.STARTED, EntryKind.STARTED):
        ledger = ledger.with_entry(seal_entry(ledger, kind, ("a line",), time=TIME))
    return ledger


def test_what_cannot_be_read_is_quoted_with_the_number_that_it_would_have() -> None:
    ledger = replace(long_ledger(), rest=b"\n\xff" + b"x" * 100)
    text = "\n\ufffd" + "x" * 58
    message = f"what follows entry 0003 is not an entry: {text!r}"
    assert chain_problems(ledger) == (Problem("chain-format", 4, message),)
    message = f"what follows entry 0000 is not an entry: {text!r}"
    ledger = replace(ledger, entries=())
    assert chain_problems(ledger) == (Problem("chain-format", 1, message),)


def test_an_edited_entry_is_named() -> None:
    first, second, third = long_ledger().entries
    ledger = Ledger(HEADER, (first, replace(second, lines=("another line",)), third))
    message = "entry 0002 was edited: its text does not have the hash in its chain line"
    assert chain_problems(ledger) == (Problem("chain-self", 2, message),)


def test_an_entry_that_is_missing_is_named_once() -> None:
    first, _, third = long_ledger().entries
    message = "entry 0003 follows entry 0001: an entry was deleted, inserted or moved here"
    assert chain_problems(Ledger(HEADER, (first, third))) == (Problem("chain-order", 3, message),)


def test_an_entry_after_another_text_is_named() -> None:
    first, second, third = long_ledger().entries
    before = Ledger(HEADER, (first,))
    other = seal_entry(before, EntryKind.STARTED, ("another line",), time=TIME)
    expected = f"got prev {second.self_hash[:12]}…; expected {other.self_hash[:12]}…"
    message = f"entry 0003 does not follow the text before it: {expected}"
    ledger = Ledger(HEADER, (first, other, third))
    assert chain_problems(ledger) == (Problem("chain-prev", 3, message),)


def test_the_first_entry_and_no_other_is_genesis() -> None:
    ledger = Ledger(HEADER, ())
    ledger = ledger.with_entry(seal_entry(ledger, EntryKind.STARTED, (), time=TIME))
    ledger = ledger.with_entry(seal_entry(ledger, EntryKind.GENESIS, (), time=TIME))
    rule = "the first entry, and no other, is GENESIS"
    assert chain_problems(ledger) == (
        Problem("chain-genesis", 1, f"entry 0001 is STARTED: {rule}"),
        Problem("chain-genesis", 2, f"entry 0002 is GENESIS: {rule}"),
    )


def test_a_kind_is_written_as_it_is_called() -> None:
    assert [kind.value for kind in EntryKind] == [kind.name for kind in EntryKind]


#### progress.txt against its journal and HEAD


@given(ledgers(least=2), st.data())
def test_a_cut_at_the_end_is_found_by_journal_and_commit(
    ledger: Ledger, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(ledger.entries) - 1))
    cut = Ledger(HEADER, ledger.entries[:count]).data
    assert problem_codes(cut) == set()  # the chain alone cannot see it

    # Not committed: the journal restores it.
    reconciled = reconcile(cut, ledger.data, cut)
    assert (reconciled.problems, reconciled.restored) == ((), len(ledger.entries) - count)
    assert reconciled.ledger == ledger

    # Committed: progress.txt must have it.
    assert reconcile(cut, ledger.data, ledger.data).problems


@given(ledgers(least=1), ledgers(least=1))
def test_entries_that_the_runner_did_not_write_are_named(ledger: Ledger, other: Ledger) -> None:
    extra = seal_entry(ledger, "APPROVED", ("all is well",), time=TIME, phase=1)
    longer = ledger.data + extra.block

    # With a journal, and in a clone without one.
    problems = reconcile(longer, ledger.data, ledger.data).problems
    codes = [(problem.code, problem.entry) for problem in problems]
    assert codes == [("entry-unknown", len(ledger.entries) + 1)]
    problems = reconcile(longer, None, ledger.data).problems
    assert [problem.code for problem in problems] == ["entry-unknown"]

    if other.data != ledger.data:
        assert reconcile(other.data, ledger.data, ledger.data).problems


@given(ledgers(least=1), st.data())
def test_a_torn_journal_entry_is_set_aside(ledger: Ledger, data: st.DataObject) -> None:
    entry = seal_entry(ledger, "STARTED", ("attempt 1",), time=TIME, phase=1)
    torn = entry.block[: data.draw(st.integers(1, len(entry.block) - 1))]
    reconciled = reconcile(ledger.data, ledger.data + torn, ledger.data)
    assert reconciled.problems == ()
    assert reconciled.torn_journal == torn
    assert reconciled.ledger == ledger


@given(ledgers(least=1), st.data())
def test_a_torn_progress_entry_is_restored_from_the_journal(
    ledger: Ledger, data: st.DataObject
) -> None:
    entry = seal_entry(ledger, "STARTED", ("attempt 1",), time=TIME, phase=1)
    torn = entry.block[: data.draw(st.integers(0, len(entry.block) - 1))]
    reconciled = reconcile(ledger.data + torn, ledger.data + entry.block, ledger.data)
    assert (reconciled.problems, reconciled.restored) == ((), 1)
    assert reconciled.ledger.entries[-1] == entry


#### text that came from elsewhere


@given(st.binary(max_size=400))
def test_the_parser_takes_any_bytes_and_loses_none(data: bytes) -> None:
    assert parse_ledger(data).data == data
    assert parse_ledger(HEADER + b"\n" + data).data == HEADER + b"\n" + data


@given(st.text(max_size=100))
def test_printable_text_is_one_line_and_is_not_changed(text: str) -> None:
    escaped = printable(text)
    assert is_printable(escaped)
    assert printable(escaped) == escaped
    if is_printable(text):
        assert escaped == text


@pytest.mark.parametrize(
    "text", ["two\nlines", "\x1b[2Jgone", "\u202ereversed", "- ", " padded ", "", "a\u2028b"]
)
def test_text_that_could_forge_a_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not one printable line|invalid entry"):
        seal_entry(Ledger(HEADER, ()), "GENESIS", (text,), time=TIME)


def test_a_measurement_cannot_become_a_field_of_the_runner() -> None:
    receipt = f"receipt sha256:{'0' * 64} x"
    ledger = Ledger(HEADER, ())
    measured = entries.measured_lines(ReportedMeasurements({receipt: {"value": receipt}}))
    assert measured[0].startswith("measured receipt sha256:")
    assert seal_entry(ledger, "GENESIS", measured, time=TIME).match(entries.RECEIPT) is None
    # The control: behind no first word the same text is a receipt.
    assert seal_entry(ledger, "GENESIS", (receipt,), time=TIME).match(entries.RECEIPT)


@settings(max_examples=50)
@given(ledgers(least=1))
def test_an_entry_finds_its_lines_by_their_format(ledger: Ledger) -> None:
    entry = ledger.entries[-1]
    expected = [{"text": line} for line in entry.lines]
    assert entry.match_all(ANY_LINE) == expected
    if expected:
        assert entry.match(ANY_LINE) == expected[0]
    else:
        assert entry.match(ANY_LINE) is None


#### appending


def make_files(folder: Path, count: int) -> Ledger:
    """Append so many entries to progress.txt and git/journal; return the ledger."""
    ledger = Ledger(HEADER, ())
    for number in range(count):
        kind = EntryKind.STARTED
        if number == 0:
            kind = EntryKind.GENESIS
        entry = seal_entry(ledger, kind, (f"attempt {number}",), time=TIME)
        ledger = append_entry(folder / "progress.txt", folder / "git" / "journal", ledger, entry)
    return ledger


def test_appending_writes_journal_and_progress(tmp_path: Path) -> None:
    ledger = make_files(tmp_path, 3)
    assert (tmp_path / "progress.txt").read_bytes() == ledger.data
    assert (tmp_path / "git/journal").read_bytes() == ledger.data


def test_appending_completes_what_a_kill_left_between_the_two_writes(tmp_path: Path) -> None:
    ledger = make_files(tmp_path, 2)
    progress, journal = tmp_path / "progress.txt", tmp_path / "git/journal"
    entry = seal_entry(ledger, "STARTED", ("attempt 9",), time=TIME)
    durable.append(journal, entry.block)
    longer = append_entry(progress, journal, ledger, entry)
    assert progress.read_bytes() == longer.data
    assert journal.read_bytes() == longer.data


def test_appending_refuses_a_ledger_that_moved(tmp_path: Path) -> None:
    ledger = make_files(tmp_path, 2)
    progress, journal = tmp_path / "progress.txt", tmp_path / "git/journal"
    with progress.open("ab") as file:
        file.write(b"\nmore\n")
    entry = seal_entry(ledger, "STARTED", ("x",), time=TIME)
    with pytest.raises(IntegrityError, match="changed while the runner was at work") as caught:
        append_entry(progress, journal, ledger, entry)
    assert caught.value.code == "ledger-moved"


def test_appending_syncs_the_journal_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_files(tmp_path, 2)
    progress, journal = tmp_path / "progress.txt", tmp_path / "git/journal"
    synced = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    append_entry(progress, journal, ledger, seal_entry(ledger, "STARTED", ("x",), time=TIME))
    assert synced == [journal]


def test_pulled_makes_the_journal_anew_and_nothing_else_does(tmp_path: Path) -> None:
    """After a pull progress.txt has entries that the journal lacks."""
    ledger = make_files(tmp_path, 3)
    progress, journal = tmp_path / "progress.txt", tmp_path / "git/journal"
    shorter = replace(ledger, entries=ledger.entries[:1]).data
    journal.write_bytes(shorter)

    with pytest.raises(IntegrityError, match="journal changed while the runner was at work"):
        append_entry(progress, journal, ledger, seal_entry(ledger, "STARTED", ("x",), time=TIME))
    assert (progress.read_bytes(), journal.read_bytes()) == (ledger.data, shorter)

    pulled = seal_entry(ledger, EntryKind.PULLED, ("x",), time=TIME)
    longer = append_entry(progress, journal, ledger, pulled)
    assert progress.read_bytes() == journal.read_bytes() == longer.data


def test_pulled_does_not_make_progress_anew(tmp_path: Path) -> None:
    ledger = make_files(tmp_path, 3)
    progress, journal = tmp_path / "progress.txt", tmp_path / "git/journal"
    shorter = replace(ledger, entries=ledger.entries[:1]).data
    progress.write_bytes(shorter)
    pulled = seal_entry(ledger, EntryKind.PULLED, ("x",), time=TIME)
    with pytest.raises(IntegrityError, match=r"progress\.txt changed while the runner was at work"):
        append_entry(progress, journal, ledger, pulled)
    assert progress.read_bytes() == shorter


@pytest.mark.parametrize(("name", "is_entered"), [("journalled", False), ("entered", True)])
def test_a_runner_can_be_made_to_die_after_each_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, is_entered: bool
) -> None:
    ledger = make_files(tmp_path, 2)
    progress, journal = tmp_path / "progress.txt", tmp_path / "git/journal"
    entry = seal_entry(ledger, "STARTED", ("x",), time=TIME)
    longer = ledger.with_entry(entry)
    monkeypatch.setattr(failpoint, "_SELECTION", failpoint._parse_selection(f"{name}:raise"))
    with pytest.raises(OSError, match=f"PHASES_FAILPOINT at {name}"):
        append_entry(progress, journal, ledger, entry)
    assert journal.read_bytes() == longer.data
    assert (progress.read_bytes() == longer.data) is is_entered
