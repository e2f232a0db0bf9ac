"""An honest record of any length, in seconds: `write_long_record(folder, 10_000)`.

One attempt of each kind is really run and judged. The others repeat it with the numbers of their
own seeds: their outputs are those that their experiments would write, and receipts, verdicts,
entries, requests, locks and decisions are composed by the runner's own functions. The commits go
through `git fast-import`. So `audit` finds nothing, and it recomputes all of it; a run goes on from
there, and `verify` passes.

A phase is run, half of it is rejected in every second phase, one feature is waived in every third,
and it is approved; the last one waits. Attempts fail, are killed, and are given up because the
branch was switched, so that a commit brings five entries in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import long_project
from fast_import import FastImport
from long_examples import Attempt, Examples
from long_history import History
from long_project import FEATURES, LongProject, output_files
from pytest import MonkeyPatch

from phases.base import durable
from phases.base.text import utc_now
from phases.git.tree import CommitTree
from phases.judge.committed_gates import gate_descriptor
from phases.judge.verdict import verdict_of
from phases.plan.schema import Feature, Phase
from phases.record import entries
from phases.record.approval_rule import committed_rule
from phases.record.decision_record import DecisionResult
from phases.record.entries import RecordedFile
from phases.record.halts import compose_request, exit_lines, halt_lines, reviewed_gates
from phases.record.ledger import EntryKind
from phases.record.outcome_lines import started_lines
from phases.record.project import open_project
from phases.record.states import FeatureState
from phases.record.transaction import new_txn, subject_trailers
from phases.record.verdict import PhaseVerdict
from phases.record.waivers import dependants
from phases.run.checkpoint import ExitGateResult
from phases.run.outcome import record_of
from phases.run.plan_locks import committed_lock

FIRST_BLOCK, BLOCK = 2, 10
"""Phases that the plan has first, and that it gets at once by a commit of the user's."""
GIVEN_UP = (0, 4, 0, 3, 3, 4)
"""How often a feature is given up before it comes to an outcome, by its place."""
FAILS, IS_KILLED = 2, 4
"""Places, of six, of features whose first attempt fails or is killed."""
KILLED = "the runner was killed before it could record an outcome"
RESTORED = "progress.txt lacked its last 1 entries; restored from the journal"
DECIDED_BY = entries.DECIDED_BY.format(who="toy at /dev/pts/0 on machine", assurance="presence")


def write_long_record(root: Path, count: int) -> LongProject:
    """Make a repository whose record has at least so many entries, up to a checkpoint."""
    toy = LongProject(root, FIRST_BLOCK)
    with MonkeyPatch.context() as patch:
        # Each receipt lists the packages: they are the same all the time.
        from phases.run import outcome

        patch.setattr(outcome, "list_packages", cache(outcome.list_packages), raising=False)
        _Life(toy).go_on(count)
    return toy


