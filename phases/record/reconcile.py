"""progress.txt, its journal and HEAD's version, compared. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from phases.base import durable
from phases.errors import IntegrityError
from phases.record import entries
from phases.record.ledger import (
    START,
    UNFINISHED,
    Ledger,
    Problem,
    chain_problems,
    parse_ledger,
)


@dataclass(frozen=True)
class Pulled:
    """Committed entries that the journal lacks: another machine recorded them."""

    first: int
    last: int
    set_aside: bytes = b""
    """What this machine's journal holds in their place: entries of a run that came to no outcome
    and that no commit has."""

    @property
    def text(self) -> str:
        """Which entries it is about, as a sentence."""
        if self.first == self.last:
            return f"entry {self.first:04d} was recorded elsewhere"
        return f"entries {self.first:04d} to {self.last:04d} were recorded elsewhere"

    def lines(self, commit: str) -> tuple[str, ...]:
        """Return the lines of the entry that takes them over, up to a commit."""
        lines = [
            entries.PULLED.format(first=f"{self.first:04d}", last=f"{self.last:04d}", commit=commit)
        ]
        if self.set_aside:
            count = len(parse_ledger(self.set_aside).entries)
            digest = durable.sha256(self.set_aside)
            lines.append(entries.SET_ASIDE.format(count=count, sha256=digest))
        return tuple(lines)


@dataclass(frozen=True)
class Reconciled:
    """What progress.txt, journal and HEAD say together."""

    ledger: Ledger
    """The ledger that counts; equals progress.txt unless `restored` or a torn end was set aside.
    Views show progress.txt as it is, or with the one entry that only the journal has yet."""
    restored: int = 0
    """Entries that progress.txt lacked and the journal had."""
    torn_journal: bytes = b""
    """A truncated tail of the journal that never became an entry."""
    torn_progress: bytes = b""
    """NUL bytes at the end of progress.txt: the file had grown before the power failed, its bytes
    were not written yet."""
    has_journal: bool = True
    pulled: Pulled | None = None
    """Entries that the next run or decision takes over."""
    problems: tuple[Problem, ...] = ()

    @property
    def needs_repair(self) -> bool:
        """Whether a killed run left the two files so that the next run has to repair them."""
        return bool(self.restored or self.torn_journal or self.torn_progress)


def reconcile(progress: bytes, journal: bytes | None, committed: bytes | None) -> Reconciled:
    """Compare the work tree's progress.txt with the journal and with HEAD's version.

    progress.txt must equal the journal, or lack only its end where that end is not committed. It
    must start with HEAD's version. Without a journal (a clone) it must equal HEAD's version; so too
    where HEAD's version has entries that the journal lacks, which another machine recorded.
    """
    committed = committed or b""
    ledger = parse_ledger(progress)
    if journal is None:
        return _reconcile_clone(ledger, progress, committed)

    # 1. The journal without its truncated tail must be valid and start with HEAD's version.
    journal_ledger = ledger if journal == progress else parse_ledger(journal)
    torn_journal = b""
    if journal_ledger.rest and START not in journal_ledger.rest[1:]:
        torn_journal = journal_ledger.rest
        journal = journal[: len(journal) - len(torn_journal)]
        journal_ledger = parse_ledger(journal)
    problems = chain_problems(journal_ledger)
    if problems:
        return Reconciled(ledger, problems=tuple(map(_journal_problem, problems)))
    if not journal.startswith(committed):
        pulled = find_pulled(journal_ledger, parse_ledger(committed))
        if pulled and progress == committed:
            return Reconciled(ledger, torn_journal=torn_journal, pulled=pulled)
        first = _first_difference(parse_ledger(committed), journal_ledger)
        message = f"HEAD's progress.txt and the journal differ from entry {first:04d} on"
        return Reconciled(ledger, problems=(Problem("journal-lacks-commit", first, message),))

    # 2. progress.txt equals the journal, or lacks its end.
    text = progress.rstrip(b"\0")
    torn_progress = progress[len(text) :]
    if journal.startswith(text) and (text == journal or text.startswith(committed)):
        return Reconciled(
            ledger=journal_ledger,
            restored=0 if text == journal else len(journal_ledger.entries) - len(ledger.entries),
            torn_journal=torn_journal,
            torn_progress=torn_progress,
        )

    # 3. It does not: name the first difference.
    problems = chain_problems(ledger)
    if not problems and progress.startswith(journal):
        problems = (_unknown_entries(ledger, journal_ledger, "the journal"),)
    if not problems:
        first = _first_difference(ledger, journal_ledger)
        message = f"progress.txt differs from the journal from entry {first:04d} on"
        problems = (Problem("ledger-differs", first, message),)
    return Reconciled(ledger, problems=problems)


def _reconcile_clone(ledger: Ledger, progress: bytes, committed: bytes) -> Reconciled:
    problems = chain_problems(ledger)
    if not problems and progress != committed and ledger.entries:
        source = "HEAD's progress.txt, and there is no journal"
        problems = (_unknown_entries(ledger, parse_ledger(committed), source),)
    pulled = None
    if ledger.entries and not problems:
        pulled = Pulled(1, len(ledger.entries))
    return Reconciled(ledger, has_journal=False, pulled=pulled, problems=problems)


def find_pulled(journal: Ledger, committed: Ledger) -> Pulled | None:
    """Return which entries of the commit the journal lacks; None if it contradicts them.

    What the journal has in their place may be set aside if it holds no outcome and no decision.
    """
    if chain_problems(committed) or journal.header != committed.header:
        return None
    first = _first_difference(journal, committed)
    own = journal.entries[first - 1 :]
    if first > len(committed.entries) or any(entry.kind not in UNFINISHED for entry in own):
        return None
    set_aside = b"".join(entry.block for entry in own)
    return Pulled(first, len(committed.entries), set_aside)


def _journal_problem(problem: Problem) -> Problem:
    return Problem("journal-" + problem.code, problem.entry, "journal: " + problem.message)


def _unknown_entries(ledger: Ledger, expected: Ledger, source: str) -> Problem:
    first = len(expected.entries) + 1
    count = len(ledger.entries) - len(expected.entries)
    message = (
        f"progress.txt has {count} entries, from {first:04d} on, that the runner did not write: "
        f"they are not in {source}"
    )
    return Problem("entry-unknown", first, message)


def _first_difference(one: Ledger, other: Ledger) -> int:
    """Return the number of the first entry that is not the same in both."""
    pairs = zip(one.entries, other.entries, strict=False)
    for number, (entry, other_entry) in enumerate(pairs, start=1):
        if entry != other_entry:
            return number
    return min(len(one.entries), len(other.entries)) + 1


def raise_first_problem(problems: tuple[Problem, ...], way: str) -> None:
    """Raise IntegrityError for the first problem, with its code and the way back."""
    if problems:
        raise IntegrityError(
            problems[0].code,
            f"progress.txt: {problems[0].message}",
            hint=problems[0].hint or f"{way}; python -m phases audit lists all of it",
        )
