"""The two models fitted to some of the trainings, and what they say of every one.

Memory: one number, the workspace. Time: three factors, none below 0. Least squares of the relative
errors, as the largest training would decide alone otherwise.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.hardware.measured import Timing, TrainingRun
from lab.instruments.memory_model import MemoryFit, memory
from lab.instruments.model_shape import ModelShape
from lab.instruments.throughput_model import (
    MachineRates,
    TimeFit,
    step_seconds,
    step_terms,
    work,
)

Shapes = Mapping[str, ModelShape]
PRODUCT_ROWS = 512  # of the product beside each timed step


@dataclass(frozen=True)
class Predictions:
    """What was measured and predicted, by name of the run: bytes and seconds."""

    measured: Mapping[str, float]
    predicted: Mapping[str, float]

    def errors(self, names: Sequence[str]) -> list[float]:
        """Return |predicted / measured - 1| of some runs."""
        return [abs(self.predicted[name] / self.measured[name] - 1) for name in names]


def names_of(runs: Sequence[TrainingRun], role: str) -> list[str]:
    """Return the names of the runs of a role."""
    return [run.plan.name for run in runs if run.plan.role == role]


def rates_of(timings: Mapping[str, Timing]) -> MachineRates:
    """Return amounts per second, by the median of the repetitions; overhead: seconds of one."""
    rates = {name: t.amount / statistics.median(t.seconds) for name, t in timings.items()}
    return MachineRates(**rates | {"overhead": 1 / rates["overhead"]})


def rates_beside(run: TrainingRun, shapes: Shapes, rates: MachineRates) -> MachineRates:
    """Return the rates while a run was timed.

    Other work on the machine slows everything down: all rates are scaled by that of one product,
    which was timed beside each step.
    """
    shape = shapes[run.plan.shape]
    amount = 2.0 * PRODUCT_ROWS * shape.width * shape.mlp_width
    factor = amount / statistics.median(run.products) / rates.layer
    return MachineRates(
        layer=rates.layer * factor,
        adapter=rates.adapter * factor,
        head=rates.head * factor,
        attention=rates.attention * factor,
        bandwidth=rates.bandwidth * factor,
        dequantised=rates.dequantised * factor,
        overhead=rates.overhead / factor,
    )


def fit_memory(runs: Sequence[TrainingRun], shapes: Shapes) -> MemoryFit:
    """Return the workspace [bytes] that fits the increments; runtime: before any model, the mean.

    What tensors hold is counted, not fitted.
    """
    missing, weights = [], []
    for run in runs:
        counted = memory(shapes[run.plan.shape], run.plan.setup).increment
        missing.append(run.increment - counted)
        weights.append(1 / run.increment**2)
    workspace = float(np.average(missing, weights=weights))
    started = float(np.mean([run.started for run in runs]))
    return MemoryFit(runtime=started, activation_factor=1.0, workspace=workspace)


def kept_factor(runs: Sequence[TrainingRun], shapes: Shapes, fit: MemoryFit) -> float:
    """Return the bytes that this lab's loop holds per byte of activations, its gaps included.

    The loop keeps freed memory; by least squares.
    """
    kept, activations = [], []
    for run in runs:
        parts = memory(shapes[run.plan.shape], run.plan.setup)
        rest = parts.adapters + parts.optimizer + parts.logits + fit.workspace
        kept.append(run.increment_kept - rest)
        activations.append(parts.activations)
    x, y = np.array(activations), np.array(kept)
    return max(1.0, float(x @ y / (x @ x)))


def predict_memory(runs: Sequence[TrainingRun], shapes: Shapes, fit: MemoryFit) -> Predictions:
    """Return the increments [bytes] of all runs."""
    return Predictions(
        {run.plan.name: float(run.increment) for run in runs},
        {
            run.plan.name: memory(shapes[run.plan.shape], run.plan.setup, fit).increment
            for run in runs
        },
    )


def predict_loop(
    runs: Sequence[TrainingRun], shapes: Shapes, fit: MemoryFit, factor: float
) -> Predictions:
    """Return the increments [bytes] of all runs in the lab's own loop, by its kept factor."""
    of_loop = replace(fit, activation_factor=factor)
    return Predictions(
        {run.plan.name: float(run.increment_kept) for run in runs},
        predict_memory(runs, shapes, of_loop).predicted,
    )


def fit_time(runs: Sequence[TrainingRun], shapes: Shapes, rates: MachineRates) -> TimeFit:
    """Return the factors of products, passes and operations that fit the medians of the steps."""
    from scipy.optimize import nnls

    rows, rest = [], []
    for run in runs:
        seconds = statistics.median(run.seconds)
        todo = work(shapes[run.plan.shape], run.plan.setup)
        *terms, fixed = step_terms(todo, rates_beside(run, shapes, rates))
        rows.append([term / seconds for term in terms])
        rest.append(1 - fixed / seconds)
    factors, _ = nnls(np.array(rows), np.array(rest))
    return TimeFit(*(float(factor) for factor in factors))


def predict_time(
    runs: Sequence[TrainingRun], shapes: Shapes, rates: MachineRates, fit: TimeFit
) -> Predictions:
    """Return the seconds of a step of all runs, at the machine's speed beside each."""
    predicted = {}
    for run in runs:
        beside = rates_beside(run, shapes, rates)
        predicted[run.plan.name] = step_seconds(shapes[run.plan.shape], run.plan.setup, beside, fit)
    return Predictions({run.plan.name: statistics.median(run.seconds) for run in runs}, predicted)


def constant(predictions: Predictions, fitted: Sequence[str]) -> Predictions:
    """Return the control: every run predicted as the mean of the fitted ones."""
    mean = statistics.fmean(predictions.measured[name] for name in fitted)
    return Predictions(predictions.measured, dict.fromkeys(predictions.measured, mean))


def without_each(
    runs: Sequence[TrainingRun], compute: Callable[[Sequence[TrainingRun]], float]
) -> list[float]:
    """Return a number of all runs with each fitted one left out of the fit."""
    fitted = [run for run in runs if run.plan.role == "fit"]
    return [compute([run for run in fitted if run is not left]) for left in fitted]


def without_each_step(runs: Sequence[TrainingRun]) -> list[list[TrainingRun]]:
    """Return the runs with each timed step left out."""
    steps = len(runs[0].seconds)
    return [
        [
            replace(run, seconds=_without(run.seconds, i), products=_without(run.products, i))
            for run in runs
        ]
        for i in range(steps)
    ]


def _without(values: tuple[float, ...], index: int) -> tuple[float, ...]:
    return values[:index] + values[index + 1 :]
