"""progress.txt, its journal and HEAD's version, compared. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from phases.errors import IntegrityError
from phases.record.ledger import START, Ledger, Problem, chain_problems, parse_ledger


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
    mine = parse_ledger(progress)
    if journal is None:
        found = chain_problems(mine)
        if not found and progress != committed and mine.entries:
            found = (
                _beyond(
                    mine, parse_ledger(committed), "HEAD's progress.txt, and there is no journal"
                ),
            )
        return Reconciled(mine, has_journal=False, problems=found)
    kept = parse_ledger(journal)
    torn, whole = b"", journal
    if kept.rest and START not in kept.rest[1:]:
        torn, whole = kept.rest, journal[: len(journal) - len(kept.rest)]
        kept = parse_ledger(whole)
    found = chain_problems(kept)
    if found:
        return Reconciled(
            mine,
            problems=tuple(
                Problem("journal-" + p.code, p.entry, "journal: " + p.message) for p in found
            ),
        )
    if not whole.startswith(committed):
        first = _first_difference(parse_ledger(committed), kept)
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
        return Reconciled(
            kept, restored=len(kept.entries) - len(mine.entries), torn=torn, torn_end=nul
        )
    if progress.startswith(whole):
        return Reconciled(
            mine, problems=chain_problems(mine) or (_beyond(mine, kept, "the journal"),)
        )
    first = _first_difference(mine, kept)
    return Reconciled(
        mine,
        problems=chain_problems(mine)
        or (
            Problem(
                "ledger-differs",
                first,
                f"progress.txt differs from the journal from entry {first:04d} on",
            ),
        ),
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


def raise_first_problem(found: tuple[Problem, ...]) -> None:
    """Stops at the first problem; IntegrityError carries its code and the way back."""
    if found:
        hint = "python -m phases audit lists all of it; `git checkout -- progress.txt` brings back the committed text"
        raise IntegrityError(found[0].code, f"progress.txt: {found[0].message}", hint=hint)
