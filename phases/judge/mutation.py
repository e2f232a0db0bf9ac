"""Mutation testing of a gate: after it passed on the outputs, it must fail on mutants of them.

A gate that passes on nothing, or on outputs that are all wrong, says nothing about the outputs: the
feature is then `failed`, although the gate passed. A mutant is killed only by a run that `failed`;
a run that `errored` kills none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from phases.judge.copies import (
    Copy,
    describe_tampering,
    hash_files,
    make_empty,
    make_mutant,
    remove_copy,
)
from phases.judge.gate_run import (
    GateContext,
    GateKind,
    GateOutcome,
    GateRun,
    collect_checks,
    list_ids,
    run_gate,
    shell_check_id,
)
from phases.judge.measurement_coverage import (
    CoverageLevel,
    MeasurementCoverage,
    classify,
    group_by_level,
)
from phases.judge.measurements import Change, alter_result
from phases.record.result import RESULT
from phases.record.state import FeatureState

Progress = Callable[[int, int, str], None]
"""Gets runs done, runs in all, and what was just done; called in the thread of the caller."""

PARALLEL_RUNS = 2
WITHOUT_INTEGRITY = ("-m", "not integrity")


@dataclass(frozen=True)
class Mutation:
    """A recipe for one mutant: its bytes are built when its turn comes and dropped after it."""

    kind: str
    """`empty`, a `MutationKind`, or `measurements:ID` for a feature of a phase."""
    make: Callable[[], Mapping[str, bytes]]
    """Returns path -> mutated bytes; {} if there is nothing to mutate."""
    options: tuple[str, ...] = ()
    """Further options of pytest."""


EMPTY = Mutation("empty", dict)


@dataclass(frozen=True)
class MutantResult:
    """How the gate judged one mutant."""

    kind: str
    outcome: GateOutcome
    killed_by: tuple[str, ...]
    """Ids of the checks that failed."""
    killed: bool
    reason: str = ""
    """Why the run errored, if it did."""


@dataclass(frozen=True)
class Judgement:
    """How the gate judged the outputs, and whether it is able to fail."""

    true_run: GateRun
    """The run on the untouched outputs."""
    mutants: tuple[MutantResult, ...]
    coverage: MeasurementCoverage | None
    exempt: tuple[str, ...]
    """Kinds whose mutants may survive, as the plan lists them."""
    nonce: str
    state: FeatureState
    """VERIFIED, FAILED or ERRORED."""
    reasons: tuple[str, ...]
    """Why the state is not VERIFIED; empty if it is."""
    seconds: float


@dataclass(frozen=True)
class MutationContext:
    """One gate, one set of outputs, and the mutations to try on them."""

    gate_context: GateContext
    baseline: Copy
    mutations: tuple[Mutation, ...] = ()
    measurement_names: tuple[str, ...] | None = None
    """Measurements to change one by one; None: no measurement coverage."""
    exempt: tuple[str, ...] = ()
    on_progress: Progress | None = None


def run_mutation_testing(context: MutationContext) -> Judgement:
    """Run the gate on the outputs, on every mutant, and on each measurement changed alone.

    Mutants and measurements are tried only if the run on the outputs passed.

    Raises:
        InterruptedRunError: a stop signal came.
    """
    begin = time.monotonic()
    gates_folder = context.gate_context.gates_dir / "gates"
    gate_digests = hash_files(gates_folder)
    mutations = (EMPTY, *context.mutations)
    names = context.measurement_names or ()
    total = 1 + len(mutations) + len(names)
    report = context.on_progress or _ignore_progress

    # 1. The true run.
    expected_ids, true_run = _run_on_outputs(context)
    report(1, total, f"gate on the outputs: {true_run.outcome}")
    if true_run.outcome != GateOutcome.PASSED:
        return conclude(context, true_run, seconds=time.monotonic() - begin)

    # 2. The mutants and the measurements: run side by side, reported in their order.
    runner = _CopyRunner(context, expected_ids)
    mutants = []
    levels = []
    done = 1
    pool = ThreadPoolExecutor(PARALLEL_RUNS)
    try:
        pending_mutants = pool.map(runner.run_mutant, mutations)
        pending_levels = pool.map(runner.find_level, names)
        for mutation, mutant in zip(mutations, pending_mutants, strict=True):
            done += 1
            if mutant:
                mutants.append(mutant)
            report(done, total, f"mutant {mutation.kind}: {_describe_result(mutant)}")
        for name, level in zip(names, pending_levels, strict=True):
            done += 1
            levels.append((name, level))
            report(done, total, f"measurement {name}: {level}")
    finally:
        pool.shutdown(cancel_futures=True)

    # 3. Neither the outputs nor the gate itself may have changed meanwhile.
    true_run = _errored_if_tampered(true_run, context.baseline, context.baseline)
    if hash_files(gates_folder) != gate_digests:
        true_run = _as_errored(true_run, "the gate's own files were changed while it ran")
    coverage = None
    if context.measurement_names is not None:
        coverage = group_by_level(levels)
    return conclude(context, true_run, tuple(mutants), coverage, seconds=time.monotonic() - begin)


def conclude(
    context: MutationContext,
    true_run: GateRun,
    mutants: tuple[MutantResult, ...] = (),
    coverage: MeasurementCoverage | None = None,
    *,
    seconds: float,
) -> Judgement:
    """Derive the state: verified only if the true run passed and every mutant was killed or exempt.

    `seconds` is the wall time of the whole judgement.
    """
    reasons = []
    if true_run.outcome != GateOutcome.PASSED:
        reasons.append(true_run.reason)
    # `empty` is no kind of output: no exemption covers a gate that passes on nothing.
    exempt = set(context.exempt) - {EMPTY.kind}
    for mutant in mutants:
        if not mutant.killed and mutant.kind not in exempt:
            reasons.append(_describe_survivor(mutant))
    if true_run.outcome == GateOutcome.ERRORED:
        state = FeatureState.ERRORED
    elif reasons:
        state = FeatureState.FAILED
    else:
        state = FeatureState.VERIFIED
    return Judgement(
        true_run=true_run,
        mutants=mutants,
        coverage=coverage,
        exempt=context.exempt,
        nonce=context.gate_context.nonce,
        state=state,
        reasons=tuple(reasons),
        seconds=seconds,
    )


#### runs


def _run_on_outputs(context: MutationContext) -> tuple[frozenset[str], GateRun]:
    """Return the ids of all checks and the run on the untouched outputs.

    Every check that was collected must have run; otherwise the run is errored.
    """
    # 1. The checks that there are.
    gate_context = context.gate_context
    expected_ids = frozenset({shell_check_id(gate_context.spec)})
    if gate_context.spec.kind == GateKind.PYTEST:
        empty = make_empty(gate_context.workspace / "copies" / "collect")
        collected = collect_checks(gate_context, empty.folder)
        remove_copy(empty.folder)
        if isinstance(collected, GateRun):
            return frozenset(), collected
        expected_ids = frozenset(collected)
    # 2. Their results.
    run = _CopyRunner(context, expected_ids).run_on_copy("true", {})
    run = _errored_if_tampered(run, context.baseline, context.baseline)
    missing = expected_ids.difference(check.id for check in run.checks)
    if missing and run.outcome != GateOutcome.ERRORED:
        ids = list_ids(sorted(missing))
        run = _as_errored(run, f"collected, but did not run: {ids}")
    return expected_ids, run


@dataclass(frozen=True)
class _CopyRunner:
    """Runs the gate on copies of the outputs; `expected_ids` are the ids of all its checks."""

    context: MutationContext
    expected_ids: frozenset[str]

    def run_mutant(self, mutation: Mutation) -> MutantResult | None:
        """Run the gate on one mutant; None if there was nothing to mutate."""
        name = f"mutant-{mutation.kind.replace(':', '-')}"
        changed = mutation.make()
        if mutation.kind == EMPTY.kind:
            run = self.run_on_copy(name, None)
        elif changed:
            run = self.run_on_copy(name, changed, mutation.options)
        else:
            return None
        return MutantResult(
            kind=mutation.kind,
            outcome=run.outcome,
            killed_by=run.failing,
            killed=run.outcome == GateOutcome.FAILED,
            reason=run.reason,
        )

    def find_level(self, name: str) -> CoverageLevel:
        """Find out how well the gate judges one measurement."""
        result = self.context.baseline.read(RESULT)
        # The experiment chose the measurement's name, so no path is made of it.
        number = (self.context.measurement_names or ()).index(name)
        options = ("-x", *WITHOUT_INTEGRITY)

        def is_killed(change: Change) -> bool:
            changed = {RESULT: alter_result(result, change, name)}
            run = self.run_on_copy(f"measurement-{number}-{change}", changed, options)
            return run.outcome == GateOutcome.FAILED

        return classify(is_killed)

    def run_on_copy(
        self, name: str, changed: Mapping[str, bytes] | None, options: tuple[str, ...] = ()
    ) -> GateRun:
        """Run the gate on a copy of its own, check that copy afterwards, and remove it.

        Args:
            name: of the run and of the copy's folder.
            changed: path -> new bytes; None: the copy is empty.
            options: further options of pytest.
        """
        gate_context, baseline = self.context.gate_context, self.context.baseline
        folder = gate_context.workspace / "copies" / name
        try:
            if changed is None:
                copy = make_empty(folder)
            else:
                copy = make_mutant(baseline, folder, changed)
            run = run_gate(
                gate_context, copy.folder, name=name, digests=copy.digests, options=options
            )
            # Checks that exist only for a mutant would judge the mutation, not the outputs.
            unexpected = {check.id for check in run.checks} - self.expected_ids
            if unexpected:
                ids = list_ids(sorted(unexpected))
                run = _as_errored(run, f"ran, but were not collected on an empty folder: {ids}")
            return _errored_if_tampered(run, copy, baseline)
        finally:
            remove_copy(folder)


def _as_errored(run: GateRun, reason: str) -> GateRun:
    return replace(run, outcome=GateOutcome.ERRORED, reason=reason)


def _errored_if_tampered(run: GateRun, copy: Copy, baseline: Copy) -> GateRun:
    """Return the run; an errored one if the gate changed what it was given to judge."""
    tampering = describe_tampering(copy, baseline)
    if tampering:
        return _as_errored(run, f"the gate changed its input: {tampering}")
    return run


#### messages


def _ignore_progress(_done: int, _total: int, _note: str) -> None:
    pass


def _describe_result(mutant: MutantResult | None) -> str:
    """Return one word or two for the progress line."""
    if mutant is None:
        return "nothing to mutate"
    if mutant.killed:
        return "killed"
    if mutant.outcome == GateOutcome.PASSED:
        return "survived"
    return str(mutant.outcome)


def _describe_survivor(mutant: MutantResult) -> str:
    """Explain why the feature is not verified: the gate did not kill this mutant."""
    copies = {
        "empty": "an empty folder",
        "measurements": "a copy with every measurement changed (checks marked integrity left out)",
        "json": "a copy with one value of each other .json file changed",
        "arrays": "a copy with noise in every .safetensors file",
        "images": "a copy with one byte of pixel data of each image changed",
        "text": "a copy with every second line of each text dropped",
    }
    kind, _, feature = mutant.kind.partition(":")
    copy = copies[kind]
    if feature:
        copy += f", {feature}"
    if mutant.outcome == GateOutcome.PASSED:
        return f"this gate cannot fail: it passes on {copy}"
    return (
        f"this gate was not tested on {copy}: its checks must fail, but the run ended"
        f" {mutant.outcome}: {mutant.reason}"
    )
