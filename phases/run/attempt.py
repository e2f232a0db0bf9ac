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

from phases.base import durable, failpoint as fault
from phases.execution import collect, inputs, worker
from phases.judge import gate
from phases.plan import lock as plan_lock, schema as prd
from phases.record import ledger
from phases.run import checkpoint, preflight, setup
from phases.views.live import View
from phases.base.paths import Paths
from phases.plan.schema import Feature, Phase, Prd
from phases.execution.process import Finished
from phases.record.project import Project
from phases.git.repo import Repo
from phases.execution.sandbox import Sandbox
from phases.record.state import State
from phases.execution.worker import Staging


@dataclass(frozen=True)
class Planned:
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
    given: tuple[inputs.Given, ...]
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
        return {**self.project.prd.defaults.env, **self.place.environment}

    @property
    def timeout_s(self) -> float:
        """Seconds that the experiment may take."""
        return self.feature.timeout_s or self.project.prd.defaults.timeout_s

    @property
    def gate_timeout_s(self) -> float:
        """Seconds that one run of the gate may take."""
        return self.feature.gate_timeout_s or self.project.prd.defaults.gate_timeout_s

    @property
    def paths(self) -> Paths:
        """File names of the project."""
        return self.project.paths


@dataclass(frozen=True)
class Judged:
    """What was seen of an attempt."""

    began: str
    ended: str
    finished: Finished
    outputs: Mapping[str, collect.Output]
    judgement: gate.Judgement | None
    reasons: tuple[str, ...]
    """Why it could not be judged; empty if it was."""

    @property
    def state(self) -> str:
        """`verified`, `failed` or `errored`."""
        return "errored" if self.judgement is None else self.judgement.state


#### plan


@contextmanager
def plan(
    opened: Project,
    repo: Repo,
    state: State,
    phase: Phase,
    feature: Feature,
    tier: Sandbox,
    txn: str,
    *,
    scratch_profile: str | None = None,
) -> Iterator[Planned]:
    """Makes the staging folder, resolves and checks the inputs, materialises the gates from HEAD.

    `scratch_profile` marks a run that leaves no trace: the plan's profile does not bind it, its log stays in staging.
    """
    with worker.staging(opened.root) as place:
        given = inputs.resolve(opened.prd, feature, state, opened.paths, repo, place.folder / "given")
        inputs.check(given)
        place.inputs_file.write_bytes(inputs.document(given))
        gates_dir = place.folder / "judge"
        checkpoint.materialise_gates(repo, gates_dir)
        number = state.phase(phase.id).feature(feature.id).started + 1
        profile = scratch_profile or profile_of(opened.prd, feature)
        seed = feature.seed if feature.seed is not None else opened.prd.defaults.seed
        log = place.folder / "log" if scratch_profile else opened.paths.log(feature.id, number)
        log.parent.mkdir(parents=True, exist_ok=True)
        yield Planned(
            project=opened,
            phase=phase,
            feature=feature,
            number=number,
            txn=txn,
            commit=repo.head(),
            argv=argv(feature, profile, seed, place),
            profile=profile,
            seed=seed,
            given=given,
            materials=materials(opened.prd, repo, feature, given),
            gates_dir=gates_dir,
            place=place,
            tier=tier,
            log=log,
        )


def profile_of(prd_: Prd, feature: Feature) -> str:
    """The profile that the plan names for a feature."""
    return feature.profile or prd_.defaults.profile


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


def materials(prd_: Prd, repo: Repo, feature: Feature, given: Sequence[inputs.Given]) -> dict[str, Mapping[str, str]]:
    """Digests of everything that goes in: commit, plan, code, config, gate, inputs."""

    def committed(path: str) -> dict[str, str]:
        data = repo.blob("HEAD", path)
        return {"sha256": durable.sha256(data)} if data is not None else {}

    plan_path = prd.find(repo.root).relative_to(repo.root).as_posix()
    found: dict[str, Mapping[str, str]] = {
        "git": {"gitCommit": repo.head()},
        plan_path: committed(plan_path),
        "runner": {"sha256": plan_lock.runner_digest()},
    }
    if feature.config:
        found[feature.config] = committed(feature.config)
    if feature.module:
        code = preflight.code_files(repo, "HEAD", prd_, feature.module)
        listing = {path: durable.sha256(repo.blob("HEAD", path) or b"") for path in sorted(code)}
        found[f"code:{feature.module.split('.', 1)[0]}"] = {"sha256": durable.sha256(prd.canonical(listing))}
    if feature.gate.pytest:
        found[feature.gate.pytest] = {"sha256": checkpoint.gate_digest(repo, feature.gate.pytest)}
    return found | {f"{item.kind}:{item.name}": item.identity for item in given}


#### run


def run(planned: Planned, view: View) -> Judged:
    """Work, collect, judge. What the experiment does wrong is data; only the environment's faults are raised."""
    view.stage("work")
    fault.point("work")
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
    began = ledger.now()
    finished = worker.run(job, view)
    ended = ledger.now()
    fault.point("collect")
    inputs.check(planned.given)
    reasons, outputs = how_it_ended(finished, planned.timeout_s), {}
    if not reasons:
        try:
            outputs = dict(collect.check(planned.place.out, planned.feature.outputs))
        except collect.OutputsError as error:
            reasons = tuple(error.problems)
    if reasons:
        return Judged(began, ended, finished, outputs, None, reasons)
    view.stage("judge")
    fault.point("judge")
    judgement = gate.judge(
        setup.spec(planned.feature.gate, planned.gate_timeout_s),
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
    fault.point("judged")
    inputs.check(planned.given)
    return Judged(began, ended, finished, outputs, judgement, ())


def how_it_ended(finished: Finished, timeout_s: float) -> tuple[str, ...]:
    """Why the process did not end well; empty if it did."""
    if finished.timed_out:
        return (f"timeout: stopped after {timeout_s:.0f} s",)
    if finished.signal is not None:
        return (f"the experiment died by signal {finished.signal}",)
    return () if finished.exit_code == 0 else (f"the experiment ended with exit {finished.exit_code}",)
