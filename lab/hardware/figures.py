"""The figures of the measured half. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Sequence

from lab.hardware import fitting
from lab.hardware.fitting import Predictions
from lab.hardware.measured import HardwareObservations
from lab.hardware.numbers import Fits
from lab.instruments.memory_model import memory
from lab.present import Figure, Series, number

MEGA = 1e6
PARTS = ("weights", "optimizer", "gradients", "adapters", "activations", "logits", "workspace")


def figures(observations: HardwareObservations, models: Fits) -> list[Figure]:
    """Return predicted against measured memory and time, and the parts of memory."""
    return [
        against(
            "memory",
            models.memory,
            observations,
            title="What a plain step adds to memory",
            unit=("MB", MEGA),
        ),
        against("time", models.time, observations, title="What a step takes", unit=("s", 1.0)),
        parts_figure(observations, models),
    ]


def against(
    name: str,
    predictions: Predictions,
    observations: HardwareObservations,
    *,
    title: str,
    unit: tuple[str, float],
) -> Figure:
    """Show predictions against measurements, fitted and held-out runs apart."""
    label, unit_size = unit
    roles = ("fit", "held-out")
    names = {role: fitting.names_of(observations.runs, role) for role in roles}
    values = [value / unit_size for value in predictions.measured.values()]
    values += [value / unit_size for value in predictions.predicted.values()]
    ends = [min(values), max(values)]
    worst = max(predictions.errors(names["held-out"]))
    return Figure(
        name=name,
        title=f"{title}: predicted against measured",
        caption=(
            f"{len(names['fit'])} trainings the model was fitted to, {len(names['held-out'])} that "
            f"it was not; of these the worst is off by {number(worst, 3)}. On the line both are "
            "equal."
        ),
        x_label=f"measured ({label})",
        y_label=f"predicted ({label})",
        series=(
            *(_points(role, names[role], predictions, unit_size) for role in roles),
            Series("equal", ends, ends, style="dashed"),
        ),
    )


def _points(label: str, names: Sequence[str], predictions: Predictions, unit_size: float) -> Series:
    return Series(
        label,
        [predictions.measured[name] / unit_size for name in names],
        [predictions.predicted[name] / unit_size for name in names],
        kind="points",
    )


def parts_figure(observations: HardwareObservations, models: Fits) -> Figure:
    """Show what is there at the peak, by purpose, for three methods on the model itself."""
    runs = [run for run in observations.runs if run.plan.name.startswith("base_")]
    peaks = {
        run.plan.name: memory(
            observations.shapes[run.plan.shape], run.plan.setup, models.memory_fit
        ).at_peak()
        for run in runs
    }
    largest = {name: max(PARTS, key=lambda part: at[part]) for name, at in peaks.items()}
    said = "; ".join(
        f"{name}: {largest[name]} {number(at[largest[name]] / MEGA, 3)} MB"
        for name, at in peaks.items()
    )
    return Figure(
        name="parts",
        title="Memory at the peak of a step, by purpose",
        caption=(
            f"By the fitted model, without the process itself. The largest part of each: {said}. "
            "Gradients and activations are not there at the same time: only the larger counts."
        ),
        x_label="training",
        y_label="MB, rounded",
        series=tuple(
            Series(part, list(peaks), [round(at[part] / MEGA) for at in peaks.values()], kind="bar")
            for part in PARTS
        ),
    )
