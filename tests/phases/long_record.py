"""An honest record of any length, in seconds: `write_long_record(folder, entries=10_000)`.

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

import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import long_project
from fast_import import FastImport
from long_project import FEATURES, LongProject, feature_id, output_files
from pytest import MonkeyPatch

from phases.base import durable
from phases.base.text import utc_now
from phases.decisions.proposal import dependants
from phases.execution.collect import collect_outputs
from phases.execution.sandbox import Sandbox, choose_sandbox
from phases.git.tree import CommitTree
from phases.judge.committed_gates import gate_descriptor
from phases.judge.mutation import Judgement, MutantKind
from phases.judge.verdict import gate_summary, verdict_of
from phases.plan.schema import Feature, Phase, Plan
from phases.record import entries
from phases.record.approval_rule import committed_rule
from phases.record.approvals import Checkpoint
from phases.record.decision_record import (
    Decision,
    DecisionRecord,
    DecisionResult,
    Presence,
    Repository,
    RequestDigest,
)
from phases.record.entries import RecordedFile
from phases.record.evidence import Evidence
from phases.record.ledger import Entry, EntryKind, Ledger, new_header, seal_entry
from phases.record.project import Project, Snapshot, open_project
from phases.record.reconcile import Reconciled
from phases.record.review_request import PhaseName, Sha256
from phases.record.state import PhaseStatus, State, _fold_entry, _pending_phase, fold_state
from phases.record.states import FeatureState
from phases.record.transaction import new_txn, subject_trailers
from phases.record.verdict import PhaseVerdict
from phases.run.attempt import AttemptResult, AttemptSpec, prepare_attempt, run_attempt
from phases.run.checkpoint import ExitGateResult, compose_request, halt_lines
from phases.run.outcome import record_of
from phases.run.plan_locks import committed_lock
from phases.run.workspace import Workspace, open_workspace
from phases.views.live import SilentView

BLOCK = 10
"""Phases that the plan gets at once: each block begins with a commit of the user's."""
GIVEN_UP = (0, 4, 0, 3, 3, 4)
"""How often a feature is given up before it comes to an outcome, by its place."""
FAILS, IS_KILLED = 2, 4
"""Places, of six, of features whose first attempt fails or is killed."""
KILLED = "the runner was killed before it could record an outcome"
RESTORED = "progress.txt lacked its last 1 entries; restored from the journal"
PRESENCE = Presence(
    user="toy",
    uid=1000,
    tty="/dev/pts/0",
    host="machine",
    git_identity="Toy User <toy@example.org>",
)
DECIDED_BY = entries.DECIDED_BY.format(who="toy at /dev/pts/0 on machine", assurance="presence")


def write_long_record(root: Path, entries: int) -> LongProject:
    """Make a repository whose record has at least so many entries, up to a checkpoint."""
    toy = LongProject(root, BLOCK)
    with MonkeyPatch.context() as patch:
        # Each receipt lists the packages: they are the same all the time.
        from phases.run import outcome

        patch.setattr(outcome, "list_packages", cache(outcome.list_packages), raising=False)
        _Life(toy).go_on(entries)
    return toy


#### attempts


@dataclass(frozen=True)
class _Attempt:
    """An attempt that was really made; others of its kind repeat it."""

    spec: AttemptSpec
    result: AttemptResult

    def again(
        self, phase: Phase, feature: Feature, number: int, txn: str, materials: Mapping[str, str]
    ) -> _Attempt:
        """Return the same attempt at another feature of its kind."""
        out, is_wrong = self.spec.out, self.result.state == FeatureState.FAILED
        outputs = self.result.outputs
        if outputs:
            write_outputs(out, output_files(feature.seed or 0, is_wrong=is_wrong))
            outputs = collect_outputs(out, feature.outputs)
        judgement = self.result.judgement
        if judgement is not None:
            judgement = replace(judgement, nonce=secrets.token_hex(16))
        now = utc_now()
        spec = replace(
            self.spec,
            phase=phase,
            feature=feature,
            number=number,
            txn=txn,
            seed=feature.seed or 0,
            materials={**self.spec.materials, **materials},
        )
        result = replace(
            self.result, outputs=outputs, judgement=judgement, started_on=now, finished_on=now
        )
        return _Attempt(spec, result)


