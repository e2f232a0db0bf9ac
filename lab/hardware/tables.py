"""The tables of the measured half: every run, this machine's rates, every experiment."""

from __future__ import annotations

import statistics

from lab.contract import Table
from lab.hardware.catalogue import Catalogue
from lab.hardware.measured import HardwareObservations
from lab.hardware.numbers import LARGER, Fits, scale_to
from lab.result import Scalar

MEGA = 1e6
GIGA = 1e9


def tables(observations: HardwareObservations, models: Fits, catalogue: Catalogue) -> list[Table]:
    """Return the runs, the rates and the experiments."""
    return [
        runs_table(observations, models),
        rates_table(observations),
        experiments_table(observations, models, catalogue),
    ]


def runs_table(observations: HardwareObservations, models: Fits) -> Table:
    """Return what each run added to its process and took, measured and predicted."""
    rows = []
    for run in observations.runs:
        plan = run.plan
        name = plan.name
        rows.append(
            (
                name,
                plan.role,
                plan.shape,
                plan.setup.method,
                f"{plan.setup.batch} × {plan.setup.sequence}",
                models.memory.measured[name] / MEGA,
                models.memory.predicted[name] / MEGA,
                models.memory.predicted[name] / models.memory.measured[name] - 1,
                (run.peak_kept - run.loaded) / MEGA,
                models.time.measured[name],
                models.time.predicted[name],
                models.time.predicted[name] / models.time.measured[name] - 1,
            )
        )
    return Table(
        "Trainings: what a step adds to the loaded process, and how long it takes",
        (
            *("training", "role", "shape", "method", "tokens", "MB", "predicted MB", "error"),
            *("MB if kept", "s", "predicted s", "error of s"),
        ),
        tuple(rows),
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
