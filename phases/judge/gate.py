"""Judge outputs by a gate, and test the gate itself by mutation testing.

judge_feature()   judges the outputs of one feature, in these steps:
    collect       ask pytest for the ids of all checks, on an empty folder
    first         all checks run on a copy whose measurements are changed: they must fail
    true run      all checks must run and pass on the outputs
    mutants       checks must fail on an empty folder and on each damaged file; which outputs are
                  protected by digests only?
    measurements  change each measurement alone: is it recomputed, bounded or only claimed?
    controls      the outputs again, among the mutants: they must pass
judge_phase()     does the same for a phase: one folder per feature; the mutants are an empty
                  folder, and one copy per feature with its measurements changed
run_entry_gate()  runs a precondition in the repository root, without mutants
gate_spec()       turns the plan's gate into what the others run
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from phases.base.strict_json import StrictJsonError
from phases.base.trees import remove_tree
from phases.execution.process import forward_signals
from phases.execution.sandbox import Sandbox
from phases.git.probe import work_trees
from phases.judge.copies import Output, list_outputs
from phases.judge.gate_run import (
    GateContext,
    GateKind,
    GateOutcome,
    GateRun,
    GateSpec,
    pytest_server,
    run_gate,
    write_import_block,
)
from phases.judge.mutation import (
    Judgement,
    MutationContext,
    Progress,
    conclude,
    run_mutation_testing,
)
from phases.judge.mutations import feature_mutations, measurements_mutation
from phases.plan.schema import Exemption, Gate
from phases.record.result import RESULT, read_measurements

__all__ = [
    "GateOutcome",
    "GateSpec",
    "Judgement",
    "gate_spec",
    "judge_feature",
    "judge_phase",
    "run_entry_gate",
]


def judge_feature(
    spec: GateSpec,
    *,
    gates_dir: Path,
    out: Path,
    outputs: Mapping[str, str],
    inputs_file: Path,
    workspace: Path,
    env: Mapping[str, str],
    sandbox: Sandbox,
    root: Path | None = None,
    blocked: Sequence[str] = (),
    patterns: Sequence[str] = (),
    exempt: Sequence[Exemption] = (),
    on_progress: Progress | None = None,
) -> Judgement:
    """Judge the outputs of one feature.

    Args:
        spec: the gate.
        gates_dir: folder that holds `gates/`, materialised from HEAD.
        out: the outputs as collected; they are only read.
        outputs: path below `out` -> SHA-256, as collected; the gate sees no other file.
        inputs_file: JSON of the experiment's inputs.
        workspace: a private empty folder; the logs of all runs stay in its `runs/`.
        env: variables for the gate, added to the runner's clean environment.
        sandbox: where the gate runs, without network.
        root: the repository, of which the gate imports nothing; None: imports are not blocked.
        blocked: top modules that the gate cannot import wherever they are, besides the runner.
        patterns: the outputs as the plan declares them; for each, one file's content is altered.
        exempt: files whose damage may go unnoticed; it is tried and reported all the same.
        on_progress: see `mutation.Progress`.

    Raises:
        IntegrityError: an output is not what was collected.
        InterruptedRunError: a stop signal came.
    """
    with _gate_context(
        spec,
        gates_dir=gates_dir,
        inputs_file=inputs_file,
        workspace=workspace,
        env=env,
        sandbox=sandbox,
        root=root,
        blocked=blocked,
    ) as gate_context:
        files = list_outputs(out, outputs)
        context = MutationContext(
            gate_context, files, exempt=tuple(exempt), on_progress=on_progress
        )
        try:
            result = files[RESULT].read() if RESULT in files else None
            names = tuple(read_measurements(result)) if result is not None else ()
            mutations = feature_mutations(files, patterns, gate_context.nonce, result)
            context = replace(context, mutations=tuple(mutations), measurement_names=names)
        except StrictJsonError as error:
            return _conclude_unreadable(context, error)
        return run_mutation_testing(context)


def judge_phase(
    spec: GateSpec,
    *,
    gates_dir: Path,
    features: Mapping[str, Path],
    outputs: Mapping[str, Mapping[str, str]],
    inputs_file: Path,
    workspace: Path,
    env: Mapping[str, str],
    sandbox: Sandbox,
    root: Path | None = None,
    blocked: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> Judgement:
    """Judge all features of a phase together: PHASES_OUT holds one folder per feature.

    The mutants are an empty folder and, for each feature with measurements, one copy in which they
    are changed. There is no measurement coverage.

    Args:
        spec: the gate.
        gates_dir: see `judge_feature`, as for all arguments that are not listed here.
        features: id -> folder with the feature's outputs, artifacts included.
        outputs: id -> path below that folder -> SHA-256; the same ids as in `features`.

    Raises:
        IntegrityError: an output is not what was collected.
        InterruptedRunError: a stop signal came.
    """
    with _gate_context(
        spec,
        gates_dir=gates_dir,
        inputs_file=inputs_file,
        workspace=workspace,
        env=env,
        sandbox=sandbox,
        root=root,
        blocked=blocked,
    ) as gate_context:
        # 1. One folder for each feature.
        files: dict[str, Output] = {}
        for feature_id, out in features.items():
            files |= list_outputs(out, outputs[feature_id], prefix=f"{feature_id}/")
        context = MutationContext(gate_context, files, on_progress=on_progress)
        # 2. One mutation for each feature with measurements.
        mutations = []
        try:
            for feature_id in features:
                result = files.get(f"{feature_id}/{RESULT}")
                if result and read_measurements(result.read()):
                    mutations.append(measurements_mutation(result, feature_id))
        except StrictJsonError as error:
            return _conclude_unreadable(context, error)
        return run_mutation_testing(replace(context, mutations=tuple(mutations)))


def run_entry_gate(
    spec: GateSpec, *, root: Path, workspace: Path, env: Mapping[str, str], sandbox: Sandbox
) -> GateRun:
    """Run a precondition in `root`, a copy of the commit; there are no outputs and no mutants.

    It judges the repository itself, so its imports are not blocked.
    """
    with _gate_context(
        spec, gates_dir=root, inputs_file=None, workspace=workspace, env=env, sandbox=sandbox
    ) as gate_context:
        return run_gate(gate_context, gate_context.gates_dir, name="entry")


def gate_spec(gate: Gate, timeout_s: float) -> GateSpec:
    """Return how a gate of the plan is run."""
    if gate.pytest:
        return GateSpec(GateKind.PYTEST, gate.pytest, timeout_s)
    return GateSpec(GateKind.SHELL, gate.shell or "", timeout_s)


@contextmanager
def _gate_context(
    spec: GateSpec,
    *,
    gates_dir: Path,
    inputs_file: Path | None,
    workspace: Path,
    env: Mapping[str, str],
    sandbox: Sandbox,
    root: Path | None = None,
    blocked: Sequence[str] = (),
) -> Iterator[GateContext]:
    """Yield what the runs share; stop signals reach all of them, and the copies are removed."""
    # The runs have other working directories, so every path becomes absolute.
    if inputs_file is not None:
        inputs_file = inputs_file.absolute()
    roots = work_trees(root) if root is not None else []
    gate_context = GateContext(
        spec=spec,
        gates_dir=gates_dir.absolute(),
        inputs_file=inputs_file,
        workspace=workspace.absolute(),
        env=env,
        sandbox=sandbox,
        nonce=secrets.token_hex(16),
        roots=tuple(roots),
        blocked=tuple(blocked),
    )
    write_import_block(gate_context)
    if spec.kind == GateKind.PYTEST:
        gate_context = replace(gate_context, server=pytest_server(gate_context))
    # The runs are started from several threads, and only the main thread gets signals.
    with forward_signals():
        try:
            yield gate_context
        finally:
            remove_tree(gate_context.cache)


def _conclude_unreadable(context: MutationContext, error: StrictJsonError) -> Judgement:
    """Return an errored judgement: without readable measurements there is no mutation testing."""
    reason = f"{RESULT} cannot be judged: {error.problems[0]}"
    return conclude(context, GateRun(GateOutcome.ERRORED, reason=reason))