def write_outputs(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace a folder of outputs."""
    shutil.rmtree(folder)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


class _Examples:
    """What others repeat: an attempt of each kind, and a judgement of a phase."""

    def __init__(self, stack: ExitStack, project: Project, tree: CommitTree):
        self._stack, self.project, self.tree = stack, project, tree
        self._sandbox = choose_sandbox(project.plan.defaults.sandbox)
        self._specs: dict[str, AttemptSpec] = {}
        self._results: dict[str, AttemptResult] = {}
        self._logs: dict[str, Path] = {}
        self._exit_judgement: Judgement | None = None

    def make(self) -> None:
        """Run and judge everything once; nothing is recorded."""
        mode_file = long_project.mode_file(self.project.root)
        for mode in ("wrong", "crash", "good", "module"):
            mode_file.write_text(mode)
            spec = self._prepare(is_module=mode == "module")
            result = run_attempt(spec, SilentView())
            if mode in ("good", "module"):
                _require_equal(spec.out, output_files(spec.seed))
            self._results[mode] = result
            self._logs[mode] = spec.workspace.staging.folder / "kept.log"
            self._logs[mode].write_bytes(spec.log.read_bytes())
        mode_file.unlink()
        self._exit_judgement = self._judge_phase()

    def at(self, project: Project, tree: CommitTree) -> _Examples:
        """Return the same examples, prepared anew on another commit, with another plan."""
        other = _Examples(self._stack, project, tree)
        other._results, other._logs = self._results, self._logs
        other._exit_judgement = self._exit_judgement
        for is_module in (False, True):
            other._prepare(is_module=is_module)
        return other

    def find(self, feature: Feature, mode: str = "good") -> _Attempt:
        """Return the attempt that one at this feature repeats."""
        name = "module" if feature.module else mode
        spec = replace(self._specs["module" if feature.module else "good"], log=self._logs[name])
        return _Attempt(spec, self._results[name])

    def exit_judgement(self, verified: Sequence[str]) -> Judgement:
        """Return the judgement of a phase with these features."""
        assert self._exit_judgement is not None
        names = iter(verified)
        mutants = []
        for mutant in self._exit_judgement.mutants:
            mutation = mutant.mutation
            if mutation.kind == MutantKind.MEASUREMENTS:
                name = next(names, None)
                if name is None:
                    continue
                mutation = replace(mutation, target=name)
            mutants.append(replace(mutant, mutation=mutation))
        nonce = secrets.token_hex(16)
        return replace(self._exit_judgement, mutants=tuple(mutants), nonce=nonce)

    def _prepare(self, *, is_module: bool) -> AttemptSpec:
        phase = self.project.plan.phases[0]
        feature = phase.features[is_module]
        spec = prepare_attempt(self._workspace(), phase, feature, txn=new_txn())
        self._specs["module" if is_module else "good"] = spec
        return spec

    def _judge_phase(self) -> Judgement:
        workspace = self._workspace()
        phase = workspace.plan.phases[0]
        judge = workspace.prepare_judge(phase.exit, ["numbers"])
        folders, outputs = {}, {}
        for feature in phase.features:
            folder = workspace.staging.folder / "phase" / feature.id
            folder.mkdir(parents=True)
            write_outputs(folder, output_files(feature.seed or 0))
            folders[feature.id] = folder
            collected = collect_outputs(folder, feature.outputs)
            outputs[feature.id] = {path: output.sha256 for path, output in collected.items()}
        gate = phase.exit[0]
        judgement = judge.judge_phase(gate, 0, folders=folders, outputs=outputs, waived=())
        assert judgement.state == FeatureState.VERIFIED, judgement.reasons
        return judgement

    def _workspace(self) -> Workspace:
        plan, view = self.project.plan, SilentView()
        state = fold_state(plan, (), Evidence())
        opened = open_workspace(self.project, plan, state, self.tree, self._sandbox, view=view)
        return self._stack.enter_context(opened)


def _require_equal(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        assert (folder / path).read_bytes() == data, path


#### entries and commits


class _Life:
    """What the runner, its user and the approver do, one after the other."""

    def __init__(self, toy: LongProject):
        self._toy = toy
        self._ledger = Ledger(new_header("Long"), ())
        self._data = bytearray(self._ledger.header)
        self._head = toy.git("rev-parse", "HEAD")
        self._tree = toy.git("rev-parse", "HEAD^{tree}")
        self._seconds = int(time.time())
        self._status = PhaseStatus(0, "", ())

    def go_on(self, entries: int) -> None:
        """Go on until the record has so many entries and a phase waits."""
        with ExitStack() as stack:
            project = open_project(self._toy.root)
            examples = _Examples(stack, project, CommitTree(project.repo(), self._head))
            examples.make()
            self._add(EntryKind.GENESIS, entries_of_genesis(project.plan, examples.tree.commit))
            while not self._run_block(examples, entries):
                examples = self._grow_plan(examples)
        self._finish()

    def _run_block(self, examples: _Examples, entries: int) -> bool:
        """Run the last phases of the plan; return whether the record is long enough."""
        self._examples, self._plan = examples, examples.project.plan
        with FastImport(self._toy.root) as self._stream:
            for phase in self._plan.phases[-BLOCK:]:
                self._run_phase(phase)
                if len(self._ledger.entries) >= entries:
                    return True
                self._approve()
        return False

    def _grow_plan(self, examples: _Examples) -> _Examples:
        """Commit a plan with more phases, as its user does."""
        text = long_project.plan(self._toy.root, len(self._plan.phases) + BLOCK)
        self._toy.write("prd/plan.json", text)
        with FastImport(self._toy.root) as self._stream:
            self._commit_files("more phases", {"prd/plan.json": text.encode()})
        project = open_project(self._toy.root)
        return examples.at(project, CommitTree(project.repo(), self._head))

    def _finish(self) -> None:
        """Bring work tree, journal and ref to where the runner would have left them."""
        self._toy.git("repack", "-d", "-q")
        self._toy.git("reset", "-q", "--hard", "main")
        journal = self._toy.root / ".git/phases/journal"
        journal.parent.mkdir(exist_ok=True)
        journal.write_bytes(self._data)
        self._toy.git("update-ref", "refs/phases/log", self._head)

    #### one phase

    def _run_phase(self, phase: Phase) -> None:
        self._phase, self._status, self._decisions = phase, _pending_phase(phase), 0
        self._files: dict[str, bytes] = {}
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
            reason = f"the branch was switched while commit {self._head[:12]} ran: from main to x"
            self._interrupt(feature, reason, is_committed=False)
        if place == FAILS or is_waived:
            self._attempt(feature, "wrong" if self._phase.id % 2 else "crash")
        if is_waived:
            self._waive(feature)
            return
        if place == FAILS:
            self._add(EntryKind.RECOVERED, entries.reason_lines([RESTORED]))
        self._attempt(feature)

    def _lock(self) -> None:
        tree = self._examples.tree
        lock = committed_lock(tree, self._phase.id)
        path = self._examples.project.paths.plan_lock(self._phase.id)
        rule = committed_rule(self._plan, tree.entries)
        file = RecordedFile(lock.digest, path)
        lines = entries.locked_lines(file, self._head, approval=rule.lines)
        self._add_of_phase(EntryKind.LOCKED, lines)
        self._files = {path: lock.encode()}

    def _start(self, feature: Feature, mode: str = "good") -> _Attempt:
        """Append STARTED; return the attempt that it begins."""
        materials = {"git": {"gitCommit": self._head, "gitTree": self._tree}}
        for need in feature.needs:
            materials[f"feature:{need}"] = {"sha256": self._status.feature(need).receipt or ""}
        attempt = self._examples.find(feature, mode).again(
            self._phase,
            feature,
            number=self._status.feature(feature.id).started + 1,
            txn=new_txn(),
            materials=materials,
        )
        spec = attempt.spec
        started = entries.STARTED.format(
            attempt=spec.number,
            what=spec.program,
            seed=spec.seed,
            profile=spec.profile,
            sandbox=spec.workspace.sandbox.tier,
        )
        head, txn = entries.HEAD.format(commit=self._head), entries.TRANSACTION.format(txn=spec.txn)
        self._add_of_phase(EntryKind.STARTED, (started, head, txn), feature)
        return attempt

    def _interrupt(self, feature: Feature, reason: str, *, is_committed: bool) -> None:
        self._add_of_phase(EntryKind.INTERRUPTED, entries.reason_lines([reason]), feature)
        if is_committed:
            message = f"{feature.id} {feature.title}: interrupted"
            self._commit(new_txn(), message, subject_trailers(self._phase.id, feature.id))

    def _attempt(self, feature: Feature, mode: str = "good") -> None:
        """Record an attempt with its outcome."""
        attempt = self._start(feature, mode)
        outcome = record_of(attempt.spec, attempt.result, self._snapshot())
        self._add_of_phase(outcome.kind, outcome.result.lines, feature)
        assert not outcome.removed
        self._commit(attempt.spec.txn, outcome.message, outcome.trailers, outcome.files)

    def _halt(self) -> None:
        phase, paths = self._phase, self._examples.project.paths
        tree = replace(self._examples.tree, commit=self._head)
        # The commit is in no pack yet, and its sources are those of the block's first commit.
        tree.__dict__["entries"] = self._examples.tree.entries
        result = self._exit_result(tree)
        data = compose_request(tree, self._plan, self._snapshot(), phase, result).encode()
        request = RecordedFile(durable.sha256(data), paths.review_request(phase.id))
        lines = halt_lines(request, self._status, self._head)
        self._add_of_phase(EntryKind.HALTED, (*result.lines, *lines))
        message = f"Phase {phase.id} {phase.name}: awaiting approval"
        files = {**result.files, request.path: data}
        self._commit(result.txn, message, subject_trailers(phase.id), files)
        self._checkpoint_file = request

    def _exit_result(self, tree: CommitTree) -> ExitGateResult:
        """Return what the exit gate found, as the runner composes it."""
        gate = self._phase.exit[0]
        subjects: dict[str, str] = {}
        verified = []
        for feature in self._phase.features:
            if self._status.feature(feature.id).state == FeatureState.VERIFIED:
                verified.append(feature.id)
                for path, data in output_files(feature.seed or 0).items():
                    subjects[f"{feature.id}/{path}"] = durable.sha256(data)
        judgement = self._examples.exit_judgement(verified)
        descriptor = gate_descriptor(tree, self._plan, gate)
        verdict = verdict_of(judgement, outputs=subjects, configuration=[descriptor])
        data = PhaseVerdict(phase=self._phase.id, verdicts=(verdict,)).encode()
        folder = self._examples.project.paths.phase_results(self._phase.id)
        file = RecordedFile(durable.sha256(data), f"{folder}/verdict.json")
        lines = (*gate_summary(gate.name, judgement).lines, file.line(entries.VERDICT))
        return ExitGateResult(new_txn(), lines, (), (), {file.path: data}, file.sha256)

    #### decisions

    def _approve(self) -> None:
        record = self._record(DecisionResult.PASS, self._checkpoint_file)
        lines = self._decided_lines(record)
        self._decide(EntryKind.APPROVED, lines, "approved")

    def _reject(self, reset: Sequence[str]) -> None:
        reason = "count again"
        record = self._record(
            DecisionResult.FAIL, self._checkpoint_file, reason=reason, reset=tuple(reset)
        )
        lines = self._decided_lines(record, reason)
        self._decide(EntryKind.REJECTED, (*lines, *entries.reset_lines(reset)), "rejected")

    def _waive(self, feature: Feature) -> None:
        reason = "not needed"
        lock = RecordedFile(self._status.lock or "", self._status.lock_path or "")
        record = self._record(DecisionResult.WAIVE, lock, reason=reason, waived=(feature.id,))
        state = self._status.feature(feature.id)
        lines = (
            DECIDED_BY,
            *entries.reason_lines([reason]),
            entries.PREVIOUS_STATE.format(text=f"{state.state}, 1 attempt under this lock"),
            entries.HEAD.format(commit=self._head),
            record.line(entries.RECORD),
        )
        self._add_of_phase(EntryKind.WAIVED, lines, feature)
        trailers = subject_trailers(self._phase.id, feature.id)
        self._commit(new_txn(), f"{feature.id} {feature.title}: waived", trailers)

    def _record(
        self,
        result: DecisionResult,
        decided_on: RecordedFile,
        reason: str = "",
        reset: tuple[str, ...] = (),
        waived: tuple[str, ...] = (),
    ) -> RecordedFile:
        """Compose a decision's record, for the next commit."""
        self._decisions += 1
        phase, genesis = self._phase, self._ledger.entries[0]
        root = (genesis.match(entries.ROOT) or {})["commit"]
        checkpoint = Checkpoint(
            phase=phase.id,
            entry=self._ledger.entries[-1].seq,
            commit=self._head,
            tree=self._tree,
            progress_size=len(self._data),
            progress_sha256=durable.sha256(bytes(self._data)),
            progress_head=self._ledger.head,
            request_path=decided_on.path,
            request_sha256=decided_on.sha256,
        )
        decision = Decision(
            result=result,
            phase=PhaseName(id=phase.id, name=phase.name),
            decision=self._decisions,
            repository=Repository(root_commit=root, genesis=genesis.self_hash),
            request=RequestDigest(digest=Sha256(sha256=decided_on.sha256)),
            reason=reason,
            reset=reset,
            waived=waived,
            decided_on=utc_now(),
            by=PRESENCE,
        )
        data = DecisionRecord(subject=checkpoint.subject, predicate=decision).encode()
        path = f"prd/approvals/phase-{phase.id}.{self._decisions}.json"
        self._files = {path: data}
        return RecordedFile(durable.sha256(data), path)

    def _decided_lines(self, record: RecordedFile, reason: str = "") -> tuple[str, ...]:
        return (
            DECIDED_BY,
            *(entries.reason_lines([reason]) if reason else ()),
            self._checkpoint_file.line(entries.REQUEST),
            entries.CHECKPOINT.format(commit=self._head),
            entries.HEAD.format(commit=self._head),
            record.line(entries.RECORD),
        )

    def _decide(self, kind: EntryKind, lines: Sequence[str], verb: str) -> None:
        self._add_of_phase(kind, lines)
        message = f"Phase {self._phase.id} {self._phase.name}: {verb}"
        self._commit(new_txn(), message, subject_trailers(self._phase.id))

    #### how they are written

    def _snapshot(self) -> Snapshot:
        state = State(phases=(self._status,))
        return Snapshot(Reconciled(self._ledger), state, Evidence())

    def _add_of_phase(
        self, kind: EntryKind, lines: Sequence[str], feature: Feature | None = None
    ) -> None:
        entry = self._add(kind, lines, self._phase, feature)
        self._status = _fold_entry(self._status, entry)

    def _add(
        self,
        kind: EntryKind,
        lines: Sequence[str],
        phase: Phase | None = None,
        feature: Feature | None = None,
    ) -> Entry:
        entry = seal_entry(
            self._ledger,
            kind,
            tuple(lines),
            time=utc_now(),
            phase=phase.id if phase else None,
            feature=feature.id if feature else None,
            title=feature.title if feature else "",
        )
        self._ledger = self._ledger.with_entry(entry)
        self._data += entry.block
        return entry

    def _commit(
        self,
        txn: str,
        message: str,
        trailers: Mapping[str, str],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Commit the ledger and files as the runner does, with its trailers."""
        last = self._ledger.entries[-1]
        trailers = {
            **trailers,
            "Phases-Entry": f"{last.seq:04d}",
            "Phases-Head": last.self_hash,
            "Phases-Txn": txn,
        }
        lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        files = {**self._files, **(files or {}), "progress.txt": bytes(self._data)}
        self._files = {}
        self._commit_files(f"{message}\n\n{lines}\n", files)

    def _commit_files(self, message: str, files: Mapping[str, bytes]) -> None:
        self._seconds += 1
        self._head, self._tree = self._stream.commit(self._head, message, self._seconds, files)


def entries_of_genesis(plan: Plan, root_commit: str) -> tuple[str, ...]:
    """Return the lines of the first entry."""
    return entries.genesis_lines(plan.project, root_commit)
