"""Mutation testing of a gate: it must pass on the outputs, and fail on mutants of them.

A gate that passes on nothing, or on outputs that are all wrong, says nothing about the outputs: the
feature is then `failed`, although the gate passed. A mutant is killed only by a run that `failed`;
a run that `errored` kills none.

The order is part of the test. A gate that learns what is right from what it sees first has seen a
mutant: its measurements are changed, all checks run, and the cache is empty. Then come the outputs,
and then all else in an order that is drawn; among it are controls, the outputs once more, for each
selection of checks that mutants are tried with. A gate that tells mutants by anything but their
content fails on those.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from phases.execution.collect import matches
from phases.judge.copies import CopyPool, Output, hash_files
from phases.judge.digest_references import DigestReferences
from phases.judge.gate_run import (
    GateContext,
    GateKind,
    GateOutcome,
    GateRun,
    collect_checks,
    list_ids,
    run_gate,
)
from phases.judge.measurement_coverage import (
    CoverageLevel,
    MeasurementCoverage,
    classify,
    group_by_level,
)
from phases.judge.measurements import Change, alter_result
from phases.plan.schema import Exemption
from phases.record.result import RESULT
from phases.record.states import FeatureState
from phases.record.verdict import shell_check_id

Progress = Callable[[int, int, str], None]
"""Gets runs done, runs in all, and what was just done; called in the thread of the caller."""

PARALLEL_RUNS = 2

# Options of pytest. A mutant is dead at the first check that fails, and nobody reads how it died.
ONLY_INTEGRITY = ("-m", "integrity")
WITHOUT_INTEGRITY = ("-m", "not integrity")
TO_FIRST_FAILURE = ("-x", "--tb=native")


class MutantKind(StrEnum):
    """What of the outputs a mutant changes, and so which checks may kill it."""

    EMPTY = "empty"
    """There are no outputs. All checks."""
    MEASUREMENTS = "measurements"
    """Every measurement of a result.json. Without `integrity` checks."""
    TAMPER = "tamper"
    """One file is damaged. All checks."""
    CONTENT = "content"
    """One file of an output pattern is altered, or what result.json says besides its measurements.
    Without `integrity` checks. One that survives fails nothing."""


@dataclass(frozen=True)
class Mutation:
    """A recipe for one mutant: its bytes are built when its turn comes and dropped after it."""

    kind: MutantKind
    target: str
    """The file, pattern, part of result.json or feature that is changed; "" for `empty`."""
    make: Callable[[], Mapping[str, bytes]]
    """Returns path -> mutated bytes."""
    file: str = ""
    """The file that is damaged or altered."""
    how: str = ""
    """What is done to a damaged file, in words."""

    @property
    def name(self) -> str:
        """How a reader calls it: `tamper table.csv`."""
        return f"{self.kind} {self.target}".strip()

    @property
    def must_be_killed(self) -> bool:
        """Whether a gate that does not kill it cannot fail."""
        return self.kind != MutantKind.CONTENT

    @property
    def ignores_integrity(self) -> bool:
        """Whether checks with the mark `integrity` may not kill it."""
        return self.kind in (MutantKind.MEASUREMENTS, MutantKind.CONTENT)

    @property
    def description(self) -> str:
        """What the gate was given, in a sentence."""
        match self.kind:
            case MutantKind.EMPTY:
                return "an empty folder"
            case MutantKind.MEASUREMENTS:
                copy = "a copy with every measurement changed (checks marked integrity left out)"
                return f"{copy}, {self.target}" if self.target != RESULT else copy
            case MutantKind.TAMPER:
                return f"a mutant of {self.target} ({self.how})"
        return f"a mutant of {self.target}"


EMPTY = Mutation(MutantKind.EMPTY, "", dict)


@dataclass(frozen=True)
class MutantResult:
    """How the gate judged one mutant."""

    mutation: Mutation
    outcome: GateOutcome
    killed_by: tuple[str, ...]
    """Ids of the checks that failed, of those that may kill it."""
    reason: str = ""
    """Why the run errored, if it did."""

    @property
    def killed(self) -> bool:
        """Whether a check killed it."""
        return bool(self.killed_by)


@dataclass(frozen=True)
class Judgement:
    """How the gate judged the outputs, and whether it is able to fail."""

    true_run: GateRun
    """The run on the untouched outputs."""
    mutants: tuple[MutantResult, ...]
    coverage: MeasurementCoverage | None
    exempt: tuple[Exemption, ...]
    """Files whose damage may go unnoticed, as the plan lists them."""
    nonce: str
    state: FeatureState
    """VERIFIED, FAILED or ERRORED."""
    reasons: tuple[str, ...]
    """Why the state is not VERIFIED; empty if it is."""
    seconds: float

    @property
    def required_mutants(self) -> tuple[MutantResult, ...]:
        """The mutants that must be killed."""
        return tuple(mutant for mutant in self.mutants if mutant.mutation.must_be_killed)

    @property
    def digest_only(self) -> tuple[str, ...]:
        """What the gate protects by digests alone."""
        return digest_only((mutant.mutation, mutant.killed) for mutant in self.mutants)


def digest_only(mutants: Iterable[tuple[Mutation, bool]]) -> tuple[str, ...]:
    """Return what a gate protects by digests alone: targets of content mutants that survived.

    Without those whose damage went unnoticed too: the plan exempts these files, or the feature
    failed.

    Args:
        mutants: each, and whether it was killed.
    """
    survived = [mutation for mutation, is_killed in mutants if not is_killed]
    unprotected = {item.target for item in survived if item.kind == MutantKind.TAMPER}
    return tuple(
        item.target
        for item in survived
        if item.kind == MutantKind.CONTENT and item.file not in unprotected
    )


def is_exempt(kind: str, target: str, exempt: Iterable[Exemption]) -> bool:
    """Return whether the plan lets a mutant survive: it can do so for a file's damage alone."""
    if kind != MutantKind.TAMPER:
        return False
    return any(matches(exemption.files, target) for exemption in exempt)


