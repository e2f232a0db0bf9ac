"""The figures of the instrumented QLoRA run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from lab import present
from lab.contract import Measurement
from lab.qlora.measured import QloraObservations
from lab.qlora.numbers import peak_parts

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation

STYLES: Mapping[str, Literal["solid", "dashed"]] = {"true": "solid", "shuffled": "dashed"}


def figures(
    observations: QloraObservations, measurements: Mapping[str, Measurement], *, examples: int
) -> list[present.Figure]:
    """Return all figures; `examples` of the held-out ones make the loss curve."""
    return [
        loss_figure(observations, examples),
        norm_figure(observations),
        memory_figure(measurements),
    ]


def loss_figure(observations: QloraObservations, examples: int) -> present.Figure:
    """Show the training loss by step and the loss on the first `examples` held-out examples."""
    start = _mean_loss(observations.base.evaluation, examples)
    ends = {}
    series = []
    for name, run in observations.runs.items():
        # 1. Training: one point per batch.
        steps = range(1, len(run.steps) + 1)
        losses = [step.loss for step in run.steps]
        training = f"training, {name} answers"
        series.append(present.Series(training, steps, losses, kind="points", group=name))
        # 2. Held out: the base, the curve, the trained model.
        ends[name] = _mean_loss(run.evaluation, examples)
        points = [(0, start), *run.curve, (len(run.steps), ends[name])]
        x, y = zip(*points, strict=True)
        held_out = f"held out, {name} answers"
        series.append(present.Series(held_out, x, y, style=STYLES[name], group=name))
    return present.Figure(
        name="loss",
        title="Loss in training and on held-out functions",
        caption=(
            f"Held-out loss on {examples} examples goes from {present.number(start)} nats/token "
            f"to {present.number(ends['true'])} with true answers and to "
            f"{present.number(ends['shuffled'])} with shuffled ones. A training point is one "
            "batch."
        ),
        x_label="optimizer step",
        y_label="loss (nats/token)",
        series=tuple(series),
    )


def _mean_loss(evaluation: Evaluation, examples: int) -> float:
    """Return the mean loss in nats/token of the tokens of the first `examples` examples."""
    count = int((evaluation.example_ids < examples).sum())
    return float(evaluation.losses[:count].mean(dtype="float64"))


def norm_figure(observations: QloraObservations) -> present.Figure:
    """Show the gradient norm of each step, before clipping."""
    medians = []
    series = []
    for name, run in observations.runs.items():
        norms = [step.grad_norm for step in run.steps]
        medians.append(f"{present.number(float(np.median(norms)), 3)} with {name} answers")
        steps = range(1, len(norms) + 1)
        series.append(present.Series(f"{name} answers", steps, norms, style=STYLES[name]))
    return present.Figure(
        name="gradient_norm",
        title="Gradient norm",
        caption=f"L2 norm over all adapters before clipping; median {', '.join(medians)}.",
        x_label="optimizer step",
        y_label="gradient norm",
        series=tuple(series),
    )


def memory_figure(measurements: Mapping[str, Measurement]) -> present.Figure:
    """Show where the peak of a training step goes."""
    parts = peak_parts(measurements)
    names: Sequence[str] = tuple(parts)
    values = tuple(parts.values())
    largest = max(parts, key=parts.__getitem__)
    runtime = ""
    if parts["runtime"]:  # 0 where the peak is of a GPU's tensors
        runtime = "Runtime is the process before it loaded a model. "
    return present.Figure(
        name="memory",
        title="Memory at the peak of training",
        caption=(
            f"Together {present.quantity(measurements['memory_peak'])}; the largest part is "
            f"{largest}. {runtime}Activations are what the widest batch keeps for its backward "
            "pass, logits include their gradient. Other is what remains: temporary copies, data, "
            "later imports, the allocator's slack."
        ),
        x_label="part",
        y_label="MiB",
        series=(present.Series("peak", names, values, kind="bar"),),
    )
