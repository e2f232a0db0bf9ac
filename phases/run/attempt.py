"""One attempt at one feature: what is run, and how it is judged.

`plan` resolves everything before the STARTED entry, `run` does the work and has it judged; `outcome.outcome_of` then
turns what was seen into the bytes that the record holds. Only the runner calls these, in this order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import Paths
from phases.base.text import utc_now
from phases.execution import worker
from phases.execution.collect import Output, OutputsError, collect_outputs
from phases.execution.inputs import ResolvedInput, check_inputs, encode_inputs, resolve_inputs
from phases.execution.process import ProcessResult
from phases.execution.sandbox import Sandbox
from phases.execution.worker import Staging
from phases.git.repo import Repo
from phases.judge.committed_gates import gate_digest, materialise_gates
from phases.judge.gate import gate_spec, judge_feature
from phases.judge.mutation import Judgement
from phases.plan import schema
from phases.plan.load import find_plan
from phases.plan.lock import runner_digest
from phases.plan.schema import Feature, Phase, Plan
from phases.record.project import Project
from phases.record.state import State
from phases.run import preflight
from phases.views.live import View


@dataclass(frozen=True)
class AttemptSpec:
    """Everything about an attempt that is known before it starts."""

    project: Project
    phase: Phase
    feature: Feature
    number: int
    txn: str
    commit: str
    argv: tuple[str, ...]
    profile: str
    seed: int
    given: tuple[ResolvedInput, ...]
    materials: Mapping[str, Mapping[str, str]]
    gates_dir: Path
    place: Staging
    tier: Sandbox
    log: Path
    """What the process prints; kept also when the runner is killed."""

    @property
    def what(self) -> str:
        """What is run, in a word for people."""
        return self.feature.module or self.feature.command or ""

    @property
    def env(self) -> dict[str, str]:
        """The PRD's variables, and HOME and TMPDIR in the staging folder."""
        return {**self.project.plan.defaults.env, **self.place.environment}

    @property
    def timeout_s(self) -> float:
        """Seconds that the experiment may take."""
        return self.feature.timeout_s or self.project.plan.defaults.timeout_s

    @property
    def gate_timeout_s(self) -> float:
        """Seconds that one run of the gate may take."""
        return self.feature.gate_timeout_s or self.project.plan.defaults.gate_timeout_s

    @property
    def paths(self) -> Paths:
        """File names of the project."""
        return self.project.paths


@dataclass(frozen=True)
class AttemptResult:
    """What was seen of an attempt."""

    began: str
    ended: str
    finished: ProcessResult
    outputs: Mapping[str, Output]
    judgement: Judgement | None
    reasons: tuple[str, ...]
    """Why it could not be judged; empty if it was."""

    @property
    def state(self) -> str:
        """`verified`, `failed` or `errored`."""
        return "errored" if self.judgement is None else self.judgement.state


#### plan


@contextmanager
def plan(
    project: Project,
    repo: Repo,
    state: State,
    phase: Phase,
    feature: Feature,
    tier: Sandbox,
    txn: str,
    *,
    scratch_profile: str | None = None,
) -> Iterator[AttemptSpec]:
    """Makes the staging folder, resolves and checks the inputs, materialises the gates from HEAD.

    `scratch_profile` marks a run that leaves no trace: the plan's profile does not bind it, its log stays in staging.
    """
    with worker.staging(project.root) as place:
        given = resolve_inputs(
            project.plan, feature, state, project.paths, repo, place.folder / "given"
        )
        check_inputs(given)
        place.inputs_file.write_bytes(encode_inputs(given))
        gates_dir = place.folder / "judge"
        materialise_gates(repo, gates_dir)
        number = state.phase(phase.id).feature(feature.id).started + 1
        profile = scratch_profile or profile_of(project.plan, feature)
        seed = feature.seed if feature.seed is not None else project.plan.defaults.seed
        log = place.folder / "log" if scratch_profile else project.paths.log(feature.id, number)
        log.parent.mkdir(parents=True, exist_ok=True)
        yield AttemptSpec(
            project=project,
            phase=phase,
            feature=feature,
            number=number,
            txn=txn,
            commit=repo.head(),
            argv=argv(feature, profile, seed, place),
            profile=profile,
            seed=seed,
            given=given,
            materials=materials(project.plan, repo, feature, given),
            gates_dir=gates_dir,
            place=place,
            tier=tier,
            log=log,
        )


