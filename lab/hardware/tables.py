"""The tables of the measured half: memory and time of every run, rates, every experiment."""

from __future__ import annotations

import statistics

from lab.contract import Table
from lab.hardware.catalogue import Catalogue
from lab.hardware.fitting import Predictions
from lab.hardware.measured import HardwareObservations
from lab.hardware.numbers import LARGER, Fits, scale_to
from lab.present.numbers import number
from lab.result import Scalar

MEGA = 1e6
GIGA = 1e9


def tables(observations: HardwareObservations, models: Fits, catalogue: Catalogue) -> list[Table]:
    """Return memory and time of the runs, the rates and the experiments."""
    return [
        memory_table(observations, models),
        time_table(observations, models),
        rates_table(observations),
        experiments_table(observations, models, catalogue),
    ]


def memory_table(observations: HardwareObservations, models: Fits) -> Table:
    """Return what each run added to its process, in a plain step and in the lab's loop."""
    rows = []
    for run in observations.runs:
        plan = run.plan
        rows.append(
            (
                plan.name,
                plan.role,
                plan.shape,
                plan.setup.method,
                f"{plan.setup.batch} × {plan.setup.sequence}",
                *_beside(models.memory, plan.name, MEGA),
                *_beside(models.loop, plan.name, MEGA),
            )
        )
    return Table(
        "Trainings: what a step adds to the loaded process",
        (
            *("training", "role", "shape", "method", "tokens"),
            *("plain step, MB", "predicted", "error, %"),
            *("lab's loop, MB", "predicted", "error, %"),
        ),
        tuple(rows),
    )


def time_table(observations: HardwareObservations, models: Fits) -> Table:
    """Return how long a step of each run took."""
    rows = []
    for run in observations.runs:
        plan = run.plan
        rows.append((plan.name, plan.role, *_beside(models.time, plan.name, 1.0)))
    return Table(
        "Trainings: how long a step takes",
        ("training", "role", "s", "predicted", "error, %"),
        tuple(rows),
    )


def _beside(predictions: Predictions, name: str, unit_size: float) -> tuple[str, str, str]:
    """Return what was measured and predicted to three digits, and the error in % to a tenth."""
    measured, predicted = predictions.measured[name], predictions.predicted[name]
    return (
        number(measured / unit_size, 3),
        number(predicted / unit_size, 3),
        f"{100 * (predicted / measured - 1):+.1f}",
    )


def rates_table(observations: HardwareObservations) -> Table:
    """Return the seconds of each rate's work."""
    rows = []
    for name, timing in observations.timings.items():
        median = statistics.median(timing.seconds)
        rows.append((name, timing.amount, median, min(timing.seconds), timing.amount / median))
    return Table(
        "This machine's rates",
        ("work", "amount", "s (median)", "s (least)", "amount a second"),
        tuple(rows),
    )


def experiments_table(
    observations: HardwareObservations, models: Fits, catalogue: Catalogue
) -> Table:
    """Return what each verified experiment took, and would take with a larger model."""
    scales = [scale_to(name, observations, models, catalogue) for name in LARGER]
    rows: list[tuple[Scalar, ...]] = []
    for receipt in observations.receipts:
        larger: list[float] = []
        for factor, more in scales:
            larger += [receipt.seconds / 60 * factor, (receipt.peak_bytes + more) / GIGA]
        rows.append(
            (
                receipt.feature,
                receipt.title,
                receipt.seconds / 60,
                receipt.cpu_seconds / 60,
                receipt.peak_bytes / GIGA,
                *larger,
            )
        )
    columns = ["experiment", "title", "min", "CPU min", "GB"]
    for name in LARGER:
        columns += [f"{name}: min", f"{name}: GB"]
    return Table(
        "Every verified experiment, and the same with larger models on this machine",
        tuple(columns),
        tuple(rows),
    )