@dataclass(frozen=True)
class MutationContext:
    """One gate, one set of outputs, and the mutations to try on them."""

    gate_context: GateContext
    outputs: Mapping[str, Output]
    mutations: tuple[Mutation, ...] = ()
    measurement_names: tuple[str, ...] | None = None
    """Measurements to change one by one; None: no measurement coverage."""
    exempt: tuple[Exemption, ...] = ()
    on_progress: Progress | None = None


def run_mutation_testing(context: MutationContext) -> Judgement:
    """Run the gate on the outputs, on every mutant, and on each measurement changed alone.

    Raises:
        IntegrityError: an output is not what was collected.
        InterruptedRunError: a stop signal came.
    """
    begin = time.monotonic()
    copies = CopyPool(context.gate_context.workspace / "copies", context.outputs, PARALLEL_RUNS)
    try:
        judgement = _test_gate(context, copies)
    finally:
        copies.remove()
    return replace(judgement, seconds=time.monotonic() - begin)


def _test_gate(context: MutationContext, copies: CopyPool) -> Judgement:
    # 1. The checks that there are; what pytest compiles of the gate stays as it is from here on.
    gates_folder = context.gate_context.gates_dir / "gates"
    source_digests = hash_files(gates_folder)
    checks = _collect(context.gate_context, copies)
    if isinstance(checks, GateRun):
        return conclude(context, checks)
    gate_digests = hash_files(gates_folder)
    test = _GateTest(context, copies, checks, DigestReferences(context.outputs))

    # 2. The first mutant, on the empty cache; then the outputs. All checks, each to its end.
    first, *others = mutation_order(context.mutations)
    first_result = test.judge_first(first)
    true_run = test.judge_outputs()
    if true_run.outcome != GateOutcome.PASSED:
        return conclude(context, _errored_if(true_run, copies.tampering))

    # 3. All else.
    test.run_first_round(others)
    test.run_second_round()

    # 4. What makes the judgement worthless.
    true_run = _errored_if(true_run, test.contradiction)
    true_run = _errored_if(true_run, copies.tampering or copies.find_corruption())
    is_compiled_only = source_digests.items() <= gate_digests.items()
    if not is_compiled_only or hash_files(gates_folder) != gate_digests:
        true_run = _errored_if(true_run, "the gate's own files were changed while it ran")

    # 5. Mutants in the order of the outputs, measurements in that of result.json.
    results = {first: first_result, **test.results}
    mutants = [results[mutation] for mutation in (first, *others)]
    coverage = None
    if context.measurement_names is not None:
        coverage = group_by_level((name, test.levels[name]) for name in context.measurement_names)
    return conclude(context, true_run, mutants, coverage)


