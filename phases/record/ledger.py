"""progress.txt: entries, their exact bytes, the chain, and how they are appended.

The file is a header and then entries. An entry is one block, the exact grammar of which stands in
docs/progress-format.md:

    ### 0007 · 2026-11-23T10:12:31Z · VERIFIED · Phase 2 · FEAT-006 Learning Rate Exploration
    - ran lab.learning_rate.experiment for 412 s: attempt 1, seed 0, profile cpu, sandbox none
    - receipt sha256:1f0c… lab/results/FEAT-006/receipt.json
    - chain prev=9a3e… self=77b1…

`self` is the SHA-256 of the block's bytes up to (not with) its last ` self=`; `prev` is the `self` of the entry
before, for the first entry the SHA-256 of the header. Every entry goes to the journal in the git common directory
first and then to progress.txt, each in one write and one fsync.

A chain shows an edit, a reorder, a deletion inside and an insertion. It cannot show a cut at the end; the journal, the
commits and the approvals do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.text import is_printable
from phases.errors import IntegrityError

KINDS = (
    "GENESIS",
    "LOCKED",
    "STARTED",
    "VERIFIED",
    "FAILED",
    "ERRORED",
    "HALTED",
    "APPROVED",
    "REJECTED",
    "WAIVED",
    "INTERRUPTED",
    "RECOVERED",
    "REPAIRED",
)

_HEADING = re.compile(
    r"### (?P<seq>\d{4,}) · (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) · (?P<kind>[A-Z]+)"
    r"(?: · Phase (?P<phase>[1-9]\d*)(?: · (?P<feature>[A-Za-z0-9][A-Za-z0-9._-]{0,63}) (?P<title>.+))?)?"
)
_CHAIN = re.compile(r"- chain prev=(?P<prev>[0-9a-f]{64}) self=(?P<self>[0-9a-f]{64})")
_BLOCK = re.compile(rb"\n### [^\n]*\n(?:- [^\n]*\n)*- chain prev=[0-9a-f]{64} self=[0-9a-f]{64}\n")
START = b"\n### "


@dataclass(frozen=True)
class Entry:
    """One block of progress.txt."""

    seq: int
    time: str
    """UTC, seconds, `2026-11-23T10:12:31Z`; for people: order is `seq`, never time."""
    kind: str
    phase: int | None
    feature: str | None
    title: str
    lines: tuple[str, ...]
    """The lines between heading and chain, without their `- `."""
    prev: str
    self_hash: str

    @property
    def sealed(self) -> bytes:
        """The bytes that `self_hash` is taken over."""
        place = "" if self.phase is None else f" · Phase {self.phase}"
        place += "" if self.feature is None else f" · {self.feature} {self.title}"
        body = "".join(f"- {line}\n" for line in self.lines)
        return f"### {self.seq:04d} · {self.time} · {self.kind}{place}\n{body}- chain prev={self.prev}".encode()

    @property
    def block(self) -> bytes:
        """What is appended: an empty line, then the entry."""
        return b"\n" + self.sealed + f" self={self.self_hash}\n".encode()

    def fact(self, pattern: str) -> re.Match[str] | None:
        """The first line that the pattern matches whole."""
        matches = (re.fullmatch(pattern, line) for line in self.lines)
        return next((match for match in matches if match), None)


@dataclass(frozen=True)
class Problem:
    """Something in the ledger that does not hold; `entry` is the number of the entry where it was found (0: header)."""

    code: str
    entry: int | None
    message: str


@dataclass(frozen=True)
class Ledger:
    """A parsed progress.txt."""

    header: bytes
    entries: tuple[Entry, ...]
    rest: bytes = b""
    """What follows the last entry that could be read; empty in a sound ledger."""

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.header + b"".join(entry.block for entry in self.entries) + self.rest

    @property
    def head(self) -> str:
        """The hash that the next entry's `prev` will hold."""
        return self.entries[-1].self_hash if self.entries else durable.sha256(self.header)


def new_header(project: str) -> bytes:
    """The first bytes of a new progress.txt; they bind the ledger to the project's name."""
    return (
        f"# progress.txt of {project}\n"
        "\n"
        "Written by `python -m phases` alone, one entry per event, never edited. An entry's `self` is the SHA-256 of\n"
        "its text; `prev` is the `self` of the entry before. `python -m phases audit` checks all of it.\n"
    ).encode()


