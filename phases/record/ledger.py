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
from datetime import UTC, datetime
from pathlib import Path

from phases.base import durable, failpoint as fault
from phases.errors import IntegrityError
from phases.base.text import is_printable

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
_START = b"\n### "


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


def header(project: str) -> bytes:
    """The first bytes of a new progress.txt; they bind the ledger to the project's name."""
    return (
        f"# progress.txt of {project}\n"
        "\n"
        "Written by `python -m phases` alone, one entry per event, never edited. An entry's `self` is the SHA-256 of\n"
        "its text; `prev` is the `self` of the entry before. `python -m phases audit` checks all of it.\n"
    ).encode()


def now() -> str:
    """The present moment as an entry states it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seal(
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
    return Entry(seq, time, kind, phase, feature, title, lines, ledger.head, durable.sha256(draft.sealed))


def parse(data: bytes) -> Ledger:
    """Reads as many entries as can be read; what follows them is `rest`. Judges nothing: see `problems`."""
    start = data.find(_START)
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


def problems(ledger: Ledger) -> tuple[Problem, ...]:
    """Everything in the chain that does not hold, in the order of the file."""
    if b"\r\n" in ledger.header:
        said = "its line ends are CRLF: git changed them at checkout; `progress.txt -text` in .gitattributes forbids it"
        return (Problem("chain-format", 0, said),)
    found = []
    if b"### " in ledger.header or b"- chain prev=" in ledger.header or not ledger.header.endswith(b"\n"):
        found.append(Problem("chain-header", 0, "the header holds parts of an entry, or does not end its line"))
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
        found.append(Problem("chain-format", seq + 1, f"what follows entry {seq:04d} is not an entry: {met!r}"))
    return tuple(found)


@dataclass(frozen=True)
class Reconciled:
    """What progress.txt, journal and HEAD say together."""

    ledger: Ledger
    """The ledger that counts; equals progress.txt unless `restored` or `torn`."""
    restored: int = 0
    """Entries that progress.txt lacked and the journal had."""
    torn: bytes = b""
    """A last piece of the journal that never became an entry."""
    torn_end: bytes = b""
    """NUL bytes at the end of progress.txt: a file that had grown when the power went, and its bytes had not come."""
    has_journal: bool = True
    problems: tuple[Problem, ...] = ()


def reconcile(progress: bytes, journal: bytes | None, committed: bytes | None) -> Reconciled:
    """Compares the work tree's progress.txt with the journal and with HEAD's version. Pure.

    progress.txt must equal the journal, or lack only its end where that end is not committed. It must start with
    HEAD's version. Without a journal (a clone) it must equal HEAD's version.
    """
    committed = committed or b""
    mine = parse(progress)
    if journal is None:
        found = problems(mine)
        if not found and progress != committed and mine.entries:
            found = (_beyond(mine, parse(committed), "HEAD's progress.txt, and there is no journal"),)
        return Reconciled(mine, has_journal=False, problems=found)
    kept = parse(journal)
    torn, whole = b"", journal
    if kept.rest and _START not in kept.rest[1:]:
        torn, whole = kept.rest, journal[: len(journal) - len(kept.rest)]
        kept = parse(whole)
    found = problems(kept)
    if found:
        return Reconciled(
            mine, problems=tuple(Problem("journal-" + p.code, p.entry, "journal: " + p.message) for p in found)
        )
    if not whole.startswith(committed):
        first = _first_difference(parse(committed), kept)
        return Reconciled(
            mine,
            problems=(
                Problem(
                    "journal-lacks-commit",
                    first,
                    f"HEAD's progress.txt and the journal differ from entry {first:04d} on",
                ),
            ),
        )
    text = progress.rstrip(b"\0")
    nul = progress[len(text) :]
    if text == whole:
        return Reconciled(kept, torn=torn, torn_end=nul)
    if whole.startswith(text) and text.startswith(committed):
        return Reconciled(kept, restored=len(kept.entries) - len(mine.entries), torn=torn, torn_end=nul)
    if progress.startswith(whole):
        return Reconciled(mine, problems=problems(mine) or (_beyond(mine, kept, "the journal"),))
    first = _first_difference(mine, kept)
    return Reconciled(
        mine,
        problems=problems(mine)
        or (Problem("ledger-differs", first, f"progress.txt differs from the journal from entry {first:04d} on"),),
    )


def _beyond(mine: Ledger, known: Ledger, what: str) -> Problem:
    first = len(known.entries) + 1
    count = len(mine.entries) - len(known.entries)
    return Problem(
        "entry-unknown",
        first,
        f"progress.txt holds {count} entries, from {first:04d} on, that the runner "
        f"did not write: they are not in {what}",
    )


def _first_difference(a: Ledger, b: Ledger) -> int:
    for index, (x, y) in enumerate(zip(a.entries, b.entries, strict=False)):
        if x != y:
            return index + 1
    return min(len(a.entries), len(b.entries)) + 1


def raise_first(found: tuple[Problem, ...]) -> None:
    """Stops at the first problem; IntegrityError carries its code and the way back."""
    if found:
        remedy = "python -m phases audit lists all of it; `git checkout -- progress.txt` brings back the committed text"
        raise IntegrityError(found[0].code, f"progress.txt: {found[0].message}", remedy=remedy)


def append(progress: Path, journal: Path, ledger: Ledger, entry: Entry) -> Ledger:
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
        fault.point(place)
    return Ledger(ledger.header, (*ledger.entries, entry))