class _Life(History):
    """What the runner, its user and the approver do, one after the other."""

    def __init__(self, toy: LongProject):
        super().__init__(toy)
        self._toy = toy

    def go_on(self, count: int) -> None:
        """Go on until the record has so many entries and a phase waits."""
        with ExitStack() as stack:
            project = open_project(self._toy.root)
            examples = Examples(stack, project, CommitTree(project.repo(), self.head))
            examples.make()
            lines = entries.genesis_lines(project.plan.project, self.head, sample=False)
            self.add(EntryKind.GENESIS, lines)
            while not self._run_block(examples, count):
                examples = self._grow_plan(examples)
        self._finish()

    def _run_block(self, examples: Examples, count: int) -> bool:
        """Run the phases that the plan got; return whether the record is long enough."""
        self._examples, self._plan = examples, examples.project.plan
        with FastImport(self._toy.root) as self.stream:
            for phase in self._plan.phases[self.status.id :]:
                self._run_phase(phase)
                if len(self.ledger.entries) >= count:
                    return True
                self._approve()
        return False

    def _grow_plan(self, examples: Examples) -> Examples:
        """Commit a plan with more phases, as its user does."""
        text = long_project.plan(self._toy.root, len(self._plan.phases) + BLOCK)
        self._toy.write("prd/plan.json", text)
        with FastImport(self._toy.root) as self.stream:
            self.commit_files("more phases", {"prd/plan.json": text.encode()})
        project = open_project(self._toy.root)
        return examples.at(project, CommitTree(project.repo(), self.head))

    def _finish(self) -> None:
        """Bring work tree, journal and ref to where the runner would have left them."""
        self._toy.git("repack", "-d", "-q")
        self._toy.git("reset", "-q", "--hard", "main")
        journal = self._toy.root / ".git/phases/journal"
        journal.parent.mkdir(exist_ok=True)
        journal.write_bytes(self.data)
        self._toy.git("update-ref", "refs/phases/log", self.head)

    #### one phase

    def _run_phase(self, phase: Phase) -> None:
        self.begin(phase)
        waived = phase.features[8] if phase.id % 3 == 0 else None
        self._lock()
        for place, feature in enumerate(phase.features):
            self._run_feature(place, feature, is_waived=feature is waived)
        self._halt()
        if phase.id % 2:
            return
        reset = dependants(phase.features, {item.id for item in phase.features[: FEATURES // 2]})
        self._reject(reset)
        self._lock()
        for place, feature in enumerate(phase.features):
            if feature.id in reset:
                self._run_feature(place, feature, is_waived=False)
        self._halt()

    def _run_feature(self, place: int, feature: Feature, *, is_waived: bool) -> None:
        """Make attempts at a feature until it is done."""
        place %= len(GIVEN_UP)
        if place == IS_KILLED:
            self._start(feature)
            self._interrupt(feature, KILLED, is_committed=True)
        for _ in range(GIVEN_UP[place]):
            self._start(feature)
            reason = f"the branch was switched while commit {self.head[:12]} ran: from main to x"
            self._interrupt(feature, reason, is_committed=False)
        if place == FAILS or is_waived:
            self._attempt(feature, "wrong" if self.phase.id % 2 else "crash")
        if is_waived:
            self._waive(feature)
            return
        if place == FAILS:
            self.add(EntryKind.RECOVERED, entries.reason_lines([RESTORED]))
        self._attempt(feature)

    def _lock(self) -> None:
        tree = self._examples.tree
        lock = committed_lock(tree, self.phase.id)
        path = self._examples.project.paths.plan_lock(self.phase.id)
        rule = committed_rule(self._plan, tree.entries)
        file = RecordedFile(lock.digest, path)
        lines = entries.locked_lines(file, self.head, approval=rule.lines)
        self.add_of_phase(EntryKind.LOCKED, lines)
        self.files = {path: lock.encode()}

    def _start(self, feature: Feature, mode: str = "good") -> Attempt:
        """Append STARTED; return the attempt that it begins."""
        materials = {"git": {"gitCommit": self.head, "gitTree": self.tree}}
        for need in feature.needs:
            materials[f"feature:{need}"] = {"sha256": self.status.feature(need).receipt or ""}
        number = self.status.feature(feature.id).started + 1
        attempt = self._examples.find(feature, mode).begin(self.phase, feature, number, materials)
        spec = attempt.spec
        lines = started_lines(
            spec.program,
            attempt=spec.number,
            seed=spec.seed,
            profile=spec.profile,
            sandbox=spec.workspace.sandbox.tier,
            head=self.head,
            txn=spec.txn,
        )
        self.add_of_phase(EntryKind.STARTED, lines, feature)
        return attempt

    def _interrupt(self, feature: Feature, reason: str, *, is_committed: bool) -> None:
        self.add_of_phase(EntryKind.INTERRUPTED, entries.reason_lines([reason]), feature)
        if is_committed:
            message = f"{feature.id} {feature.title}: interrupted"
            self.commit(new_txn(), message, subject_trailers(self.phase.id, feature.id))

    def _attempt(self, feature: Feature, mode: str = "good") -> None:
        """Record an attempt with its outcome."""
        attempt = self._start(feature, mode)
        outcome = record_of(attempt.spec, attempt.end(), self.snapshot())
        self.add_of_phase(outcome.kind, outcome.result.lines, feature)
        assert not outcome.removed
        self.commit(attempt.spec.txn, outcome.message, outcome.trailers, outcome.files)

    def _halt(self) -> None:
        phase, paths = self.phase, self._examples.project.paths
        tree = replace(self._examples.tree, commit=self.head)
        # The commit is in no pack yet, and its sources are those of the block's first commit.
        tree.__dict__["entries"] = self._examples.tree.entries
        result = self._exit_result(tree)
        data = compose_request(
            phase,
            self.status,
            self.ledger.entries,
            commit=tree.commit,
            gates=[gate_descriptor(tree, self._plan, gate) for gate in reviewed_gates(phase)],
            exit_verdict=result.verdict,
            requested_on=utc_now(),
            txn=result.txn,
        ).encode()
        request = RecordedFile(durable.sha256(data), paths.review_request(phase.id))
        lines = halt_lines(request, self.status, self.head)
        self.add_of_phase(EntryKind.HALTED, (*result.lines, *lines))
        message = f"Phase {phase.id} {phase.name}: awaiting approval"
        files = {**result.files, request.path: data}
        self.commit(result.txn, message, subject_trailers(phase.id), files)
        self._checkpoint_file = request

    def _exit_result(self, tree: CommitTree) -> ExitGateResult:
        """Return what the exit gate found, as the runner composes it."""
        gate = self.phase.exit[0]
        subjects: dict[str, str] = {}
        verified = []
        for feature in self.phase.features:
            if self.status.feature(feature.id).state == FeatureState.VERIFIED:
                verified.append(feature.id)
                for path, data in output_files(feature.seed or 0).items():
                    subjects[f"{feature.id}/{path}"] = durable.sha256(data)
        judgement = self._examples.exit_judgement(verified)
        descriptor = gate_descriptor(tree, self._plan, gate)
        verdict = verdict_of(judgement, outputs=subjects, configuration=[descriptor])
        phase_verdict = PhaseVerdict(phase=self.phase.id, verdicts=(verdict,))
        data = phase_verdict.encode()
        folder = self._examples.project.paths.phase_results(self.phase.id)
        file = RecordedFile(durable.sha256(data), f"{folder}/verdict.json")
        lines = exit_lines(self.phase, phase_verdict, file)
        return ExitGateResult(new_txn(), lines, (), (), {file.path: data}, file.sha256)

    #### decisions

    def _approve(self) -> None:
        record = self.record(DecisionResult.PASS, self._checkpoint_file)
        lines = self._decided_lines(record)
        self._decide(EntryKind.APPROVED, lines, "approved")

    def _reject(self, reset: Sequence[str]) -> None:
        reason = "count again"
        record = self.record(
            DecisionResult.FAIL, self._checkpoint_file, reason=reason, reset=tuple(reset)
        )
        lines = self._decided_lines(record, reason)
        self._decide(EntryKind.REJECTED, (*lines, *entries.reset_lines(reset)), "rejected")

    def _waive(self, feature: Feature) -> None:
        reason = "not needed"
        lock = RecordedFile(self.status.lock or "", self.status.lock_path or "")
        record = self.record(DecisionResult.WAIVE, lock, reason=reason, waived=(feature.id,))
        state = self.status.feature(feature.id)
        lines = (
            DECIDED_BY,
            *entries.reason_lines([reason]),
            entries.PREVIOUS_STATE.format(text=f"{state.state}, 1 attempt under this lock"),
            entries.HEAD.format(commit=self.head),
            record.line(entries.RECORD),
        )
        self.add_of_phase(EntryKind.WAIVED, lines, feature)
        trailers = subject_trailers(self.phase.id, feature.id)
        self.commit(new_txn(), f"{feature.id} {feature.title}: waived", trailers)

    def _decided_lines(self, record: RecordedFile, reason: str = "") -> tuple[str, ...]:
        return (
            DECIDED_BY,
            *(entries.reason_lines([reason]) if reason else ()),
            self._checkpoint_file.line(entries.REQUEST),
            entries.CHECKPOINT.format(commit=self.head),
            entries.HEAD.format(commit=self.head),
            record.line(entries.RECORD),
        )

    def _decide(self, kind: EntryKind, lines: Sequence[str], verb: str) -> None:
        self.add_of_phase(kind, lines)
        message = f"Phase {self.phase.id} {self.phase.name}: {verb}"
        self.commit(new_txn(), message, subject_trailers(self.phase.id))
