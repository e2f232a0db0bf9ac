"""One attempt at one feature: what is run, and how it is judged.

`prepare_attempt` resolves everything before the STARTED entry, `run_attempt` runs the experiment
and has its outputs judged; `outcome.record_of` turns the result into what the record holds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.text import utc_now
from phases.execution.collect import Output, OutputsError, collect_outputs
from phases.execution.inputs import ResolvedInput, check_inputs
from phases.execution.process import ProcessResult
from phases.execution.sandbox import Sandbox
from phases.execution.worker import Job, Staging, run_experiment
from phases.git.repo import Repo
from phases.judge.committed_gates import gate_digest
from phases.judge.gate import Judgement
from phases.plan.load import find_plan
from phases.plan.lock import runner_digest
from phases.plan.schema import Feature, Phase, Plan, canonical_json
from phases.record.project import Project
from phases.record.state import FeatureState, State
from phases.run.preflight import code_files
from phases.run.workspace import Workspace, prepare_workspace
from phases.views.live import Stage, View


@dataclass(frozen=True)
class AttemptSpec:
    """Everything about an attempt that is known before it starts."""

    workspace: Workspace
    phase: Phase
    feature: Feature
    number: int
    txn: str
    commit: str
    argv: tuple[str, ...]
    profile: str
    seed: int
    materials: Mapping[str, Mapping[str, str]]
    """URI of everything that goes in -> digest set."""
    log: Path
    """What the process prints; kept also when the runner is killed."""

    @property
    def program(self) -> str:
        """The module or command that is run, for readers."""
        return self.feature.module or self.feature.command or ""

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
        return self.feature.timeout_s or self.project.plan.defaults.timeout_s


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


@contextmanager
def prepare_attempt(
    project: Project,
    repo: Repo,
    sandbox: Sandbox,
    *,
    state: State,
    phase: Phase,
    feature: Feature,
    txn: str,
    scratch_profile: str | None = None,
) -> Iterator[AttemptSpec]:
    """Lay out the workspace of an attempt and resolve everything that its receipt will name.

    `scratch_profile` marks a scratch run: it overrides the plan's profile, and the log stays in the
    staging folder.
    """
    # 1. Staging, inputs, gates.
    with prepare_workspace(
        project,
        repo,
        sandbox,
        state=state,
        gates=[feature.gate],
        inputs=feature.inputs,
        needs=feature.needs,
    ) as workspace:
        # 2. What the plan decides.
        defaults = project.plan.defaults
        number = state.phase(phase.id).feature(feature.id).started + 1
        profile = scratch_profile or feature.profile or defaults.profile
        seed = defaults.seed if feature.seed is None else feature.seed

        # 3. Where the log goes.
        log = project.paths.log(feature.id, number)
        if scratch_profile:
            log = workspace.staging.folder / "log"
        log.parent.mkdir(parents=True, exist_ok=True)

        yield AttemptSpec(
            workspace=workspace,
            phase=phase,
            feature=feature,
            number=number,
            txn=txn,
            commit=repo.head(),
            argv=command_line(feature, profile, seed, workspace.staging),
            profile=profile,
            seed=seed,
            materials=resolve_materials(project.plan, repo, feature, workspace.inputs),
            log=log,
        )


def command_line(feature: Feature, profile: str, seed: int, staging: Staging) -> tuple[str, ...]:
    """Return the command that runs a feature; anyone can type the same one by hand."""
    if feature.command is not None:
        return ("/bin/sh", "-c", feature.command)
    options = {
        "--config": feature.config,
        "--profile": profile,
        "--seed": seed,
        "--inputs": staging.inputs_file,
        "--out": staging.out,
    }
    argv = [sys.executable, "-m", str(feature.module)]
    for option, value in options.items():
        argv += [option, str(value)]
    return tuple(argv)


def resolve_materials(
    plan: Plan, repo: Repo, feature: Feature, inputs: Sequence[ResolvedInput]
) -> dict[str, Mapping[str, str]]:
    """Return digest sets of everything that goes in: commit, plan, code, config, gate, inputs."""
    # 1. The commit, the plan and the runner.
    plan_path = find_plan(repo.root).relative_to(repo.root).as_posix()
    materials: dict[str, Mapping[str, str]] = {
        "git": {"gitCommit": repo.head()},
        plan_path: _committed_digest(repo, plan_path),
        "runner": {"sha256": runner_digest()},
    }

    # 2. The feature's config, code and gate.
    if feature.config:
        materials[feature.config] = _committed_digest(repo, feature.config)
    if feature.module:
        digests = {}
        for path in sorted(code_files(repo, "HEAD", plan, feature.module)):
            digests[path] = durable.sha256(repo.blob("HEAD", path) or b"")
        package = feature.module.split(".", 1)[0]
        materials[f"code:{package}"] = {"sha256": durable.sha256(canonical_json(digests))}
    materials[feature.gate.name] = {"sha256": gate_digest(repo, feature.gate)}

    # 3. Its inputs.
    for item in inputs:
        materials[f"{item.kind}:{item.name}"] = item.identity
    return materials


def _committed_digest(repo: Repo, path: str) -> dict[str, str]:
    data = repo.blob("HEAD", path)
    return {} if data is None else {"sha256": durable.sha256(data)}


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
        root=spec.project.root,
        env={
            **spec.workspace.env,
            "PHASES_OUT": str(staging.out),
            "PHASES_PROFILE": spec.profile,
            "PHASES_SEED": str(spec.seed),
        },
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
    check_inputs(spec.workspace.inputs)
    outputs: Mapping[str, Output] = {}
    errors = process_errors(process, spec.timeout_s)
    if not errors:
        try:
            outputs = collect_outputs(staging.out, spec.feature.outputs)
        except OutputsError as error:
            errors = tuple(error.problems)
    if errors:
        return AttemptResult(started_on, finished_on, process, outputs, None, errors)

    # 3. Judge.
    view.stage(Stage.JUDGE)
    failpoint("judge")
    digests = {path: output.sha256 for path, output in outputs.items()}
    judgement = spec.workspace.judge_feature(spec.feature, staging.out, digests, view)
    failpoint("judged")
    check_inputs(spec.workspace.inputs)
    return AttemptResult(
        started_on=started_on,
        finished_on=finished_on,
        process=process,
        outputs=outputs,
        judgement=judgement,
        errors=(),
    )


def process_errors(process: ProcessResult, timeout_s: float) -> tuple[str, ...]:
    """Return why the process did not end well; empty if it did."""
    if process.timed_out:
        return (f"timeout: stopped after {timeout_s:.0f} s",)
    if process.signal is not None:
        return (f"the experiment was killed by signal {process.signal}",)
    if process.exit_code != 0:
        return (f"the experiment ended with exit {process.exit_code}",)
    return ()
