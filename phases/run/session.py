"""One run: what it works on, and the only writer of its entries.

Each verb appends what happened (`lock`, `start`, `repair`, `restore`) or records an outcome
(`record`, `interrupt`, `halt`, `fail_exit`) and keeps the snapshot up to date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.text import utc_now
from phases.errors import IntegrityError
from phases.execution.process import forward_signals
from phases.execution.sandbox import Sandbox, choose_sandbox
from phases.git.one_runner import one_runner
from phases.git.repo import Repo
from phases.git.tree import CommitTree
from phases.judge.committed_gates import gate_descriptor
from phases.plan.lock import runner_digest
from phases.plan.schema import Feature, Phase, Plan
from phases.record import completion, entries, transaction
from phases.record.anchor import pulled_commit
from phases.record.approval_rule import committed_rule
from phases.record.approvals import record_files
from phases.record.entries import RecordedFile
from phases.record.evidence import Evidence, weigh_evidence
from phases.record.halts import compose_request, halt_lines, reviewed_gates
from phases.record.ledger import Entry, EntryKind, Ledger, append_entry, seal_entry
from phases.record.outcome_lines import started_lines
from phases.record.own_commit import extend_evidence
from phases.record.project import Project, Snapshot, is_unmoved, load_verified
from phases.record.reconcile import Pulled
from phases.record.state import State, extend_state, fold_state
from phases.record.subjects import exit_failed_subject, halted_subject, interrupted_subject
from phases.record.transaction import Transaction, new_txn, subject_trailers
from phases.run.attempt import AttemptSpec
from phases.run.checkpoint import ExitGateResult
from phases.run.committed_code import left_out_paths
from phases.run.outcome import Outcome
from phases.run.plan_locks import (
    committed_lock,
    lock_file,
    require_plan,
)
from phases.run.results import FeatureResult, RunSummary
from phases.run.take_over import keep_set_aside
from phases.run.workspace import Workspace, open_workspace
from phases.views.live import Stage, View


@contextmanager
def open_session(project: Project, view: View) -> Iterator[Session]:
    """Take the runner's lock and read the project under it."""
    runner_digest()  # of the sources as they are now, when they are loaded
    repo = project.repo()
    failpoint("lock")
    with one_runner(project.paths, repo), forward_signals():
        project = project.probed_anew()
        snapshot = load_verified(project, repo)
        sandbox = choose_sandbox(project.plan.defaults.sandbox)
        approvals = record_files(project.root)
        yield Session(project, repo, snapshot, approvals, view, sandbox)


