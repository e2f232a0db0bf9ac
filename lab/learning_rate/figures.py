"""The figures, each with a caption made from what it shows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lab import present
from lab.contract import Measurement
from lab.learning_rate.instability import instability
from lab.learning_rate.numbers import written

if TYPE_CHECKING:
    from lab.learning_rate.experiment import LearningRateObservations, Setting


def figures(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> list[present.Figure]:
    """All figures of the report."""
    return [loss_by_rate(observations, numbers), training_loss(observations), climb(observations)]


def loss_by_rate(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> present.Figure:
    """Final held-out loss against the rate: every run, each rate's mean, base, control, formula."""
    plan, base, formula = observations.plan, observations.base_loss, observations.formula
    series: list[present.Series] = []
    for settings, style in ((plan.first, "solid"), (plan.second, "dashed")):
        label, means = (
            f"rank {settings[0].rank}",
            [statistics.fmean(observations.losses(s)) for s in settings],
        )
        series += [
            present.Series(f"{label}, each seed", *_points(observations, settings), kind="points"),
            present.Series(
                f"{label}, mean",
                [s.rate for s in settings],
                means,
                style=style,  # type: ignore[arg-type]
            ),
        ]
    series.append(
        present.Series("shuffled answers", *_points(observations, [plan.control]), kind="points")
    )
    series.append(
        present.Series(
            "base", [plan.first[0].rate, plan.first[-1].rate], [base, base], style="dotted"
        )
    )
    if formula is not None:
        lowest = min(loss for s in plan.true for loss in observations.losses(s))
        series.append(
            present.Series("formula's rate", [formula, formula], [lowest, base], style="dotted")
        )
    told = "makes no prediction" if formula is None else f"says {present.number(formula, 3)}"
    first, second = plan.first[0].rank, plan.second[0].rank
    return present.Figure(
        name="loss_by_rate",
        title="Held-out loss after training, by learning rate",
        caption=(
            f"Every run is a point, {present.count(len(plan.seeds), 'seed')} at each rate; lines "
            f"join the means. Lowest at {_rate(numbers['best_rate'])} with rank {first} and at "
            f"{_rate(numbers[f'best_rate_r{second}'])} with rank {second}; the formula {told}."
        ),
        x_label="peak learning rate",
        y_label="held-out loss (nats/token)",
        series=tuple(series),
        x_scale="log",
    )


def _rate(measurement: Measurement) -> str:
    return written(float(measurement.value or 0))


def _points(
    observations: LearningRateObservations, settings: Sequence[Setting]
) -> tuple[list[float], list[float]]:
    """Rate and final loss of every run."""
    pairs = [(s.rate, loss) for s in settings for loss in observations.losses(s)]
    return [rate for rate, _ in pairs], [loss for _, loss in pairs]


def training_loss(observations: LearningRateObservations) -> present.Figure:
    """Training loss less that of the smallest rate on the same batch, per step."""
    plan, series, ends = observations.plan, [], []
    for setting in plan.first[1:]:
        found = observations.same_batches(setting)  # [seeds, T]
        mean, band = found.mean(axis=0), (found.min(axis=0), found.max(axis=0))
        rate = written(setting.rate)
        series.append(present.Series(rate, range(1, found.shape[1] + 1), mean, band=band))
        ends.append(f"{present.number(float(mean[-1]), 3)} at {rate}")
    return present.Figure(
        name="training_loss",
        title=f"Training loss, less that of rate {written(plan.reference.rate)} on the same batch",
        caption=(
            "Lines are means over seeds, bands reach from the lowest seed to the highest. In the "
            f"last step: {', '.join(ends)} nats/token. The batches' difficulty is taken away, not "
            "how much each can gain."
        ),
        x_label="optimizer step",
        y_label="difference of the loss (nats/token)",
        series=tuple(series),
    )


def climb(observations: LearningRateObservations) -> present.Figure:
    """Instability of runs with true answers, and less the smallest rate's loss on their batches."""
    plan, smallest = observations.plan, written(observations.plan.reference.rate)
    raw = [
        (s.rate, instability(curve))
        for s in plan.first
        for curve in observations.training_losses(s)
    ]
    series, worst = (
        [present.Series(f"rank {plan.first[0].rank}", *zip(*raw, strict=True), kind="points")],
        [],
    )
    for settings in (plan.first[1:], plan.second):
        own = [
            (s.rate, instability(curve)) for s in settings for curve in observations.same_batches(s)
        ]
        label = f"rank {settings[0].rank}, less {smallest} on the same batch"
        series.append(present.Series(label, *zip(*own, strict=True), kind="points"))
        rate, most = max(own, key=lambda pair: pair[1])
        worst.append(
            f"{present.number(most, 3)} nats at rank {settings[0].rank} with {written(rate)}"
        )
    floor = float(np.mean([y for x, y in raw if x == plan.reference.rate]))
    return present.Figure(
        name="instability",
        title="How far the training loss climbs back",
        caption=(
            f"The largest climb above the lowest loss so far, one point per run. With {smallest} "
            f"it is {present.number(floor, 3)} nats in the mean. Less the loss of {smallest} on "
            f"the same batch the largest are {' and '.join(worst)}."
        ),
        x_label="peak learning rate",
        y_label="largest climb of the loss (nats/token)",
        series=tuple(series),
        x_scale="log",
    )
