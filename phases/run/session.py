"""One run: what it works on, and the only writer of its entries.

Each verb appends what happened (`lock`, `start`, `repair`, `restore`) or records an outcome
(`record`, `interrupt`, `halt`, `fail_exit`) and keeps the snapshot up to date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.text import printable, utc_now
from phases.execution.process import forward_signals
from phases.execution.sandbox import Sandbox, choose_sandbox
from phases.git.one_runner import one_runner
from phases.git.repo import Repo
from phases.plan.schema import Feature, Phase, Plan
from phases.record import entries, transaction
from phases.record.approvals import committed_records
from phases.record.entries import RecordedFile
from phases.record.ledger import Entry, EntryKind, Ledger, append_entry, seal_entry
from phases.record.project import Project, Snapshot, load_verified
from phases.record.state import State, fold_state
from phases.record.transaction import Transaction, new_txn, subject_trailers
from phases.run.attempt import AttemptSpec
from phases.run.checkpoint import ExitGateResult, compose_request, halt_lines
from phases.run.outcome import Outcome
from phases.run.plan_locks import current_lock, lock_file, require_lock_unchanged
from phases.run.results import FeatureResult, RunSummary
from phases.views.live import Stage, View


@contextmanager
def open_session(project: Project, view: View) -> Iterator[Session]:
    """Take the runner's lock and read the project under it."""
    repo = project.repo()
    failpoint("lock")
    with one_runner(project.paths, repo), forward_signals():
        snapshot = load_verified(project, repo)
        sandbox = choose_sandbox(project.plan.defaults.sandbox)
        yield Session(project, repo, snapshot, view, sandbox)