@dataclass
class Session:
    """One run under way."""

    project: Project
    repo: Repo
    snapshot: Snapshot
    approvals: Mapping[str, str]
    """The files of decisions when the snapshot was read."""
    view: View
    sandbox: Sandbox
    results: list[FeatureResult] = field(default_factory=list)
    _tree: CommitTree | None = None
    """The newest tree of `code_tree`."""

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.project.plan

    @property
    def state(self) -> State:
        """The project's state after the newest entry."""
        return self.snapshot.state

    def workspace(self, tree: CommitTree) -> AbstractContextManager[Workspace]:
        """Return a workspace in which a commit is run or judged."""
        return open_workspace(
            self.project, require_plan(tree), self.state, tree, self.sandbox, view=self.view
        )

    def read_again(self) -> None:
        """Read HEAD, ledger and state again, after others may have changed them.

        Raises:
            IntegrityError: see `load_verified`.
        """
        self.project = self.project.probed_anew()
        self.snapshot = load_verified(self.project, self.repo)
        self.approvals = record_files(self.project.root)

    @property
    def is_unmoved(self) -> bool:
        """Whether nobody has changed HEAD, the record or what is prepared since it was read."""
        return is_unmoved(self.project, self.repo, self.snapshot, self.approvals)

    def summary(self, phase: Phase, exit_failing: tuple[str, ...] = ()) -> RunSummary:
        """Return what this run did."""
        state = self.state.phase(phase.id).state
        return RunSummary(phase.id, state, tuple(self.results), exit_failing)

    def code_tree(self) -> CommitTree:
        """Return HEAD's tree without the record, unless the plan or a link names a file of it."""
        head = self.repo.head()
        if self._tree is None or self._tree.commit != head:
            self._tree = CommitTree(self.repo, head, left_out_paths(self.plan))
            if self._tree.leads_to(self._tree.left_out):
                self._tree = CommitTree(self.repo, head)
        return self._tree

    #### entries that are committed with the outcome that they lead to

    def lock(self, phase: Phase, tree: CommitTree) -> None:
        """Append LOCKED at a phase's first feature and after a rejection.

        Until the phase has an outcome, a plan that changed is locked anew. The caller has checked
        the plan (`require_lock_unchanged`).
        """
        status = self.state.phase(phase.id)
        if status.lock is not None and status.has_outcome:
            return
        lock = committed_lock(tree, phase.id)
        file = RecordedFile(lock.digest, self.project.paths.plan_lock(phase.id))
        rule = committed_rule(require_plan(tree), tree.entries)
        is_same = status.lock == file.sha256 and status.approval == rule
        if is_same and self._is_lock_of_history(phase, tree):
            durable.write(self.project.root / file.path, lock.encode())
            return
        if not self.snapshot.ledger.entries:
            root_commit = self.repo.root_commit()
            lines = entries.genesis_lines(self.plan.project, root_commit, sample=self.plan.sample)
            self._append(EntryKind.GENESIS, lines)
        lines = entries.locked_lines(file, tree.commit, approval=rule.lines)
        self._append(EntryKind.LOCKED, lines, phase)
        # Only now: a file that no entry names would be one that nobody recorded.
        durable.write(self.project.root / file.path, lock.encode())
        failpoint("lock_written")

    def _is_lock_of_history(self, phase: Phase, tree: CommitTree) -> bool:
        """Return whether the commit that the phase was locked on is before the one that runs."""
        commit = self.state.phase(phase.id).lock_commit
        return commit is not None and self.repo.is_ancestor(commit, tree.commit)

    def start(self, spec: AttemptSpec) -> str:
        """Append STARTED: what is about to run, and on which commit; return the entry's hash."""
        lines = started_lines(
            spec.program,
            attempt=spec.number,
            seed=spec.seed,
            profile=spec.profile,
            sandbox=self.sandbox.tier,
            head=spec.commit,
            txn=spec.txn,
        )
        self._append(EntryKind.STARTED, lines, spec.phase, spec.feature)
        return self.snapshot.ledger.head

    def give_up(self, spec: AttemptSpec, reason: str) -> None:
        """Append INTERRUPTED and commit nothing: HEAD is not where the attempt began."""
        lines = entries.reason_lines([reason])
        self._append(EntryKind.INTERRUPTED, lines, spec.phase, spec.feature)

    def repair(self, lines: Sequence[str]) -> None:
        """Append REPAIRED: a truncated tail was set aside."""
        self._append(EntryKind.REPAIRED, lines)

    def restore(self, lines: Sequence[str]) -> None:
        """Append RECOVERED: progress.txt had lost entries that the journal had."""
        self._append(EntryKind.RECOVERED, lines)

    def give_up_decision(self, decision: Entry) -> None:
        """Append LOST: a decision has no commit and is prepared nowhere any more."""
        reason = "what a killed command had prepared was removed before a run could commit it"
        lost = entries.LOST.format(kind=decision.kind, entry=f"{decision.seq:04d}")
        self.view.message(f"the {decision.kind} of entry {decision.seq:04d} was lost: {reason}")
        lines = (lost, *entries.reason_lines([reason]))
        self._append(EntryKind.LOST, lines)

    def anchor_pulled(self) -> None:
        """Move `refs/phases/log` to the commit up to which entries were taken over.

        A run that was killed after PULLED had not moved it yet.
        """
        newest = self.snapshot.evidence.newest
        pulled = pulled_commit(self.snapshot.ledger, self.snapshot.evidence)
        if newest and newest.sha == pulled and self.repo.log_ref() != newest.sha:
            self.repo.move_log_ref(newest.sha)

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
        recorded = self.state.phase(spec.phase.id).feature(spec.feature.id)
        if recorded.state != outcome.result.state:
            # Else the feature would run again, without end.
            message = f"the commit of {spec.feature.id} does not hold entry {entry.seq:04d}"
            raise IntegrityError("commit-content", message)
        self.results.append(outcome.result)
        self.view.feature_finished(spec.feature.id, outcome.result.state, lines)

    def interrupt(self, phase: Phase, feature: Feature, reason: str) -> None:
        """Record INTERRUPTED: a started feature has no outcome; it does not count as an attempt."""
        feature = feature.model_copy(update={"title": self._started_title(feature)})
        lines = entries.reason_lines([reason])
        self._commit(
            self._seal(EntryKind.INTERRUPTED, lines, phase, feature),
            txn=new_txn(),
            message=interrupted_subject(feature.id, feature.title),
            trailers=subject_trailers(phase.id, feature.id),
            files=self._lock_file(phase),
        )

    def _started_title(self, feature: Feature) -> str:
        """Return the title under which a feature was started: the plan may have changed since."""
        for entry in reversed(self.snapshot.ledger.entries):
            if entry.kind == EntryKind.STARTED and entry.feature == feature.id:
                return entry.title
        return feature.title

    def halt(self, phase: Phase, tree: CommitTree, plan: Plan, exit_result: ExitGateResult) -> None:
        """Record HALTED with the review request: commit C of this checkpoint."""
        gates = [gate_descriptor(tree, plan, gate) for gate in reviewed_gates(phase)]
        data = compose_request(
            phase,
            self.state.phase(phase.id),
            self.snapshot.ledger.entries,
            commit=tree.commit,
            gates=gates,
            exit_verdict=exit_result.verdict,
            requested_on=utc_now(),
            txn=exit_result.txn,
        ).encode()
        request = RecordedFile(durable.sha256(data), self.project.paths.review_request(phase.id))
        lines = halt_lines(request, self.state.phase(phase.id), tree.commit)
        self._commit(
            self._seal(EntryKind.HALTED, (*exit_result.lines, *lines), phase),
            txn=exit_result.txn,
            message=halted_subject(phase),
            trailers=subject_trailers(phase.id),
            files={**exit_result.files, **self._lock_file(phase), request.path: data},
        )

    def fail_exit(self, phase: Phase, exit_result: ExitGateResult) -> None:
        """Record FAILED of the phase itself: its exit gates failed."""
        lines = (*exit_result.lines, *entries.reason_lines(exit_result.reasons))
        self._commit(
            self._seal(EntryKind.FAILED, lines, phase),
            txn=exit_result.txn,
            message=exit_failed_subject(phase),
            trailers=subject_trailers(phase.id),
            files={**exit_result.files, **self._lock_file(phase)},
        )

    def complete_pending(self) -> list[str]:
        """Complete what a killed run had prepared; return the messages of what was completed."""
        ledger, messages = completion.complete_pending(
            self.project, self.repo, self.snapshot.ledger
        )
        self._take(ledger, is_committed=bool(messages))
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
        ledger = append_entry(paths.progress, paths.journal, self.snapshot.ledger, entry)
        self._take(ledger, is_committed=False)

    def _take_over(self, pulled: Pulled) -> None:
        """Append PULLED before this machine's first entry after what another one recorded.

        `recover` has audited the record.
        """
        newest = self.snapshot.evidence.newest
        commit = newest.sha if newest else ""
        keep_set_aside(self.project.paths, pulled)
        self._append(EntryKind.PULLED, pulled.lines(commit))
        failpoint("pulled")
        self.anchor_pulled()
        self.view.message(f"took over entries {pulled.first:04d} to {pulled.last:04d}")

    def _seal(
        self,
        kind: EntryKind,
        lines: Sequence[str],
        phase: Phase | None = None,
        feature: Feature | None = None,
    ) -> Entry:
        if self.snapshot.reconciled.pulled and kind != EntryKind.PULLED:
            self._take_over(self.snapshot.reconciled.pulled)
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
        parent = self.project.probe.head
        ledger = transaction.commit(paths, self.repo, self.snapshot.ledger, outcome)
        self._take(ledger, is_committed=True)
        self._move_tree(parent, (*files, *removed))

    def _move_tree(self, parent: str | None, paths: Sequence[str]) -> None:
        """Keep what was read of the code if the runner's commit changed the record alone."""
        tree = self._tree
        if tree is None or tree.commit != parent or self.project.probe.head is None:
            return
        if all(path.startswith(tree.left_out) for path in ("progress.txt", *paths)):
            self._tree = tree.moved_to(self.project.probe.head)

    def _lock_file(self, phase: Phase) -> dict[str, bytes]:
        return lock_file(self.project, self.repo, self.snapshot, phase.id)

    def _take(self, ledger: Ledger, *, is_committed: bool) -> None:
        """Take over a ledger that has grown, and the state after its new entries."""
        added = ledger.entries[len(self.snapshot.ledger.entries) :]
        evidence: Evidence | None = self.snapshot.evidence
        if is_committed:
            head = self.project.probe.head
            evidence = extend_evidence(self.snapshot.evidence, ledger, self.repo, head)
            if not added:  # a killed run's entry, which counts only now
                evidence = None
        if evidence is None:
            self.project = self.project.probed_anew()
            evidence = weigh_evidence(self.project.root, ledger, len(ledger.data))
            state = fold_state(self.plan, ledger.entries, evidence)
        else:
            state = extend_state(self.state, added, evidence)
            if is_committed and evidence.newest:
                self.project = self.project.at_own_commit(evidence.newest, len(ledger.data))
        reconciled = replace(self.snapshot.reconciled, ledger=ledger)
        if any(entry.kind == EntryKind.PULLED for entry in added):
            reconciled = replace(reconciled, pulled=None, has_journal=True)
        self.snapshot = Snapshot(reconciled, state, evidence)
