"""The figures of the loss-curve analysis. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.contract import Measurement
from lab.loss_curves.measured import RATES, RUNS_ALONG_UPDATE, SHAPES, LossCurveObservations
from lab.loss_curves.numbers import final_losses, run_curve, smoothed_losses, steps_per_epoch


def figures(
    observations: LossCurveObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure]:
    """Return all figures of the report."""
    return [
        held_out_figure(observations),
        training_figure(observations),
        staircase_figure(observations, measurements),
        batch_figure(observations),
        update_figure(observations, measurements),
    ]


def held_out_figure(observations: LossCurveObservations) -> present.Figure:
    """Show the four shapes where they differ: on held-out examples."""
    series = []
    ends = []
    for shape in SHAPES:
        curve = run_curve(observations, shape)
        steps, losses = zip(*curve.held_out, strict=True)
        series.append(present.Series(shape, steps, losses))
        _, lowest_loss = curve.lowest_point
        end = present.number(curve.final_loss, 3)
        ends.append(f"{shape} {end} (lowest {present.number(lowest_loss, 3)})")
    start = run_curve(observations, "healthy").start_loss
    return present.Figure(
        name="held_out",
        title="Four runs on the same held-out examples",
        caption=(
            f"Held-out loss on {observations.plan.curve_examples} examples, from "
            f"{present.number(start, 3)} nats/token; at the end: {', '.join(ends)}. "
            "Logarithmic scale."
        ),
        x_label="optimizer step",
        y_label="held-out loss (nats/token)",
        y_scale="log",
        series=tuple(series),
    )


def training_figure(observations: LossCurveObservations) -> present.Figure:
    """Show the same runs by their training loss."""
    series = []
    ends = []
    for shape in SHAPES:
        losses = smoothed_losses(observations, shape).tolist()
        series.append(present.Series(shape, range(1, len(losses) + 1), losses))
        ends.append(f"{shape} {present.number(losses[-1], 3)}")
    beta = observations.plan.thresholds.beta
    return present.Figure(
        name="training",
        title="Training loss of the same runs",
        caption=(
            f"Training loss, token-weighted moving average (beta = {beta:g}, debiased), at the "
            f"end: {', '.join(ends)}. Logarithmic scale. A training loss shows what was learned of "
            "the training examples and nothing else."
        ),
        x_label="optimizer step",
        y_label="smoothed training loss (nats/token)",
        y_scale="log",
        series=tuple(series),
    )


def staircase_figure(
    observations: LossCurveObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show the overfitting run, batch by batch and epoch by epoch."""
    curve = run_curve(observations, "overfitting")
    epoch = steps_per_epoch(observations.shapes["overfitting"])
    steps = range(1, len(curve.losses) + 1)

    # 1. The token-weighted mean of each epoch, repeated for each of its steps.
    losses = np.array(curve.losses).reshape(-1, epoch)  # [T] -> [epochs, steps per epoch]
    tokens = np.array(curve.tokens).reshape(-1, epoch)
    epoch_means = ((losses * tokens).sum(1) / tokens.sum(1)).tolist()  # [epochs]
    stairs = np.repeat(epoch_means, epoch).tolist()  # [T]

    # 2. The caption.
    means = ", ".join(present.number(mean, 3) for mean in epoch_means)
    lowest_step, lowest_loss = curve.lowest_point
    share = measurements["staircase_share"]
    if share.value is None:
        fall = "after the first one it falls no further"
    else:
        percent = present.number(100 * share.number, 3)
        fall = f"{percent} % of the relative fall after the first one happens between epochs"

    held_out_steps, held_out_losses = zip(*curve.held_out, strict=True)
    return present.Figure(
        name="staircase",
        title="Repeated training examples",
        caption=(
            f"Overfitting run: epochs of {epoch} steps have the mean training losses {means} "
            f"nats/token; {fall}. The held-out loss is {present.number(lowest_loss, 3)} at step "
            f"{lowest_step} and {present.number(curve.final_loss, 3)} at the end."
        ),
        x_label="optimizer step",
        y_label="loss (nats/token)",
        series=(
            present.Series(
                "training, each batch", steps, curve.losses, kind="points", group="training"
            ),
            present.Series("training, mean of the epoch", steps, stairs, group="training"),
            present.Series("held out", held_out_steps, held_out_losses, style="dashed"),
        ),
    )


def batch_figure(observations: LossCurveObservations) -> present.Figure:
    """Show final loss against batch size: a point per run, a line through the means."""
    plan = observations.plan
    series = []
    changes = []
    for rate in RATES:
        rate_value = f"{plan.rates[rate]:g}"
        # 1. A point per size and seed; the mean of each size.
        point_sizes: list[int] = []
        point_losses: list[float] = []
        means = []
        for size in plan.batch_sizes:
            losses = final_losses(observations, rate, size)
            point_sizes += [size] * len(losses)
            point_losses += losses
            means.append(sum(losses) / len(losses))
        # 2. Points and their mean have one colour.
        points = present.Series(
            f"rate {rate_value}, each seed", point_sizes, point_losses, kind="points", group=rate
        )
        mean_line = present.Series(f"rate {rate_value}, mean", plan.batch_sizes, means, group=rate)
        series += [points, mean_line]
        first, last = present.number(means[0], 3), present.number(means[-1], 3)
        changes.append(f"at {rate_value} from {first} to {last}")
    return present.Figure(
        name="batch_size",
        title="Batch size at equal tokens",
        caption=(
            f"Held-out loss after the same {plan.examples} examples; from batch "
            f"{plan.batch_sizes[0]} to {plan.batch_sizes[-1]} its mean over {len(plan.seeds)} "
            f"seeds goes {'; '.join(changes)} nats/token."
        ),
        x_label="examples per optimizer step",
        y_label="final held-out loss (nats/token)",
        series=tuple(series),
    )


def update_figure(
    observations: LossCurveObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show the held-out loss along base + t·ΔW."""
    series = []
    minima = []
    for run in RUNS_ALONG_UPDATE:
        rows = observations.losses_along_update[run]  # [len(alphas), N]
        losses = rows.mean(1, dtype="float64").tolist()
        series.append(present.Series(f"{run} run", observations.plan.alphas, losses))
        minimum = measurements[f"line_minimum_{run}"]
        minima.append(f"{run} run t = {present.number(minimum.value, 3)}")
    return present.Figure(
        name="line",
        title="Held-out loss along a run's own update",
        caption=(
            f"Mean over {observations.plan.curve_examples} held-out examples of the loss at base + "
            f"t·ΔW: t = 0 is the base, t = 1 the end of the run. Lowest: {'; '.join(minima)}."
        ),
        x_label="t, in updates of the run",
        y_label="held-out loss (nats/token)",
        series=tuple(series),
    )
