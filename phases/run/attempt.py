"""One attempt at one feature: what is run, and how it is judged.

`prepare_attempt` resolves everything before the STARTED entry, `run_attempt` runs the experiment
and has its outputs judged; `outcome.record_of` turns the result into what the record holds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import is_artifact
from phases.base.text import utc_now
from phases.execution.collect import Output, OutputsError, collect_outputs
from phases.execution.command_line import command_line, shell_command
from phases.execution.inputs import InputKind, ResolvedInput
from phases.execution.process import EXIT_REASON, ProcessResult
from phases.execution.worker import Job, run_experiment
from phases.git.tree import CommitTree, Layout
from phases.judge.gate import Judgement
from phases.plan.schema import Feature, Phase
from phases.record.feature_code import feature_code
from phases.record.project import Project
from phases.record.states import FeatureState
from phases.run.committed_code import code_of_copy, resolve_materials
from phases.run.programs import resolve_programs
from phases.run.workspace import Workspace, started_variable
from phases.views.live import Stage, View


@dataclass(frozen=True)
class AttemptSpec:
    """Everything about an attempt that is known before it starts."""

    workspace: Workspace
    phase: Phase
    feature: Feature
    number: int
    txn: str
    branch: str | None
    """The branch that HEAD was on."""
    layout: Layout
    """The working directory of the experiment: a copy of the commit, or the work tree."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Variables of the experiment, besides those of every clean environment."""
    profile: str
    seed: int
    inputs: Sequence[ResolvedInput]
    materials: Mapping[str, Mapping[str, str]]
    """URI of everything that goes in -> digest set."""
    programs: Mapping[str, str]
    """Path of each program that the commit does not have -> SHA-256."""
    log: Path
    """What the process prints; kept also when the runner is killed."""
    started: str = ""
    """Hash of the STARTED entry; empty before there is one, and in a scratch run."""

    @property
    def program(self) -> str:
        """The module or command that is run, for readers."""
        return self.feature.program

    @property
    def commit(self) -> str:
        """The commit that is run; empty in a scratch run."""
        return self.workspace.tree.commit

    @property
    def project(self) -> Project:
        """The project that the feature belongs to."""
        return self.workspace.project

    @property
    def out(self) -> Path:
        """Where the experiment writes its outputs."""
        return self.workspace.staging.out

    @property
    def timeout_s(self) -> float:
        """Seconds that the experiment may take."""
        return self.feature.timeout_s or self.workspace.plan.defaults.timeout_s


@dataclass(frozen=True)
class AttemptResult:
    """What an attempt gave."""

    started_on: str
    finished_on: str
    process: ProcessResult
    outputs: Mapping[str, Output]
    judgement: Judgement | None
    errors: tuple[str, ...]
    """Why it could not be judged; empty if it was."""
    discarded: tuple[str, ...] = ()
    """What the experiment changed in its copy of the commit, which nothing keeps."""

    @property
    def state(self) -> FeatureState:
        """VERIFIED, FAILED or ERRORED."""
        return self.judgement.state if self.judgement else FeatureState.ERRORED

    @property
    def digests(self) -> dict[str, str]:
        """Output path -> SHA-256."""
        return {path: output.sha256 for path, output in self.outputs.items()}

    @property
    def reasons(self) -> Sequence[str]:
        """Why the attempt was not verified."""
        if self.errors or self.judgement is None:
            return self.errors
        return self.judgement.reasons


#### before the run


def prepare_attempt(
    workspace: Workspace,
    phase: Phase,
    feature: Feature,
    layout: Layout,
    *,
    txn: str,
    branch: str | None = None,
    scratch_profile: str | None = None,
) -> AttemptSpec:
    """Resolve everything that an attempt works on, and that its receipt will name.

    `layout` has what is run. `scratch_profile` marks a scratch run: it overrides the plan's
    profile, and the log stays in the staging folder.
    """
    # 1. The inputs.
    staging, tree = workspace.staging, workspace.tree
    inputs = workspace.resolve_inputs(
        tree,
        layout,
        feature.inputs,
        feature.needs,
        staging.folder,
        with_code=feature.code_of_needs,
    )

    # 2. What the plan decides.
    number = workspace.state.phase(phase.id).feature(feature.id).started + 1
    profile = scratch_profile or workspace.plan.profile_of(feature)
    seed = workspace.plan.seed_of(feature)
    command = resolve_programs(feature.command or "", tree)
    argv = command_line(
        feature,
        profile,
        seed,
        python=sys.executable,
        inputs=str(staging.inputs_file),
        out=str(staging.out),
    )
    if feature.command:
        argv = shell_command(command.text)
    env = {
        **workspace.environment(layout),
        "PHASES_OUT": str(staging.out),
        "PHASES_PROFILE": profile,
        "PHASES_SEED": str(seed),
    }

    # 3. The code of the commit: all of it is there, and it is what Python imports.
    materials: dict[str, Mapping[str, str]] = {}
    if isinstance(tree, CommitTree):
        code = feature_code(tree, workspace.plan, feature)
        if feature.module:
            code = code_of_copy(workspace, layout, env, feature, code)
        materials = resolve_materials(
            workspace, tree, feature, layout=layout, code=code, inputs=inputs
        )
        materials |= command.materials

    # 4. Where the log goes.
    log = workspace.project.paths.log(feature.id, number)
    if scratch_profile:
        log = staging.folder / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return AttemptSpec(
        workspace=workspace,
        phase=phase,
        feature=feature,
        number=number,
        txn=txn,
        branch=branch,
        layout=layout,
        argv=argv,
        env=env,
        profile=profile,
        seed=seed,
        inputs=inputs,
        materials=materials,
        programs=command.programs,
        log=log,
    )


