"""Judging outputs by a gate, and proving that the gate can fail.

judge_feature()      freeze     the declared outputs into a private pristine copy, for which a nonce is drawn
             collect    ask pytest which checks there are, on an empty folder
             true run   all of them must run and pass on an untouched, read-only copy
             negatives  on an empty copy and one damaged copy per kind of output, checks must fail
             coverage   each measurement changed alone: recomputed, bounded or only claimed
judge_phase() the same for a phase: one folder per feature; empty, and each feature's measurements damaged
run_entry_gate()  a precondition, run in the repository root, without proof
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from phases.base.strict_json import StrictJsonError
from phases.execution.process import signals_forwarded
from phases.execution.sandbox import Sandbox
from phases.judge import copies, gate_run, measurements, mutants, mutation
from phases.judge.gate_run import GateContext, GateRun, GateSpec
from phases.judge.mutation import (
    WITHOUT_INTEGRITY,
    Judgement,
    Mutation,
    MutationContext,
    Progress,
)
from phases.plan.schema import Gate


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
    unjudged: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> Judgement:
    """Judge the outputs of one feature.

    Args:
        spec: the gate.
        gates_dir: folder that holds `gates/`, materialised from HEAD.
        out: the outputs as collected; only read.
        outputs: path below `out` -> SHA-256, as collected; nothing else is shown to the gate.
        inputs_file: JSON of the experiment's inputs.
        workspace: a private empty folder on a file system with hard links; the logs of all runs stay in its `runs/`.
        env: variables for the gate, laid over the runner's clean environment.
        sandbox: where the gate runs, without network.
        unjudged: kinds of output that the PRD excuses from being caught; they are tried and shown all the same.
        on_progress: see `proof.Progress`.

    Raises:
        IntegrityError: an output is not what was collected.
        InterruptedRunError: a stop signal came.
    """
    with _bench(
        spec,
        gates_dir=gates_dir,
        inputs_file=inputs_file,
        workspace=workspace,
        env=env,
        sandbox=sandbox,
    ) as b:
        pristine = copies.freeze(out, outputs, b.scratch / "pristine")
        case = MutationContext(b, pristine, unjudged=tuple(unjudged), on_progress=on_progress)
        try:
            names = _measurement_names(pristine)
        except StrictJsonError as error:
            return _unreadable(case, error)
        damages = tuple(_damages(pristine, b.nonce))
        return mutation.prove(
            MutationContext(b, pristine, damages, names, tuple(unjudged), on_progress)
        )


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
    on_progress: Progress | None = None,
) -> Judgement:
    """Judge a phase: PHASES_OUT holds one folder per feature; the rest as in `judge`.

    `features` (id -> its output folder, artifacts filled in) and `outputs` (id -> path -> SHA-256) have the same keys.
    MutantResult copies: empty, and per feature one with damaged measurements (kind `measurements:ID`). No coverage.
    """
    with _bench(
        spec,
        gates_dir=gates_dir,
        inputs_file=inputs_file,
        workspace=workspace,
        env=env,
        sandbox=sandbox,
    ) as b:
        folder = b.scratch / "pristine"
        parts = {
            name: copies.freeze(out, outputs[name], folder / name) for name, out in features.items()
        }
        digests = {
            f"{name}/{path}": digest
            for name, part in parts.items()
            for path, digest in part.digests.items()
        }
        pristine = copies.Copy(folder, digests, frozenset(digests))
        try:
            damages = tuple(
                Mutation(
                    f"measurements:{name}", partial(_damaged_feature, part, name), WITHOUT_INTEGRITY
                )
                for name, part in parts.items()
                if _measurement_names(part)
            )
        except StrictJsonError as error:
            return _unreadable(MutationContext(b, pristine), error)
        return mutation.prove(MutationContext(b, pristine, damages, on_progress=on_progress))


def run_entry_gate(
    spec: GateSpec, *, root: Path, workspace: Path, env: Mapping[str, str], sandbox: Sandbox
) -> GateRun:
    """Run a precondition in the repository root; no outputs, no proof."""
    with _bench(
        spec, gates_dir=root, inputs_file=None, workspace=workspace, env=env, sandbox=sandbox
    ) as bench:
        return gate_run.run(bench, bench.gates_dir, name="entry")


@contextmanager
def _bench(
    spec: GateSpec,
    *,
    gates_dir: Path,
    inputs_file: Path | None,
    workspace: Path,
    env: Mapping[str, str],
    sandbox: Sandbox,
) -> Iterator[GateContext]:
    """What the runs share; stop signals reach the runs in all threads, and the copies are gone afterwards."""
    bench = GateContext(
        spec=spec,
        gates_dir=gates_dir.absolute(),
        inputs_file=inputs_file.absolute() if inputs_file else None,
        scratch=workspace.absolute(),
        env=env,
        sandbox=sandbox,
        nonce=secrets.token_hex(16),
    )
    with signals_forwarded():
        try:
            yield bench
        finally:
            for folder in ("pristine", "copies", "cache"):
                copies.remove(bench.scratch / folder)


def _unreadable(case: MutationContext, error: StrictJsonError) -> Judgement:
    """Measurements that cannot be read cannot be damaged: no proof is possible, whatever the gate would say."""
    run = GateRun("errored", reason=f"{measurements.RESULT} cannot be judged: {error.problems[0]}")
    return mutation.conclude(case, run, (), None, 0.0)


def _measurement_names(copy: copies.Copy) -> tuple[str, ...]:
    if measurements.RESULT not in copy.digests:
        return ()
    return tuple(measurements.read(copy.read(measurements.RESULT)))


def _damages(pristine: copies.Copy, seed: str) -> Iterator[Mutation]:
    """One damaged copy for each kind that has files here."""
    kinds = {mutants.kind_of(path) for path in pristine.digests}
    for kind in mutants.KINDS:
        if kind in kinds:
            make = partial(mutants.damaged, kind, pristine.digests, pristine.read, seed)
            # A gate that only compares digests sees every damage and knows nothing: here it has to do without.
            yield Mutation(kind, make, WITHOUT_INTEGRITY if kind == "measurements" else ())


def _damaged_feature(part: copies.Copy, name: str) -> dict[str, bytes]:
    return {
        f"{name}/{measurements.RESULT}": measurements.altered(
            part.read(measurements.RESULT), "large"
        )
    }


def gate_spec(item: Gate, timeout_s: float) -> GateSpec:
    """The plan's gate as it is run."""
    kind, target = ("pytest", item.pytest) if item.pytest else ("shell", item.shell)
    return GateSpec(kind, target or "", timeout_s)  # type: ignore[arg-type]