@dataclass
class Session:
    """One run under way."""

    project: Project
    repo: Repo
    snapshot: Snapshot
    view: View
    sandbox: Sandbox
    results: list[FeatureResult] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.project.plan

    @property
    def state(self) -> State:
        """The project's state after the newest entry."""
        return self.snapshot.state

    def summary(self, phase: Phase, exit_failing: tuple[str, ...] = ()) -> RunSummary:
        """Return what this run did."""
        state = self.state.phase(phase.id).state
        return RunSummary(phase.id, state, tuple(self.results), exit_failing)

    #### entries that are committed with the outcome that they lead to

    def lock(self, phase: Phase) -> None:
        """Append LOCKED at a phase's first feature and after a rejection; else check the lock."""
        if self.state.phase(phase.id).lock is not None:
            require_lock_unchanged(self.project, self.repo, self.snapshot, phase)
            return
        if not self.snapshot.ledger.entries:
            root_commit = self.repo.root_commit()
            self._append(EntryKind.GENESIS, entries.genesis_lines(self.plan.project, root_commit))
        lock = current_lock(self.project, self.repo, phase)
        file = RecordedFile(lock.digest, self.project.paths.plan_lock(phase.id))
        durable.write(self.project.root / file.path, lock.encode())
        failpoint("lock_written")
        lines = entries.locked_lines(file, self.repo.head())
        self._append(EntryKind.LOCKED, lines, phase)

    def start(self, spec: AttemptSpec) -> None:
        """Append STARTED: what is about to run, and on which commit."""
        lines = (
            entries.STARTED.format(
                attempt=spec.number,
                what=printable(spec.program),
                seed=spec.seed,
                profile=spec.profile,
                sandbox=self.sandbox.tier,
            ),
            entries.HEAD.format(commit=spec.commit),
            entries.TRANSACTION.format(txn=spec.txn),
        )
        self._append(EntryKind.STARTED, lines, spec.phase, spec.feature)

    def repair(self, lines: Sequence[str]) -> None:
        """Append REPAIRED: a truncated tail was set aside."""
        self._append(EntryKind.REPAIRED, lines)

    def restore(self, lines: Sequence[str]) -> None:
        """Append RECOVERED: progress.txt had lost entries that the journal had."""
        self._append(EntryKind.RECOVERED, lines)

    #### outcomes: entry, files and commit, recorded exactly once

    def record(self, spec: AttemptSpec, outcome: Outcome) -> None:
        """Record VERIFIED, FAILED or ERRORED."""
        self.view.stage(Stage.COMMIT)
        lines = outcome.result.lines
        entry = self._seal(outcome.kind, lines, spec.phase, spec.feature)
        failpoint("commit")
        self._commit(
            entry,
            txn=spec.txn,
            message=outcome.message,
            trailers=outcome.trailers,
            files={**outcome.files, **self._lock_file(spec.phase)},
            removed=outcome.removed,
        )
        self.results.append(outcome.result)
        self.view.feature_finished(spec.feature.id, outcome.result.state, lines)

    def interrupt(self, phase: Phase, feature: Feature, reason: str) -> None:
        """Record INTERRUPTED: a started feature has no outcome; it does not count as an attempt."""
        lines = entries.reason_lines([reason])
        self._commit(
            self._seal(EntryKind.INTERRUPTED, lines, phase, feature),
            txn=new_txn(),
            message=f"{feature.id} {feature.title}: interrupted",
            trailers=subject_trailers(phase.id, feature.id),
            files=self._lock_file(phase),
        )

    def halt(self, phase: Phase, exit_result: ExitGateResult) -> None:
        """Record HALTED with the review request: commit C of this checkpoint."""
        data = compose_request(self.repo, self.snapshot, phase, exit_result).encode()
        request = RecordedFile(durable.sha256(data), self.project.paths.review_request(phase.id))
        lines = halt_lines(request, self.state.phase(phase.id), self.repo.head())
        self._commit(
            self._seal(EntryKind.HALTED, (*exit_result.lines, *lines), phase),
            txn=exit_result.txn,
            message=f"Phase {phase.id} {phase.name}: awaiting approval",
            trailers=subject_trailers(phase.id),
            files={**exit_result.files, request.path: data},
        )

    def fail_exit(self, phase: Phase, exit_result: ExitGateResult) -> None:
        """Record FAILED of the phase itself: its exit gates failed."""
        lines = (*exit_result.lines, *entries.reason_lines(exit_result.reasons))
        self._commit(
            self._seal(EntryKind.FAILED, lines, phase),
            txn=exit_result.txn,
            message=f"Phase {phase.id} {phase.name}: exit gates failed",
            trailers=subject_trailers(phase.id),
            files=exit_result.files,
        )

    def complete_pending(self) -> list[str]:
        """Complete what a killed run had prepared; return the messages of what was completed."""
        ledger, messages = transaction.complete_pending(
            self.project.paths, self.repo, self.snapshot.ledger
        )
        self._take(ledger)
        return messages

    #### how they are written

    def _append(
        self,
        kind: EntryKind,
        lines: Sequence[str],
        phase: Phase | None = None,
        feature: Feature | None = None,
    ) -> None:
        entry = self._seal(kind, lines, phase, feature)
        paths = self.project.paths
        self._take(append_entry(paths.progress, paths.journal, self.snapshot.ledger, entry))

    def _seal(
        self,
        kind: EntryKind,
        lines: Sequence[str],
        phase: Phase | None = None,
        feature: Feature | None = None,
    ) -> Entry:
        return seal_entry(
            self.snapshot.ledger,
            kind,
            tuple(lines),
            time=utc_now(),
            phase=phase.id if phase else None,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )

    def _commit(
        self,
        entry: Entry,
        *,
        txn: str,
        message: str,
        trailers: Mapping[str, str],
        files: Mapping[str, bytes],
        removed: tuple[str, ...] = (),
    ) -> None:
        outcome = Transaction(txn, (entry,), message, trailers, files, removed)
        paths = self.project.paths
        self._take(transaction.commit(paths, self.repo, self.snapshot.ledger, outcome))

    def _lock_file(self, phase: Phase) -> dict[str, bytes]:
        return lock_file(self.project.paths, self.state.phase(phase.id))

    def _take(self, ledger: Ledger) -> None:
        """Take over a ledger that has grown, and fold the state anew."""
        records = committed_records(self.repo, ledger)
        reconciled = replace(self.snapshot.reconciled, ledger=ledger)
        self.snapshot = Snapshot(reconciled, fold_state(self.plan, ledger.entries, records))
