"""One run under way: what it works on, and how its ledger grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from phases.execution import sandbox
from phases.record import approvals as approval, ledger, project, transaction as record
from phases.record.ledger import Entry, Ledger
from phases.views.live import View
from phases.plan.schema import Feature
from phases.record.project import Book, Project
from phases.git.repo import Repo


@dataclass(frozen=True)
class FeatureOutcome:
    """What became of one feature in this run."""

    id: str
    state: str
    seconds: int
    passed: int = 0
    failing: tuple[str, ...] = ()
    receipt: str | None = None
    timed_out: bool = False


@dataclass(frozen=True)
class Outcome:
    """What this run did."""

    phase: int | None
    state: str
    features: tuple[FeatureOutcome, ...] = ()
    exit_failing: tuple[str, ...] = ()


@dataclass
class Session:
    """One run: the project, its repository, the ledger as it grows, and who watches."""

    project: Project
    repo: Repo
    book: Book
    view: View
    tier: sandbox.Sandbox
    ran: list[FeatureOutcome] = field(default_factory=list)

    @property
    def prd(self) -> Any:
        """The plan."""
        return self.project.prd

    def append(self, kind: str, lines: Sequence[str], phase: int | None = None, feature: Feature | None = None) -> None:
        """Appends an entry that is committed with the outcome that it leads to."""
        entry = self.seal(kind, lines, phase, feature)
        self.advance(ledger.append(self.project.paths.progress, self.project.paths.journal, self.book.ledger, entry))

    def seal(self, kind: str, lines: Sequence[str], phase: int | None = None, feature: Feature | None = None) -> Entry:
        """The next entry, not yet written."""
        return ledger.seal(
            self.book.ledger,
            kind,
            tuple(lines),
            time=ledger.now(),
            phase=phase,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )

    def commit(self, outcome: record.Record) -> None:
        """Records an outcome: prepared, applied, committed."""
        self.advance(record.commit(self.project.paths, self.repo, self.book.ledger, outcome))

    def advance(self, book: Ledger) -> None:
        """Takes over a ledger that has grown, and folds the state anew."""
        records = approval.committed_records(self.repo, book)
        self.book = Book(replace(self.book.reconciled, ledger=book), project.fold(self.project, book, records))
