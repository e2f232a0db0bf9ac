"""One run under way: what it works on, and how its ledger grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from phases.base.text import utc_now
from phases.execution.sandbox import Sandbox
from phases.git.repo import Repo
from phases.plan.schema import Feature
from phases.record import approvals, transaction
from phases.record.ledger import Entry, Ledger, append_entry, seal_entry
from phases.record.project import Project, Snapshot, fold_project
from phases.views.live import View


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
    snapshot: Snapshot
    view: View
    tier: Sandbox
    ran: list[FeatureOutcome] = field(default_factory=list)

    @property
    def plan(self) -> Any:
        """The plan."""
        return self.project.plan

    def append(
        self,
        kind: str,
        lines: Sequence[str],
        phase: int | None = None,
        feature: Feature | None = None,
    ) -> None:
        """Appends an entry that is committed with the outcome that it leads to."""
        entry = self.seal(kind, lines, phase, feature)
        self.advance(
            append_entry(
                self.project.paths.progress, self.project.paths.journal, self.snapshot.ledger, entry
            )
        )

    def seal(
        self,
        kind: str,
        lines: Sequence[str],
        phase: int | None = None,
        feature: Feature | None = None,
    ) -> Entry:
        """The next entry, not yet written."""
        return seal_entry(
            self.snapshot.ledger,
            kind,
            tuple(lines),
            time=utc_now(),
            phase=phase,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )

    def commit(self, outcome: transaction.Transaction) -> None:
        """Records an outcome: prepared, applied, committed."""
        self.advance(
            transaction.commit(self.project.paths, self.repo, self.snapshot.ledger, outcome)
        )

    def advance(self, ledger: Ledger) -> None:
        """Takes over a ledger that has grown, and folds the state anew."""
        records = approvals.committed_records(self.repo, ledger)
        self.snapshot = Snapshot(
            replace(self.snapshot.reconciled, ledger=ledger),
            fold_project(self.project, ledger, records),
        )
