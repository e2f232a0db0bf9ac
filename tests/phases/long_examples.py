"""Attempts that are really made once, so that a long record can repeat them."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import long_project
from long_project import output_files

from phases.base.text import utc_now
from phases.execution.collect import collect_outputs
from phases.execution.sandbox import choose_sandbox
from phases.git.tree import CommitTree
from phases.judge.mutation import Judgement, MutantKind
from phases.plan.schema import Feature, Phase
from phases.record.evidence import Evidence
from phases.record.project import Project
from phases.record.state import fold_state
from phases.record.states import FeatureState
from phases.record.transaction import new_txn
from phases.run.attempt import AttemptResult, AttemptSpec, prepare_attempt, run_attempt
from phases.run.workspace import Workspace, open_workspace
from phases.views.live import SilentView


@dataclass(frozen=True)
class Attempt:
    """An attempt that was really made; others of its kind repeat it."""

    spec: AttemptSpec
    result: AttemptResult

    def begin(
        self, phase: Phase, feature: Feature, number: int, materials: Mapping[str, str]
    ) -> Attempt:
        """Return the same attempt at another feature of its kind."""
        spec = replace(
            self.spec,
            phase=phase,
            feature=feature,
            number=number,
            txn=new_txn(),
            seed=feature.seed or 0,
            materials={**self.spec.materials, **materials},
        )
        return replace(self, spec=spec)

    def end(self) -> AttemptResult:
        """Write the outputs of this feature; return what the attempt gave."""
        spec, outputs, judgement = self.spec, self.result.outputs, self.result.judgement
        if outputs:
            is_wrong = self.result.state == FeatureState.FAILED
            write_outputs(spec.out, output_files(spec.seed, is_wrong=is_wrong))
            outputs = collect_outputs(spec.out, spec.feature.outputs)
        if judgement is not None:
            judgement = replace(judgement, nonce=secrets.token_hex(16))
        now = utc_now()
        return replace(
            self.result, outputs=outputs, judgement=judgement, started_on=now, finished_on=now
        )


def write_outputs(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace a folder of outputs."""
    shutil.rmtree(folder)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


class Examples:
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

    def at(self, project: Project, tree: CommitTree) -> Examples:
        """Return the same examples, prepared anew on another commit, with another plan."""
        other = Examples(self._stack, project, tree)
        other._results, other._logs = self._results, self._logs
        other._exit_judgement = self._exit_judgement
        for is_module in (False, True):
            other._prepare(is_module=is_module)
        return other

    def find(self, feature: Feature, mode: str = "good") -> Attempt:
        """Return the attempt that one at this feature repeats."""
        name = "module" if feature.module else mode
        spec = replace(self._specs["module" if feature.module else "good"], log=self._logs[name])
        return Attempt(spec, self._results[name])

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
        workspace = self._workspace()
        layout = workspace.tree.lay_out(workspace.staging.tree)
        spec = prepare_attempt(workspace, phase, feature, layout, txn=new_txn())
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
