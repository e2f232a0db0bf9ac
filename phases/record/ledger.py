"""progress.txt: entries, their exact bytes, the chain, and how they are appended.

The file is a header and then entries. An entry is one block; docs/progress-format.md has the exact
grammar:

    ### 0007 · 2026-11-23T10:12:31Z · VERIFIED · Phase 2 · FEAT-006 Learning Rate Exploration
    - ran lab.learning_rate.experiment for 412 s: attempt 1, seed 0, profile cpu, sandbox none
    - receipt sha256:1f0c… lab/results/FEAT-006/receipt.json
    - chain prev=9a3e… self=77b1…

`self` is the SHA-256 of the block's bytes up to (not with) its last ` self=`; `prev` is the `self`
of the entry before, for the first entry the SHA-256 of the header. Every entry is appended to the
journal in the git common directory first, in one write and one fsync, and then to progress.txt.

The chain shows an edit, a reorder, an insertion and a deletion inside. It cannot show a cut at the
end; the journal, the commits and the approvals do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.regular_file import read_regular
from phases.base.text import is_printable
from phases.errors import IntegrityError
from phases.record.entries import LineFormat


class EntryKind(StrEnum):
    """What an entry records."""

    GENESIS = "GENESIS"
    LOCKED = "LOCKED"
    STARTED = "STARTED"
    VERIFIED = "VERIFIED"
    FAILED = "FAILED"
    ERRORED = "ERRORED"
    HALTED = "HALTED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    WAIVED = "WAIVED"
    INTERRUPTED = "INTERRUPTED"
    RECOVERED = "RECOVERED"
    REPAIRED = "REPAIRED"
    PULLED = "PULLED"
    LOST = "LOST"


OUTCOMES = (EntryKind.VERIFIED, EntryKind.FAILED, EntryKind.ERRORED)
"""What an attempt ends in; an interruption is no outcome."""
DECISIONS = (EntryKind.APPROVED, EntryKind.REJECTED, EntryKind.WAIVED)
"""Kinds of entries that must name a decision record."""
LOCKS_AND_DECISIONS = (*DECISIONS, EntryKind.LOCKED)
"""Kinds of entries that can name a decision record; LOCKED names one only if it is a relock."""
UNFINISHED = (
    EntryKind.GENESIS,
    EntryKind.LOCKED,
    EntryKind.STARTED,
    EntryKind.INTERRUPTED,
    EntryKind.RECOVERED,
    EntryKind.REPAIRED,
    EntryKind.PULLED,
    EntryKind.LOST,
)
"""Kinds of entries that a run which did not end leaves uncommitted: no outcomes, no decisions."""

_HEADING = re.compile(
    r"### (?P<seq>[0-9]{4,12}) · (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)"
    r" · (?P<kind>[A-Z]+)(?: · Phase (?P<phase>[1-9][0-9]{0,11})"
    r"(?: · (?P<feature>[A-Za-z0-9][A-Za-z0-9._-]{0,63}) (?P<title>.+))?)?"
)
_CHAIN = re.compile(r"- chain prev=(?P<prev>[0-9a-f]{64}) self=(?P<self>[0-9a-f]{64})")
_BLOCK = re.compile(rb"\n### [^\n]*\n(?:- [^\n]*\n)*- chain prev=[0-9a-f]{64} self=[0-9a-f]{64}\n")
START = b"\n### "
"""How the first entry begins after the header, and each next one after its predecessor."""


@dataclass(frozen=True)
class Entry:
    """One block of progress.txt."""

    seq: int
    time: str
    """UTC, seconds, `2026-11-23T10:12:31Z`; for readers: the order is `seq`, never the time."""
    kind: EntryKind
    phase: int | None
    feature: str | None
    title: str
    lines: tuple[str, ...]
    """The lines between heading and chain, without their `- `."""
    prev: str
    self_hash: str

    @cached_property
    def sealed(self) -> bytes:
        """The bytes that `self_hash` is taken over."""
        heading = f"### {self.seq:04d} · {self.time} · {self.kind}"
        if self.phase is not None:
            heading += f" · Phase {self.phase}"
        if self.feature is not None:
            heading += f" · {self.feature} {self.title}"
        body = "".join(f"- {line}\n" for line in self.lines)
        return f"{heading}\n{body}- chain prev={self.prev}".encode()

    @cached_property
    def block(self) -> bytes:
        """What is appended: an empty line, then the entry."""
        return b"\n" + self.sealed + f" self={self.self_hash}\n".encode()

    def match(self, line_format: LineFormat) -> dict[str, str] | None:
        """Return the fields of the first line of this format, or None."""
        for line in self.lines:
            fields = line_format.parse(line)
            if fields is not None:
                return fields
        return None

    def match_all(self, line_format: LineFormat) -> list[dict[str, str]]:
        """Return the fields of every line of this format."""
        matches = (line_format.parse(line) for line in self.lines)
        return [fields for fields in matches if fields is not None]


@dataclass(frozen=True)
class Problem:
    """Something invalid in the ledger, and the number of the entry where it is (0: header)."""

    code: str
    entry: int | None
    message: str
    hint: str = ""
    """The next command, where it differs from that of other problems."""


@dataclass(frozen=True)
class Ledger:
    """A parsed progress.txt."""

    header: bytes
    entries: tuple[Entry, ...]
    rest: bytes = b""
    """What follows the last entry that could be read; empty in a valid ledger."""

    @cached_property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.header + b"".join(entry.block for entry in self.entries) + self.rest

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """How many bytes the file has up to each entry, the header's first."""
        sizes = (len(entry.block) for entry in self.entries)
        return tuple(accumulate(sizes, initial=len(self.header)))

    def prefix(self, count: int) -> memoryview:
        """Return the file's bytes up to an entry, without a copy."""
        return memoryview(self.data)[: self.ends[count]]

    @property
    def head(self) -> str:
        """The hash that the next entry's `prev` will hold."""
        return self.entries[-1].self_hash if self.entries else durable.sha256(self.header)

    def with_entry(self, entry: Entry) -> Ledger:
        """Return the ledger with one more entry; nothing is written."""
        return Ledger(self.header, (*self.entries, entry))


