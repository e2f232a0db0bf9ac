"""Judge outputs by a gate, and test the gate itself by mutation testing.

judge_feature()   judges the outputs of one feature, in these steps:
    baseline      draw the nonce, and copy the declared outputs into a private folder
    collect       ask pytest for the ids of all checks, on an empty folder
    true run      all checks must run and pass on an untouched, read-only copy
    mutants       checks must fail on an empty copy, and on one mutant for each kind of output
    measurements  change each measurement alone: is it recomputed, bounded or only claimed?
judge_phase()     does the same for a phase: one folder per feature; the mutants are an empty copy,
                  and one copy per feature with its measurements changed
run_entry_gate()  runs a precondition in the repository root, without mutants
gate_spec()       turns the plan's gate into what the others run
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from phases.base.strict_json import StrictJsonError
from phases.execution.process import forward_signals
from phases.execution.sandbox import Sandbox
from phases.git.probe import work_trees
from phases.judge.copies import Copy, remove_copy, snapshot_outputs
from phases.judge.gate_run import (
    GateContext,
    GateKind,
    GateOutcome,
    GateRun,
    GateSpec,
    run_gate,
)
from phases.judge.measurements import Change, alter_result
from phases.judge.mutants import kind_of, mutate_files
from phases.judge.mutation import (
    WITHOUT_INTEGRITY,
    Judgement,
    Mutation,
    MutationContext,
    Progress,
    conclude,
    run_mutation_testing,
)
from phases.plan.schema import Gate, MutationKind
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
    exempt: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> Judgement:
    """Judge the outputs of one feature.

    Args:
        spec: the gate.
        gates_dir: folder that holds `gates/`, materialised from HEAD.
        out: the outputs as collected; they are only read.
        outputs: path below `out` -> SHA-256, as collected; the gate sees no other file.
        inputs_file: JSON of the experiment's inputs.
        workspace: a private empty folder on a file system with hard links; the logs of all runs
            stay in its `runs/`.
        env: variables for the gate, added to the runner's clean environment.
        sandbox: where the gate runs, without network.
        root: the repository, of which the gate imports nothing; None: imports are not blocked.
        blocked: top modules that the gate cannot import wherever they are, besides the runner.
        exempt: kinds of output whose mutants may survive; they are tried and reported all the same.
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
        baseline = snapshot_outputs(out, outputs, gate_context.workspace / "baseline")
        context = MutationContext(
            gate_context, baseline, exempt=tuple(exempt), on_progress=on_progress
        )
        try:
            names = _measurement_names(baseline)
        except StrictJsonError as error:
            return _conclude_unreadable(context, error)
        mutations = tuple(_list_mutations(baseline, gate_context.nonce))
        return run_mutation_testing(replace(context, mutations=mutations, measurement_names=names))


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

    The mutants are an empty copy and, for each feature with measurements, one copy in which they
    are changed (kind `measurements:ID`). There is no measurement coverage.

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
        # 1. One baseline with a folder for each feature.
        folder = gate_context.workspace / "baseline"
        parts = {}
        digests = {}
        for feature_id, out in features.items():
            part = snapshot_outputs(out, outputs[feature_id], folder / feature_id)
            parts[feature_id] = part
            for path, digest in part.digests.items():
                digests[f"{feature_id}/{path}"] = digest
        baseline = Copy(folder, digests, frozenset(digests))
        context = MutationContext(gate_context, baseline, on_progress=on_progress)
        # 2. One mutation for each feature with measurements.
        mutations = []
        try:
            for feature_id, part in parts.items():
                if _measurement_names(part):
                    make = partial(_mutate_feature, part, feature_id)
                    kind = f"{MutationKind.MEASUREMENTS}:{feature_id}"
                    mutations.append(Mutation(kind, make, WITHOUT_INTEGRITY))
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
    # The runs are started from several threads, and only the main thread gets signals.
    with forward_signals():
        try:
            yield gate_context
        finally:
            for name in ("baseline", "copies", "cache"):
                remove_copy(gate_context.workspace / name)


def _conclude_unreadable(context: MutationContext, error: StrictJsonError) -> Judgement:
    """Return an errored judgement: without readable measurements there is no mutation testing."""
    reason = f"{RESULT} cannot be judged: {error.problems[0]}"
    return conclude(context, GateRun(GateOutcome.ERRORED, reason=reason), seconds=0.0)


def _measurement_names(copy: Copy) -> tuple[str, ...]:
    """Return the names of the measurements; StrictJsonError if result.json cannot be read."""
    if RESULT not in copy.digests:
        return ()
    return tuple(read_measurements(copy.read(RESULT)))


def _list_mutations(baseline: Copy, seed: str) -> Iterator[Mutation]:
    """Yield one mutation for each kind of output that has files here."""
    present = {kind_of(path) for path in baseline.digests}
    for kind in MutationKind:
        if kind in present:
            make = partial(mutate_files, kind, baseline.digests, baseline.read, seed)
            options: tuple[str, ...] = ()
            if kind == MutationKind.MEASUREMENTS:
                # A check that compares digests notices every change without knowing the numbers,
                # so here the gate has to do without such checks.
                options = WITHOUT_INTEGRITY
            yield Mutation(kind, make, options)


def _mutate_feature(part: Copy, feature_id: str) -> dict[str, bytes]:
    """Return the result.json of one feature with all measurements changed, by its path."""
    mutated = alter_result(part.read(RESULT), Change.LARGE)
    return {f"{feature_id}/{RESULT}": mutated}
