"""The figures of loss_curve_analysis.

What to see in them stands in their captions, made from the numbers shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.contract import Context, Measurement
from lab.instruments.curves import smoothed
from lab.loss_curves.experiment import ON_A_LINE, RATES, SHAPES, LossCurveObservations
from lab.loss_curves.numbers import curve, seeds, steps_of_an_epoch, thresholds


def figures(
    ctx: Context, observations: LossCurveObservations, numbers: Mapping[str, Measurement]
) -> list[present.Figure]:
    """All figures of the report."""
    return [
        held_out_figure(ctx, observations),
        training_figure(ctx, observations),
        staircase_figure(ctx, observations, numbers),
        batch_figure(ctx, observations),
        line_figure(ctx, observations, numbers),
    ]


def held_out_figure(ctx: Context, observations: LossCurveObservations) -> present.Figure:
    """The four shapes where they differ: on held-out examples."""
    shown = {name: curve(ctx, observations, name) for name in SHAPES}
    ends = ", ".join(
        f"{name} {present.number(c.end, 3)} (lowest {present.number(c.lowest[1], 3)})"
        for name, c in shown.items()
    )
    return present.Figure(
        name="held_out",
        title="Four runs on the same held-out examples",
        caption=(
            f"Held-out loss on {ctx.config['data']['curve']} examples, from "
            f"{present.number(shown['healthy'].held_out[0][1], 3)} nats/token; at the end: {ends}. "
            "Logarithmic scale."
        ),
        x_label="optimizer step",
        y_label="held-out loss (nats/token)",
        y_scale="log",
        series=tuple(
            present.Series(name, *zip(*c.held_out, strict=True)) for name, c in shown.items()
        ),
    )


def training_figure(ctx: Context, observations: LossCurveObservations) -> present.Figure:
    """The same runs as their training loss shows them."""
    beta, series, ends = thresholds(ctx).beta, [], []
    for name in SHAPES:
        shown = curve(ctx, observations, name)
        smooth = smoothed(shown.losses, shown.tokens, beta)
        series.append(present.Series(name, range(1, len(smooth) + 1), smooth.tolist()))
        ends.append(f"{name} {present.number(float(smooth[-1]), 3)}")
    return present.Figure(
        name="training",
        title="The same runs, as their training loss shows them",
        caption=(
            f"Training loss, token-weighted moving average (beta = {beta:g}, debiased), at the "
            f"end: {', '.join(ends)}. Logarithmic scale. A training loss shows what was learnt of "
            "the training examples and nothing else."
        ),
        x_label="optimizer step",
        y_label="smoothed training loss (nats/token)",
        y_scale="log",
        series=tuple(series),
    )


def staircase_figure(
    ctx: Context, observations: LossCurveObservations, numbers: Mapping[str, Measurement]
) -> present.Figure:
    """The overfitting run, batch by batch."""
    shown, epoch = (
        curve(ctx, observations, "overfitting"),
        steps_of_an_epoch(observations.shapes["overfitting"]),
    )
    losses, counts = (
        np.array(shown.losses).reshape(-1, epoch),
        np.array(shown.tokens).reshape(-1, epoch),
    )
    means = ((losses * counts).sum(1) / counts.sum(1)).tolist()
    stairs = [(step, means[step // epoch]) for step in range(len(shown.losses))]
    told = ", ".join(present.number(mean, 3) for mean in means)
    share = numbers["staircase_share"].value
    part = "no part" if share is None else f"{present.number(100 * float(share), 3)} %"
    return present.Figure(
        name="staircase",
        title="The same examples again and again",
        caption=(
            f"Overfitting run: epochs of {epoch} steps have the mean training losses "
            f"{told} nats/token; {part} of the relative fall after the first one happens between "
            f"epochs. Held out, it is {present.number(shown.lowest[1], 3)} at step "
            f"{shown.lowest[0]} and {present.number(shown.end, 3)} at the end."
        ),
        x_label="optimizer step",
        y_label="loss (nats/token)",
        series=(
            present.Series(
                "training, each batch", range(1, len(shown.losses) + 1), shown.losses, kind="points"
            ),
            present.Series(
                "training, mean of the epoch",
                [step + 1 for step, _ in stairs],
                [y for _, y in stairs],
            ),
            present.Series("held out", *zip(*shown.held_out, strict=True), style="dashed"),
        ),
    )


def batch_figure(ctx: Context, observations: LossCurveObservations) -> present.Figure:
    """Final loss against batch size: a point per run, a line through the means."""
    sizes, series, told = ctx.config["batches"], [], []
    for rate in RATES:
        value = f"{ctx.config['rates'][rate]:g}"
        found = [seeds(ctx, observations, rate, size) for size in sizes]
        points = [
            (size, loss) for size, losses in zip(sizes, found, strict=True) for loss in losses
        ]
        means = [sum(losses) / len(losses) for losses in found]
        series.append(
            present.Series(f"rate {value}, each seed", *zip(*points, strict=True), kind="points")
        )
        series.append(present.Series(f"rate {value}, mean", sizes, means))
        told.append(
            f"at {value} from {present.number(means[0], 3)} to {present.number(means[-1], 3)}"
        )
    return present.Figure(
        name="batch_size",
        title="Batch size at equal tokens",
        caption=(
            f"Held-out loss after the same {ctx.config['examples']} examples; from batch "
            f"{sizes[0]} to {sizes[-1]} its mean over {len(ctx.config['seeds'])} seeds goes "
            f"{'; '.join(told)} nats/token."
        ),
        x_label="examples per optimizer step",
        y_label="final held-out loss (nats/token)",
        series=tuple(series),
    )


def line_figure(
    ctx: Context, observations: LossCurveObservations, numbers: Mapping[str, Measurement]
) -> present.Figure:
    """The loss along base + t·ΔW."""
    told = "; ".join(
        f"{name} run t = {present.number(numbers[f'line_minimum_{name}'].value, 3)}"
        for name in ON_A_LINE
    )
    return present.Figure(
        name="line",
        title="Held-out loss along a run's own update",
        caption=(
            f"Mean over {ctx.config['data']['curve']} held-out examples of the loss at base + "
            f"t·ΔW: t = 0 is the base, t = 1 the end of the run. Lowest: {told}."
        ),
        x_label="t, in updates of the run",
        y_label="held-out loss (nats/token)",
        series=tuple(
            present.Series(
                f"{name} run",
                observations.at,
                observations.lines[name].mean(1, dtype="float64").tolist(),
            )
            for name in ON_A_LINE
        ),
    )