def new_header(project: str) -> bytes:
    """Return the first bytes of a new progress.txt; they bind the ledger to the project's name."""
    return (
        f"# progress.txt of {project}\n"
        "\n"
        "Written by `python -m phases` alone, one entry per event, never edited. An entry's `self` "
        "is the SHA-256 of\nits text; `prev` is the `self` of the entry before. "
        "`python -m phases audit` checks all of it.\n"
    ).encode()


def seal_entry(
    ledger: Ledger,
    kind: EntryKind,
    lines: tuple[str, ...],
    *,
    time: str,
    phase: int | None = None,
    feature: str | None = None,
    title: str = "",
) -> Entry:
    """Return the next entry of `ledger`: numbered, chained and hashed; nothing is written.

    Raises:
        ValueError: for text that is not one printable line; the caller escapes a worker's words
        first.
    """
    for text in (title, *lines):
        if not _is_one_line(text):
            msg = f"not one printable line: {text!r}"
            raise ValueError(msg)
    if (feature is None) != (title == "") or "" in lines:
        msg = f"invalid entry {kind}: feature {feature!r}, title {title!r}, lines {lines!r}"
        raise ValueError(msg)
    draft = Entry(
        seq=ledger.entries[-1].seq + 1 if ledger.entries else 1,
        time=time,
        kind=EntryKind(kind),
        phase=phase,
        feature=feature,
        title=title,
        lines=lines,
        prev=ledger.head,
        self_hash="",
    )
    return replace(draft, self_hash=durable.sha256(draft.sealed))


def _is_one_line(text: str) -> bool:
    """Return whether an entry can hold a text: one printable line, without blanks around it."""
    return is_printable(text) and text == text.strip()


def parse_ledger(data: bytes) -> Ledger:
    """Read as many entries as can be read; what follows them is `rest`.

    `chain_problems` says what is invalid.
    """
    start = data.find(START)
    header = data if start < 0 else data[:start]
    position = len(header)
    entries = []
    while match := _BLOCK.match(data, position):
        entry = _parse_block(match.group())
        if entry is None:
            break
        entries.append(entry)
        position = match.end()
    return Ledger(header, tuple(entries), data[position:])