def mutation_order(mutations: Sequence[Mutation]) -> list[Mutation]:
    """Return all mutations: first one that changes measurements, if there is one."""
    measurements = [item for item in mutations if item.kind == MutantKind.MEASUREMENTS]
    others = [item for item in mutations if item.kind != MutantKind.MEASUREMENTS]
    return [*measurements, EMPTY, *others]


def conclude(
    context: MutationContext,
    true_run: GateRun,
    mutants: Sequence[MutantResult] = (),
    coverage: MeasurementCoverage | None = None,
) -> Judgement:
    """Derive the state.

    It is verified only if the true run passed, and every mutant that must be killed was killed, or
    damages a file that is exempt.
    """
    reasons = []
    if true_run.outcome != GateOutcome.PASSED:
        reasons.append(true_run.reason)
    for mutant in mutants:
        mutation = mutant.mutation
        may_survive = is_exempt(mutation.kind, mutation.target, context.exempt)
        if mutation.must_be_killed and not mutant.killed and not may_survive:
            reasons.append(_describe_survivor(mutant))
    if true_run.outcome == GateOutcome.ERRORED:
        state = FeatureState.ERRORED
    elif reasons:
        state = FeatureState.FAILED
    else:
        state = FeatureState.VERIFIED
    return Judgement(
        true_run=true_run,
        mutants=tuple(mutants),
        coverage=coverage,
        exempt=context.exempt,
        nonce=context.gate_context.nonce,
        state=state,
        reasons=tuple(reasons),
        seconds=0.0,
    )


#### the checks


@dataclass(frozen=True)
class _Checks:
    """Ids of a gate's checks. A shell gate is one check, of which no part can be left out."""

    judging: frozenset[str]
    integrity: frozenset[str] = frozenset()
    is_shell: bool = False

    @property
    def all(self) -> frozenset[str]:
        return self.judging | self.integrity

    @property
    def without_integrity(self) -> tuple[str, ...]:
        """Options that leave out the integrity checks."""
        return () if self.is_shell else WITHOUT_INTEGRITY


def _collect(gate_context: GateContext, copies: CopyPool) -> _Checks | GateRun:
    """Return the checks, before there is anything to judge; an errored run if none are found."""
    spec = gate_context.spec
    if spec.kind == GateKind.SHELL:
        return _Checks(frozenset({shell_check_id(spec.target)}), is_shell=True)
    with copies.empty() as folder:
        collected = collect_checks(gate_context, folder)
        if isinstance(collected, GateRun):
            return collected
        integrity = collect_checks(gate_context, folder, selection=ONLY_INTEGRITY)
        if isinstance(integrity, GateRun):
            return integrity
    return _Checks(frozenset(collected).difference(integrity), frozenset(integrity))


#### runs