#### the run


def run_attempt(spec: AttemptSpec, view: View) -> AttemptResult:
    """Run the experiment, collect its outputs, have them judged.

    A fault of the experiment is part of the result; only faults of the environment are raised.
    """
    # 1. Work: one child process.
    view.stage(Stage.WORK)
    failpoint("work")
    staging = spec.workspace.staging
    job = Job(
        argv=spec.argv,
        folder=spec.layout.folder,
        env={**spec.env, **started_variable(spec.started)},
        out=staging.out,
        inputs_file=staging.inputs_file,
        events=staging.events,
        log=spec.log,
        timeout_s=spec.timeout_s,
        sandbox=spec.workspace.sandbox,
    )
    started_on = utc_now()
    process = run_experiment(job, view)
    finished_on = utc_now()

    # 2. Collect: the outputs against the plan's declaration.
    failpoint("collect")
    outputs: Mapping[str, Output] = {}
    errors = process_errors(process, spec.timeout_s) or program_errors(spec)
    errors = errors or input_errors(spec)
    if not errors:
        try:
            # What is published must exist, as an output that is named without wildcards.
            declared = (*spec.feature.outputs, *spec.feature.publish)
            outputs = collect_outputs(staging.out, declared)
        except OutputsError as error:
            errors = tuple(error.problems)

    # 3. Judge: only now are gates and their inputs laid out.
    judgement = None
    if not errors:
        view.stage(Stage.JUDGE)
        failpoint("judge")
        feature = spec.feature
        judge = spec.workspace.prepare_judge(
            [feature.gate], feature.inputs, feature.needs, with_code=feature.code_of_needs
        )
        digests = {path: output.sha256 for path, output in outputs.items()}
        judgement = judge.judge_feature(feature, staging.out, digests, view, started=spec.started)
        failpoint("judged")

    # 4. Nothing that was changed in the copy of the commit counts.
    discarded = tuple(spec.layout.changes()) if spec.commit else ()
    return AttemptResult(
        started_on=started_on,
        finished_on=finished_on,
        process=process,
        outputs=outputs,
        judgement=judgement,
        errors=errors,
        discarded=discarded,
    )


def process_errors(process: ProcessResult, timeout_s: float) -> tuple[str, ...]:
    """Return why the process did not end well; empty if it did."""
    if process.timed_out:
        return (f"timeout: stopped after {timeout_s:.0f} s",)
    if process.signal is not None:
        return (f"the experiment was killed by signal {process.signal}",)
    if process.exit_code != 0:
        return (f"{EXIT_REASON}{process.exit_code}",)
    return ()


def program_errors(spec: AttemptSpec) -> tuple[str, ...]:
    """Return which programs are no longer those that the receipt would name."""
    errors = []
    for path, digest in spec.programs.items():
        file = spec.project.root / path
        if not file.is_file() or durable.sha256_file(file) != digest:
            errors.append(f"{path} was changed while it ran")
    return tuple(errors)


def input_errors(spec: AttemptSpec) -> tuple[str, ...]:
    """Return which stored artifacts are no longer what they were: the inputs are links to them."""
    errors = []
    for item in spec.inputs:
        for name, digest in item.files.items():
            if item.kind != InputKind.FEATURE or not is_artifact(name):
                continue
            stored = spec.project.paths.artifact(digest)
            if not stored.is_file() or durable.sha256_file(stored) != digest:
                errors.append(f"{item.name}: the stored {name} was changed while it ran")
    return tuple(errors)