def seal_entry(
    ledger: Ledger,
    kind: str,
    lines: tuple[str, ...],
    *,
    time: str,
    phase: int | None = None,
    feature: str | None = None,
    title: str = "",
) -> Entry:
    """The next entry of `ledger`: numbered, chained and hashed; appends nothing.

    Raises:
        ValueError: for text that is not one printable line; whoever calls escapes a worker's words first.
    """
    for text in (title, *lines):
        if not is_printable(text) or text != text.strip():
            msg = f"not one printable line: {text!r}"
            raise ValueError(msg)
    if kind not in KINDS or (feature is None) != (title == "") or "" in lines:
        msg = f"no such entry: kind {kind!r}, feature {feature!r}, title {title!r}, lines {lines!r}"
        raise ValueError(msg)
    seq = ledger.entries[-1].seq + 1 if ledger.entries else 1
    draft = Entry(seq, time, kind, phase, feature, title, lines, ledger.head, "")
    return Entry(
        seq, time, kind, phase, feature, title, lines, ledger.head, durable.sha256(draft.sealed)
    )


def parse_ledger(data: bytes) -> Ledger:
    """Reads as many entries as can be read; what follows them is `rest`. Judges nothing: see `problems`."""
    start = data.find(START)
    head = data if start < 0 else data[:start]
    position, entries = len(head), []
    while (match := _BLOCK.match(data, position)) and (entry := _read(match.group())):
        entries.append(entry)
        position = match.end()
    return Ledger(head, tuple(entries), data[position:])


def _read(block: bytes) -> Entry | None:
    """One block, or None if it is not exactly what `Entry.block` would write."""
    try:
        heading, *body, chain = block.decode("utf-8").strip("\n").split("\n")
    except UnicodeDecodeError:
        return None
    top, end = _HEADING.fullmatch(heading), _CHAIN.fullmatch(chain)
    if not top or not end or top["kind"] not in KINDS:
        return None
    phase = int(top["phase"]) if top["phase"] else None
    lines = tuple(line.removeprefix("- ") for line in body)
    entry = Entry(
        int(top["seq"]),
        top["time"],
        top["kind"],
        phase,
        top["feature"],
        top["title"] or "",
        lines,
        end["prev"],
        end["self"],
    )
    texts_hold = all(text and is_printable(text) and text == text.strip() for text in lines)
    return entry if texts_hold and entry.block == block else None


def chain_problems(ledger: Ledger) -> tuple[Problem, ...]:
    """Everything in the chain that does not hold, in the order of the file."""
    if b"\r\n" in ledger.header:
        said = "its line ends are CRLF: git changed them at checkout; `progress.txt -text` in .gitattributes forbids it"
        return (Problem("chain-format", 0, said),)
    found = []
    if (
        b"### " in ledger.header
        or b"- chain prev=" in ledger.header
        or not ledger.header.endswith(b"\n")
    ):
        found.append(
            Problem(
                "chain-header", 0, "the header holds parts of an entry, or does not end its line"
            )
        )
    prev, seq = durable.sha256(ledger.header), 0
    for entry in ledger.entries:
        where = entry.seq
        if entry.self_hash != durable.sha256(entry.sealed):
            found.append(
                Problem(
                    "chain-self",
                    where,
                    f"entry {where:04d} was edited: its text does not have the hash that stands in its chain line",
                )
            )
        if entry.seq != seq + 1:
            found.append(
                Problem(
                    "chain-order",
                    where,
                    f"entry {where:04d} follows entry {seq:04d}: an entry was deleted, inserted or moved here",
                )
            )
        elif entry.prev != prev:
            found.append(
                Problem(
                    "chain-prev",
                    where,
                    f"entry {where:04d} does not follow the text before it: prev is "
                    f"{entry.prev[:12]}…, wanted {prev[:12]}…",
                )
            )
        if (entry.kind == "GENESIS") != (entry is ledger.entries[0]):
            found.append(
                Problem(
                    "chain-genesis",
                    where,
                    f"entry {where:04d} is {entry.kind}: the first entry, and no other, is GENESIS",
                )
            )
        prev, seq = entry.self_hash, entry.seq
    if ledger.rest:
        met = ledger.rest[:60].decode("utf-8", "replace")
        found.append(
            Problem(
                "chain-format", seq + 1, f"what follows entry {seq:04d} is not an entry: {met!r}"
            )
        )
    return tuple(found)


def append_entry(progress: Path, journal: Path, ledger: Ledger, entry: Entry) -> Ledger:
    """Writes the entry to the journal, then to progress.txt; the journal is made from the ledger where there is none.

    Idempotent: what already ends with the entry is left as it is, so that a run killed between the two writes can
    complete them.
    """
    before = ledger.header + b"".join(known.block for known in ledger.entries)
    for path, place in ((journal, "journalled"), (progress, "entered")):
        met = path.read_bytes() if path.exists() else None
        if met is None:
            durable.write(path, before)
            met = before
        if met == before:
            durable.append(path, entry.block)
        elif met != before + entry.block:
            raise IntegrityError(
                "ledger-moved",
                f"{path} changed while the runner was at work: expected {len(before)} bytes, met {len(met)}",
            )
        failpoint(place)
    return Ledger(ledger.header, (*ledger.entries, entry))