@dataclass
class _GateTest:
    """The runs of one judgement and what came of them."""

    context: MutationContext
    copies: CopyPool
    checks: _Checks
    references: DigestReferences
    results: dict[Mutation, MutantResult] = field(default_factory=dict)
    levels: dict[str, CoverageLevel] = field(default_factory=dict)
    """Measurement -> how well the gate judges it."""
    contradiction: str = ""
    """How the gate judged the same outputs otherwise than in the true run; "" if it did not."""
    _done: int = 0
    _total: int = 0
    _unkilled: list[Mutation] = field(default_factory=list)
    """Damaged files that no integrity check noticed."""

    def judge_first(self, mutation: Mutation) -> MutantResult:
        """Run all checks on the first mutant, as they run on the outputs."""
        controls = bool(self.checks.judging) + bool(self.checks.integrity)
        names = self.context.measurement_names or ()
        self._total = 2 + len(self.context.mutations) + len(names) + controls
        run = self._run(f"first-{mutation.kind}", self._changes_of(mutation))
        result = self._result(mutation, run)
        self.report(_describe_result(result))
        return result

    def judge_outputs(self) -> GateRun:
        """Run all checks on the outputs; every check that was collected must have run."""
        run = self._run("true", {})
        missing = self.checks.all.difference(check.id for check in run.checks)
        if missing and run.outcome != GateOutcome.ERRORED:
            run = _errored_if(run, f"collected, but did not run: {list_ids(sorted(missing))}")
        self.report(f"gate on the outputs: {run.outcome}")
        return run

    def run_first_round(self, mutations: Sequence[Mutation]) -> None:
        """Judge the mutants by what is cheap, and change each measurement alone.

        Damaged files are judged by the integrity checks here, each on an empty cache: a gate cannot
        compare a file with what it saw of it before.
        """
        tasks: list[Callable[[], str]] = []
        for number, mutation in enumerate(mutations):
            if mutation.kind != MutantKind.TAMPER:
                tasks.append(partial(self._judge_mutant, mutation, number))
            elif self.checks.integrity:
                tasks.append(partial(self._judge_by_integrity, mutation, number))
            else:
                self._unkilled.append(mutation)
        for number, name in enumerate(self.context.measurement_names or ()):
            tasks.append(partial(self._find_level, name, number))
        # The controls. Of a shell gate it is one, as its runs differ in their cache alone.
        if self.checks.judging:
            tasks.append(partial(self._control, self.checks.without_integrity))
        if self.checks.integrity:
            tasks.append(partial(self._control, ONLY_INTEGRITY, has_own_cache=True))
        self._run_all(tasks)

    def run_second_round(self) -> None:
        """Judge the damaged files that no integrity check noticed by all checks."""
        tasks: list[Callable[[], str]] = []
        for number, mutation in enumerate(self._unkilled):
            tasks.append(partial(self._judge_tampered, mutation, number))
        if tasks:
            tasks.append(partial(self._control, (), has_own_cache=True))
        self._total = self._done + len(tasks)
        self._run_all(tasks)

    def report(self, note: str) -> None:
        """Tell the caller that one more run is done."""
        self._done += 1
        if self.context.on_progress:
            self.context.on_progress(self._done, max(self._done, self._total), note)

    def _run_all(self, tasks: list[Callable[[], str]]) -> None:
        """Do all of it, two at a time, in an order that nobody knows."""
        random.SystemRandom().shuffle(tasks)
        pool = ThreadPoolExecutor(PARALLEL_RUNS)
        try:
            for future in as_completed([pool.submit(task) for task in tasks]):
                self.report(future.result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _judge_mutant(self, mutation: Mutation, number: int) -> str:
        """Judge a mutant on the cache that runs share."""
        options: tuple[str, ...] = ()
        if mutation.ignores_integrity:
            if not self.checks.judging:
                run = GateRun(GateOutcome.ERRORED, reason="no check is without the mark integrity")
                return self._keep(self._result(mutation, run))
            options = self.checks.without_integrity
        run = self._run(f"{mutation.kind}-{number}", self._changes_of(mutation), options)
        return self._keep(self._result(mutation, run))

    def _judge_by_integrity(self, mutation: Mutation, number: int) -> str:
        """Judge a damaged file by the integrity checks alone, which costs a light process."""
        name = f"tamper-{number}-integrity"
        run = self._run(name, self._changes_of(mutation), ONLY_INTEGRITY, has_own_cache=True)
        result = self._result(mutation, run)
        if result.killed:
            return self._keep(result)
        self._unkilled.append(mutation)
        return f"mutant {mutation.name}: not noticed by the integrity checks"

    def _judge_tampered(self, mutation: Mutation, number: int) -> str:
        run = self._run(f"tamper-{number}", self._changes_of(mutation), (), has_own_cache=True)
        return self._keep(self._result(mutation, run))

    def _find_level(self, name: str, number: int) -> str:
        """Find out how well the gate judges one measurement."""
        result = self.context.outputs[RESULT].read()

        def is_killed(change: Change) -> bool:
            changed = self.references.follow({RESULT: alter_result(result, change, name)})
            # The experiment chose the measurement's name, so no path is made of it.
            run_name = f"measurement-{number}-{change}"
            run = self._run(run_name, changed, self.checks.without_integrity)
            return run.outcome == GateOutcome.FAILED

        self.levels[name] = CoverageLevel.CLAIMED
        if self.checks.judging:
            self.levels[name] = classify(is_killed)
        return f"measurement {name}: {self.levels[name]}"

    def _control(self, selection: tuple[str, ...], *, has_own_cache: bool = False) -> str:
        """Judge the outputs themselves again, as mutants are judged: they must pass."""
        name = "-".join(("control", *selection[1:])).replace(" ", "-")
        if has_own_cache:
            name += "-empty-cache"
        run = self._run(name, {}, selection, has_own_cache=has_own_cache)
        if run.outcome != GateOutcome.PASSED:
            detail = run.reason or list_ids(run.failing)
            self.contradiction = (
                "this gate does not judge by content alone: it passed on the outputs, and then"
                f" {run.outcome} on the same outputs ({detail})"
            )
        return f"control: {run.outcome}"

    def _changes_of(self, mutation: Mutation) -> Mapping[str, bytes] | None:
        """Return path -> mutated bytes; None for an empty folder."""
        if mutation.kind == MutantKind.EMPTY:
            return None
        if mutation.ignores_integrity:
            return self.references.follow(mutation.make())
        return mutation.make()

    def _run(
        self,
        name: str,
        changed: Mapping[str, bytes] | None,
        selection: tuple[str, ...] | None = None,
        *,
        has_own_cache: bool = False,
    ) -> GateRun:
        """Run the gate on a copy of the outputs.

        Args:
            name: name of the run.
            changed: path -> new bytes; None: there are no outputs.
            selection: options that select checks, of a run that ends at the first failure; None:
                all checks, each to its end.
            has_own_cache: see `run_gate`.
        """
        options: tuple[str, ...] = ("--tb=short",)
        if selection is not None:
            options = (*TO_FIRST_FAILURE, *selection)
        with self.copies.laid_out(changed) as (folder, digests):
            run = run_gate(
                self.context.gate_context,
                folder,
                name=name,
                digests=digests,
                options=options,
                has_own_cache=has_own_cache,
            )
        # Checks that exist only for a mutant would judge the mutation, not the outputs.
        unexpected = {check.id for check in run.checks} - self.checks.all
        if unexpected:
            ids = list_ids(sorted(unexpected))
            run = _errored_if(run, f"ran, but were not collected on an empty folder: {ids}")
        return run

    def _result(self, mutation: Mutation, run: GateRun) -> MutantResult:
        """Return how a run judged a mutant."""
        killed_by: tuple[str, ...] = ()
        if run.outcome == GateOutcome.FAILED:
            killed_by = run.failing
        if mutation.ignores_integrity:
            killed_by = tuple(name for name in killed_by if name not in self.checks.integrity)
        reason = run.reason if run.outcome == GateOutcome.ERRORED else ""
        return MutantResult(mutation, run.outcome, killed_by, reason)

    def _keep(self, result: MutantResult) -> str:
        self.results[result.mutation] = result
        return _describe_result(result)


def _errored_if(run: GateRun, reason: str) -> GateRun:
    """Return the run; an errored one if there is a reason."""
    if reason:
        return replace(run, outcome=GateOutcome.ERRORED, reason=reason)
    return run


def _describe_result(result: MutantResult) -> str:
    """Return what the progress says of a mutant."""
    word = "killed" if result.killed else "survived"
    if result.outcome == GateOutcome.ERRORED:
        word = str(result.outcome)
    return f"mutant {result.mutation.name}: {word}"


def _describe_survivor(mutant: MutantResult) -> str:
    """Explain why the feature is not verified: the gate did not kill this mutant."""
    mutation = mutant.mutation
    if mutant.outcome == GateOutcome.ERRORED:
        return (
            f"this gate was not tested on {mutation.description}: its checks must fail, but the run"
            f" errored: {mutant.reason}"
        )
    if mutation.kind == MutantKind.TAMPER:
        return f"this gate cannot fail: it survives {mutation.description}"
    return f"this gate cannot fail: it passes on {mutation.description}"
