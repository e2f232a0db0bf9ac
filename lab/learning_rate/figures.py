"""The figures of the learning-rate exploration, each with a caption made from what it shows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from lab.contract import Measurement
from lab.learning_rate import numbers
from lab.learning_rate.measured import LearningRateObservations, Setting
from lab.learning_rate.numbers import format_rate
from lab.present import Figure, Series, count, number


def figures(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> list[Figure]:
    """Return all figures of the report."""
    return [
        loss_figure(observations, measurements),
        training_figure(observations),
        instability_figure(observations),
    ]


def loss_figure(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> Figure:
    """Return the final held-out loss against the rate, every trial a point."""
    plan = observations.plan
    base_loss = observations.base_loss

    # 1. Both ranks: points of every seed, and the line through their means, in one colour.
    series = _loss_series(observations, plan.first_rank, "solid")
    series += _loss_series(observations, plan.second_rank, "dashed")

    # 2. The control, and the base, which has no rate.
    control_rates, control_losses = _loss_points(observations, [plan.control])
    series.append(Series("shuffled answers", control_rates, control_losses, kind="points"))
    ends = [plan.first_rank[0].rate, plan.first_rank[-1].rate]
    series.append(Series("base", ends, [base_loss, base_loss], style="dotted"))

    # 3. The formula's rate, a vertical line from the lowest loss up to the base.
    formula_rate = observations.formula_rate
    prediction = "makes no prediction"
    if formula_rate is not None:
        _, losses = _loss_points(observations, plan.true_answers)
        heights = [min(losses), base_loss]
        series.append(Series("formula's rate", [formula_rate] * 2, heights, style="dotted"))
        prediction = f"predicts {number(formula_rate, 3)}"

    first = plan.first_rank[0].rank
    second = plan.second_rank[0].rank
    best_first = format_rate(measurements["best_rate"].number)
    best_second = format_rate(measurements[f"best_rate_r{second}"].number)
    return Figure(
        name="loss_by_rate",
        title="Held-out loss after training, by learning rate",
        caption=(
            f"Every run is a point, {count(len(plan.seeds), 'seed')} at each rate; lines join the "
            f"means. The mean is lowest at {best_first} with rank {first} and at {best_second} "
            f"with rank {second}; the formula {prediction}."
        ),
        x_label="peak learning rate",
        y_label="held-out loss (nats/token)",
        series=tuple(series),
        x_scale="log",
    )


def _loss_series(
    observations: LearningRateObservations,
    settings: Sequence[Setting],
    style: Literal["solid", "dashed"],
) -> list[Series]:
    """Return the points of one rank and the line through their means."""
    group = f"rank {settings[0].rank}"
    point_rates, point_losses = _loss_points(observations, settings)
    rates = [setting.rate for setting in settings]
    means = [statistics.fmean(observations.final_losses(setting)) for setting in settings]
    return [
        Series(f"{group}, each seed", point_rates, point_losses, kind="points", group=group),
        Series(f"{group}, mean", rates, means, style=style, group=group),
    ]


def _loss_points(
    observations: LearningRateObservations, settings: Sequence[Setting]
) -> tuple[list[float], list[float]]:
    """Return rate and final loss of every trial."""
    rates: list[float] = []
    losses: list[float] = []
    for setting in settings:
        of_setting = observations.final_losses(setting)
        rates += [setting.rate] * len(of_setting)
        losses += of_setting
    return rates, losses


def training_figure(observations: LearningRateObservations) -> Figure:
    """Return the training loss less that of the smallest rate on the same batch, per step."""
    plan = observations.plan
    series = []
    last_values = []
    for setting in plan.first_rank[1:]:
        above_reference = observations.losses_above_reference(setting)  # [seeds, T]
        mean = above_reference.mean(axis=0)  # [T]
        seed_range = (above_reference.min(axis=0), above_reference.max(axis=0))
        rate = format_rate(setting.rate)
        series.append(Series(rate, range(1, len(mean) + 1), mean, band=seed_range))
        last_values.append(f"{number(float(mean[-1]), 3)} at {rate}")
    return Figure(
        name="training_loss",
        title=f"Training loss, less that of rate {format_rate(plan.reference.rate)} "
        "on the same batch",
        caption=(
            "Lines are means over seeds, bands reach from the lowest seed to the highest. In the "
            f"last step: {', '.join(last_values)} nats/token. The batches' difficulty is "
            "subtracted; how much each batch can gain is not."
        ),
        x_label="optimizer step",
        y_label="difference of the loss (nats/token)",
        series=tuple(series),
    )


def instability_figure(observations: LearningRateObservations) -> Figure:
    """Return the largest climb of every trial, as it is and on the same batches."""
    plan = observations.plan
    smallest = format_rate(plan.reference.rate)

    # 1. The climbs as they are.
    first = plan.first_rank[0].rank
    rates, climbs = _climb_points(observations, plan.first_rank, "instability")
    series = [Series(f"rank {first}", rates, climbs, kind="points")]

    # 2. The climbs less the smallest rate's loss on the same batch; the highest of each rank.
    highest = []
    for settings in (plan.first_rank[1:], plan.second_rank):
        rank = settings[0].rank
        rates, climbs = _climb_points(observations, settings, "instability_same_batches")
        label = f"rank {rank}, less {smallest} on the same batch"
        series.append(Series(label, rates, climbs, kind="points"))
        most = max(climbs)
        rate = format_rate(rates[climbs.index(most)])
        highest.append(f"{number(most, 3)} nats at rank {rank} with {rate}")

    # 3. The climb of the smallest rate, which should hardly learn: that of the batches alone.
    _, reference_climbs = _climb_points(observations, [plan.reference], "instability")
    floor = statistics.fmean(reference_climbs)
    return Figure(
        name="instability",
        title="How far the training loss climbs back",
        caption=(
            "The largest climb above the lowest loss so far, one point per run. At "
            f"{smallest} its mean is {number(floor, 3)} nats. Less the loss of {smallest} on "
            f"the same batch, the largest are {' and '.join(highest)}."
        ),
        x_label="peak learning rate",
        y_label="largest climb of the loss (nats/token)",
        series=tuple(series),
        x_scale="log",
    )


def _climb_points(
    observations: LearningRateObservations,
    settings: Sequence[Setting],
    metric: Literal["instability", "instability_same_batches"],
) -> tuple[list[float], list[float]]:
    """Return rate and largest climb of every trial."""
    rates: list[float] = []
    climbs: list[float] = []
    for setting in settings:
        for stability in numbers.stability_by_seed(observations, setting):
            rates.append(setting.rate)
            climbs.append(getattr(stability, metric))
    return rates, climbs