def _parse_block(block: bytes) -> Entry | None:
    """Return the entry, or None if the block is not exactly what `Entry.block` would write."""
    try:
        heading_line, *body, chain_line = block.decode("utf-8").strip("\n").split("\n")
    except UnicodeDecodeError:
        return None
    heading = _HEADING.fullmatch(heading_line)
    chain = _CHAIN.fullmatch(chain_line)
    if not heading or not chain or heading["kind"] not in EntryKind.__members__:
        return None
    title = heading["title"] or ""
    lines = tuple(line.removeprefix("- ") for line in body)
    if "" in lines or not all(map(_is_one_line, (title, *lines))):
        return None
    entry = Entry(
        seq=int(heading["seq"]),
        time=heading["time"],
        kind=EntryKind(heading["kind"]),
        phase=int(heading["phase"]) if heading["phase"] else None,
        feature=heading["feature"],
        title=title,
        lines=lines,
        prev=chain["prev"],
        self_hash=chain["self"],
    )
    # It must give the same bytes again: a second spelling of an entry would have a second hash.
    return entry if entry.block == block else None


def chain_problems(ledger: Ledger) -> tuple[Problem, ...]:
    """Return everything that is invalid in the chain, in the order of the file."""
    # 1. The header.
    if b"\r\n" in ledger.header:
        message = (
            "its line ends are CRLF: git changed them at checkout; "
            "`progress.txt -text` in .gitattributes forbids it"
        )
        return (Problem("chain-format", 0, message),)
    problems = []
    has_entry_parts = b"### " in ledger.header or b"- chain prev=" in ledger.header
    if has_entry_parts or not ledger.header.endswith(b"\n"):
        message = "the header contains parts of an entry, or does not end its line"
        problems.append(Problem("chain-header", 0, message))
    # 2. Each entry against the one before it.
    prev, seq = durable.sha256(ledger.header), 0
    for entry in ledger.entries:
        problems += _entry_problems(entry, prev, seq, is_first=entry is ledger.entries[0])
        prev, seq = entry.self_hash, entry.seq
    # 3. What could not be read.
    if ledger.rest:
        start = ledger.rest[:60].decode("utf-8", "replace")
        message = f"what follows entry {seq:04d} is not an entry: {start!r}"
        problems.append(Problem("chain-format", seq + 1, message))
    return tuple(problems)


def _entry_problems(entry: Entry, prev: str, seq: int, *, is_first: bool) -> list[Problem]:
    """Return what is invalid in one entry; `prev` and `seq` are the hash and number before it."""
    number = f"entry {entry.seq:04d}"
    problems = []
    if entry.self_hash != durable.sha256(entry.sealed):
        message = f"{number} was edited: its text does not have the hash in its chain line"
        problems.append(Problem("chain-self", entry.seq, message))
    if entry.seq != seq + 1:
        message = f"{number} follows entry {seq:04d}: an entry was deleted, inserted or moved here"
        problems.append(Problem("chain-order", entry.seq, message))
    elif entry.prev != prev:
        message = (
            f"{number} does not follow the text before it: "
            f"got prev {entry.prev[:12]}…; expected {prev[:12]}…"
        )
        problems.append(Problem("chain-prev", entry.seq, message))
    if (entry.kind == EntryKind.GENESIS) != is_first:
        message = f"{number} is {entry.kind}: the first entry, and no other, is GENESIS"
        problems.append(Problem("chain-genesis", entry.seq, message))
    return problems


def append_entry(progress: Path, journal: Path, ledger: Ledger, entry: Entry) -> Ledger:
    """Write the entry to the journal, then to progress.txt, and return the ledger with it.

    The journal is on the disk afterwards. progress.txt can be restored from it; it is synced
    before it is committed (transaction.py). The journal is made from the ledger where there is
    none, and PULLED makes it anew: it says that the journal lacked entries, which `reconcile` had
    seen. Idempotent: a file that already ends with the entry is left as it is, so that the next
    run can complete what a killed run had begun between the two writes.
    """
    before = ledger.data
    for path, failpoint_name in ((journal, "journalled"), (progress, "entered")):
        if not path.exists():
            # At once: a journal without its first entry, PULLED, looks as if its ref was deleted.
            durable.write(path, before + entry.block)
        data = read_regular(path)
        if data == before:
            durable.append(path, entry.block, with_sync=path == journal)
        elif path == journal and entry.kind == EntryKind.PULLED:
            durable.write(path, before + entry.block)
        elif data != before + entry.block:
            raise IntegrityError(
                "ledger-moved",
                f"{path} changed while the runner was at work: "
                f"got {len(data)} bytes; expected {len(before)}",
            )
        failpoint(failpoint_name)
    return ledger.with_entry(entry)
