"""The proof that a gate can fail: negative copies and coverage, after a true run that passed.

A gate that passes where nothing is there, or where everything is wrong, says nothing about the outputs: the feature
is then `failed`, whatever the true run said. A run that ended errored proves nothing either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from phases.judge import copies, coverage, gate_run, measurements
from phases.judge.coverage import CoverageLevel, MeasurementCoverage
from phases.judge.gate_run import GateContext, GateRun

State = Literal["verified", "failed", "errored"]
Progress = Callable[[int, int, str], None]
"""Gets runs done, runs in all, and what was just done; called in the thread that called judge()."""

AT_ONCE = 2  # runs of the gate side by side
WITHOUT_INTEGRITY = ("-m", "not integrity")


@dataclass(frozen=True)
class MutantResult:
    """One damaged copy: `ok` if known checks said no to it."""

    kind: str
    outcome: str
    caught_by: tuple[str, ...]
    ok: bool
    reason: str = ""
    """Why an errored run is one."""


@dataclass(frozen=True)
class Judgement:
    """What the gate said, and whether it could have said no."""

    true_run: GateRun
    negatives: tuple[MutantResult, ...]
    coverage: MeasurementCoverage | None
    unjudged: tuple[str, ...]
    nonce: str
    state: State
    reasons: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Mutation:
    """A negative copy to be made: its bytes are built when its turn comes and dropped after it."""

    kind: str
    make: Callable[[], Mapping[str, bytes]]
    """Path -> damaged bytes; {} if there is nothing of this kind to damage."""
    options: tuple[str, ...] = ()


EMPTY = Mutation("empty", dict)


@dataclass(frozen=True)
class MutationContext:
    """What is to be proved about one gate and one set of outputs."""

    bench: GateContext
    pristine: copies.Copy
    damages: tuple[Mutation, ...] = ()
    names: tuple[str, ...] | None = None
    """Measurements to change one by one; None: no coverage."""
    unjudged: tuple[str, ...] = ()
    on_progress: Progress | None = None


def prove(case: MutationContext) -> Judgement:
    """True run, negative copies, coverage; the latter two only if the true run passed."""
    begin = time.monotonic()
    gates = copies.digests(case.bench.gates_dir / "gates")
    expected, true_run = _true_run(case)
    names = case.names or ()
    total = 2 + len(case.damages) + len(names)
    report = case.on_progress or (lambda _done, _total, _note: None)
    report(1, total, f"gate on the outputs: {true_run.outcome}")
    if true_run.outcome != "passed":
        return conclude(case, true_run, (), None, time.monotonic() - begin)
    trial = _Trial(case, expected)
    negatives, levels = [], []
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        tried = pool.map(trial.negative, (EMPTY, *case.damages))
        covered = pool.map(trial.level, names)
        for done, (damage, found) in enumerate(
            zip((EMPTY, *case.damages), tried, strict=True), start=2
        ):
            negatives += [found] if found else []
            report(
                done,
                total,
                f"negative copy {damage.kind}: {found.outcome if found else 'nothing there'}",
            )
        for done, (name, level) in enumerate(
            zip(names, covered, strict=True), start=total - len(names) + 1
        ):
            levels.append((name, level))
            report(done, total, f"measurement {name}: {level}")
    finally:
        pool.shutdown(cancel_futures=True)
    true_run = _unless_tampered(true_run, case.pristine, case.pristine)
    if copies.digests(case.bench.gates_dir / "gates") != gates:
        true_run = replace(
            true_run, outcome="errored", reason="the gate's own files were changed while it ran"
        )
    met = None if case.names is None else coverage.collect(levels)
    return conclude(case, true_run, tuple(negatives), met, time.monotonic() - begin)


def _true_run(case: MutationContext) -> tuple[frozenset[str], GateRun]:
    """The ids of all checks, and how they judged the untouched outputs; each of them must have run."""
    expected = frozenset({gate_run.shell_check(case.bench.spec)})
    if case.bench.spec.kind == "pytest":
        nothing = copies.empty(case.bench.scratch / "copies" / "collect")
        collected = gate_run.collect(case.bench, nothing.folder)
        copies.remove(nothing.folder)
        if isinstance(collected, GateRun):
            return frozenset(), collected
        expected = frozenset(collected)
    run = _Trial(case, expected).run("true", copies.plant, {})
    run = _unless_tampered(run, case.pristine, case.pristine)
    missing = sorted(expected.difference(check.id for check in run.checks))
    if missing and run.outcome != "errored":
        run = replace(
            run, outcome="errored", reason=f"collected, but did not run: {', '.join(missing[:5])}"
        )
    return expected, run


@dataclass(frozen=True)
class _Trial:
    """Runs on damaged copies; `expected` are the ids of all checks of the gate."""

    case: MutationContext
    expected: frozenset[str]

    def negative(self, damage: Mutation) -> MutantResult | None:
        """One damaged copy; None if there was nothing to damage."""
        name = f"negative-{damage.kind.replace(':', '-')}"
        if damage.kind == EMPTY.kind:
            run = self.run(name, lambda _pristine, folder, _changed: copies.empty(folder), {})
        elif changed := damage.make():
            run = self.run(name, copies.plant, changed, damage.options)
        else:
            return None
        return MutantResult(
            damage.kind, run.outcome, run.failing, run.outcome == "failed", run.reason
        )

    def level(self, name: str) -> CoverageLevel:
        """How well the gate judges one measurement; a run that ended errored has caught nothing."""
        result = self.case.pristine.read(measurements.RESULT)
        number = (self.case.names or ()).index(
            name
        )  # names of measurements are the experiment's: not for paths

        def caught(change: measurements.Change) -> bool:
            changed = {measurements.RESULT: measurements.altered(result, change, name)}
            options = ("-x", *WITHOUT_INTEGRITY)
            return (
                self.run(f"coverage-{number}-{change}", copies.plant, changed, options).outcome
                == "failed"
            )

        return coverage.classify(caught)

    def run(
        self,
        name: str,
        build: Callable[..., copies.Copy],
        changed: Mapping[str, bytes],
        options: tuple[str, ...] = (),
    ) -> GateRun:
        """One run on a copy of its own, which is looked at again afterwards and removed; only known checks count."""
        bench, pristine = self.case.bench, self.case.pristine
        folder = bench.scratch / "copies" / name
        try:
            copy = build(pristine, folder, changed)
            run = gate_run.run(bench, copy.folder, name=name, digests=copy.digests, options=options)
            unknown = sorted({check.id for check in run.checks} - self.expected)
            if unknown:
                reason = f"ran, but were not collected on an empty folder: {', '.join(unknown[:5])}"
                run = replace(run, outcome="errored", reason=reason)
            return _unless_tampered(run, copy, pristine)
        finally:
            copies.remove(folder)


def _unless_tampered(run: GateRun, copy: copies.Copy, pristine: copies.Copy) -> GateRun:
    """The run, or an errored one if the gate changed what it was given to judge."""
    changed = copies.tampering(copy, pristine)
    return (
        replace(run, outcome="errored", reason=f"the gate changed its input: {changed}")
        if changed
        else run
    )


def conclude(
    case: MutationContext,
    true_run: GateRun,
    negatives: tuple[MutantResult, ...],
    met: MeasurementCoverage | None,
    seconds: float,
) -> Judgement:
    """The state that follows: verified only if the true run passed and every kind was caught or is excused."""
    reasons = [true_run.reason] if true_run.outcome != "passed" else []
    # The empty copy is no kind of output, so nothing can excuse a gate that passes on nothing.
    excused = set(case.unjudged) - {EMPTY.kind}
    reasons += [_accusation(item) for item in negatives if not item.ok and item.kind not in excused]
    state: State = (
        "errored" if true_run.outcome == "errored" else "failed" if reasons else "verified"
    )
    return Judgement(
        true_run, negatives, met, case.unjudged, case.bench.nonce, state, tuple(reasons), seconds
    )


def _accusation(item: MutantResult) -> str:
    kind, _, feature = item.kind.partition(":")
    words = {
        "empty": "an empty folder",
        "measurements": "a copy with every measurement changed (checks marked integrity left out)",
        "json": "a copy with one value of each other .json file changed",
        "arrays": "a copy with noise in every .safetensors file",
        "images": "a copy with one byte of pixel data of each image changed",
        "text": "a copy with every second line of each text dropped",
    }
    what = words[kind] + (f", {feature}" if feature else "")
    if item.outcome == "passed":
        return f"this gate cannot fail: it passes on {what}"
    return f"this gate proves nothing on {what}: its checks must say no, but it ended {item.outcome}: {item.reason}"