def profile_of(plan: Plan, feature: Feature) -> str:
    """The profile that the plan names for a feature."""
    return feature.profile or plan.defaults.profile


def argv(feature: Feature, profile: str, seed: int, place: Staging) -> tuple[str, ...]:
    """The command that runs a feature; anybody can type the same one by hand."""
    if feature.command is not None:
        return ("/bin/sh", "-c", feature.command)
    return (
        sys.executable,
        "-m",
        str(feature.module),
        "--config",
        str(feature.config),
        "--profile",
        profile,
        "--seed",
        str(seed),
        "--inputs",
        str(place.inputs_file),
        "--out",
        str(place.out),
    )


def materials(
    plan: Plan, repo: Repo, feature: Feature, given: Sequence[ResolvedInput]
) -> dict[str, Mapping[str, str]]:
    """Digests of everything that goes in: commit, plan, code, config, gate, inputs."""

    def committed(path: str) -> dict[str, str]:
        data = repo.blob("HEAD", path)
        return {"sha256": durable.sha256(data)} if data is not None else {}

    plan_path = find_plan(repo.root).relative_to(repo.root).as_posix()
    found: dict[str, Mapping[str, str]] = {
        "git": {"gitCommit": repo.head()},
        plan_path: committed(plan_path),
        "runner": {"sha256": runner_digest()},
    }
    if feature.config:
        found[feature.config] = committed(feature.config)
    if feature.module:
        code = preflight.code_files(repo, "HEAD", plan, feature.module)
        listing = {path: durable.sha256(repo.blob("HEAD", path) or b"") for path in sorted(code)}
        found[f"code:{feature.module.split('.', 1)[0]}"] = {
            "sha256": durable.sha256(schema.canonical(listing))
        }
    if feature.gate.pytest:
        found[feature.gate.pytest] = {"sha256": gate_digest(repo, feature.gate.pytest)}
    return found | {f"{item.kind}:{item.name}": item.identity for item in given}


#### run


def run(planned: AttemptSpec, view: View) -> AttemptResult:
    """Work, collect, judge. What the experiment does wrong is data; only the environment's faults are raised."""
    view.stage("work")
    failpoint("work")
    env = {
        **planned.env,
        "PHASES_OUT": str(planned.place.out),
        "PHASES_PROFILE": planned.profile,
        "PHASES_SEED": str(planned.seed),
    }
    job = worker.Job(
        planned.argv,
        planned.paths.root,
        env,
        planned.place.out,
        planned.place.inputs_file,
        planned.place.events,
        planned.log,
        planned.timeout_s,
        planned.tier,
    )
    began = utc_now()
    finished = worker.run(job, view)
    ended = utc_now()
    failpoint("collect")
    check_inputs(planned.given)
    reasons, outputs = how_it_ended(finished, planned.timeout_s), {}
    if not reasons:
        try:
            outputs = dict(collect_outputs(planned.place.out, planned.feature.outputs))
        except OutputsError as error:
            reasons = tuple(error.problems)
    if reasons:
        return AttemptResult(began, ended, finished, outputs, None, reasons)
    view.stage("judge")
    failpoint("judge")
    judgement = judge_feature(
        gate_spec(planned.feature.gate, planned.gate_timeout_s),
        gates_dir=planned.gates_dir,
        out=planned.place.out,
        outputs={path: item.sha256 for path, item in outputs.items()},
        inputs_file=planned.place.inputs_file,
        workspace=planned.place.folder / "judgement",
        env=planned.env,
        sandbox=planned.tier,
        unjudged=planned.feature.unjudged,
        on_progress=view.progress,
    )
    failpoint("judged")
    check_inputs(planned.given)
    return AttemptResult(began, ended, finished, outputs, judgement, ())


def how_it_ended(finished: ProcessResult, timeout_s: float) -> tuple[str, ...]:
    """Why the process did not end well; empty if it did."""
    if finished.timed_out:
        return (f"timeout: stopped after {timeout_s:.0f} s",)
    if finished.signal is not None:
        return (f"the experiment died by signal {finished.signal}",)
    return (
        () if finished.exit_code == 0 else (f"the experiment ended with exit {finished.exit_code}",)
    )
