"""One place stages a run, lays out its inputs and its gates, and has its outputs judged.

Attempts, scratch runs, `verify` and exit gates all work in such a workspace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phases.execution.inputs import ResolvedInput, check_inputs, encode_inputs, resolve_inputs
from phases.execution.sandbox import Sandbox
from phases.execution.worker import Staging, staging_folder
from phases.git.repo import Repo
from phases.judge.committed_gates import write_gate_files
from phases.judge.gate import Judgement, gate_spec, judge_feature, judge_phase
from phases.plan.schema import Feature, Gate
from phases.record.project import Project
from phases.record.state import State
from phases.views.live import View


@dataclass(frozen=True)
class Workspace:
    """A staging folder with inputs and gates laid out in it."""

    project: Project
    staging: Staging
    inputs: tuple[ResolvedInput, ...]
    sandbox: Sandbox
    gates: tuple[Gate, ...]
    """The gates that judge here; the files of each are laid out in a folder of its own."""

    def gates_dir(self, gate: Gate) -> Path:
        """Return the folder that holds `gates/` for one gate, as HEAD has it."""
        return self.staging.folder / "judge" / str(self.gates.index(gate))

    @property
    def env(self) -> dict[str, str]:
        """The plan's variables, and HOME and TMPDIR in the staging folder."""
        return {**self.project.plan.defaults.env, **self.staging.environment}

    def judge_feature(
        self, feature: Feature, out: Path, outputs: Mapping[str, str], view: View
    ) -> Judgement:
        """Judge outputs (path -> SHA-256) by the feature's gate; test that the gate can fail."""
        timeout_s = feature.gate_timeout_s or self.project.plan.defaults.gate_timeout_s
        return judge_feature(
            gate_spec(feature.gate, timeout_s),
            gates_dir=self.gates_dir(feature.gate),
            out=out,
            outputs=outputs,
            inputs_file=self.staging.inputs_file,
            workspace=self.staging.folder / "judgement",
            env=self.env,
            sandbox=self.sandbox,
            exempt=feature.exempt,
            on_progress=view.progress,
        )

    def judge_phase(
        self,
        gate: Gate,
        number: int,
        *,
        folders: Mapping[str, Path],
        outputs: Mapping[str, Mapping[str, str]],
        waived: Sequence[str],
    ) -> Judgement:
        """Judge a phase's outputs (feature -> path -> SHA-256) by one of its exit gates."""
        return judge_phase(
            gate_spec(gate, self.project.plan.defaults.gate_timeout_s),
            gates_dir=self.gates_dir(gate),
            features=folders,
            outputs=outputs,
            inputs_file=self.staging.inputs_file,
            workspace=self.staging.folder / f"exit-{number}",
            env={**self.env, "PHASES_WAIVED": " ".join(waived)},
            sandbox=self.sandbox,
        )


@contextmanager
def prepare_workspace(
    project: Project,
    repo: Repo,
    sandbox: Sandbox,
    *,
    state: State,
    gates: Sequence[Gate],
    inputs: Sequence[str],
    needs: Sequence[str] = (),
) -> Iterator[Workspace]:
    """Make a staging folder, resolve and check the inputs, write the gates from HEAD.

    `gates` are those that will judge, `inputs` are names of the plan's inputs, `needs` are features
    whose outputs are inputs too.
    """
    with staging_folder(project.root) as staging:
        resolved = resolve_inputs(
            project.plan,
            names=inputs,
            needs=needs,
            state=state,
            paths=project.paths,
            repo=repo,
            folder=staging.folder / "inputs",
        )
        check_inputs(resolved)
        staging.inputs_file.write_bytes(encode_inputs(resolved))
        workspace = Workspace(project, staging, resolved, sandbox, tuple(gates))
        for gate in gates:
            write_gate_files(repo, workspace.gates_dir(gate), gate)
        yield workspace
