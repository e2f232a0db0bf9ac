"""The tables of the loss-curve analysis."""

from __future__ import annotations

import numpy as np

from lab.contract import Table
from lab.instruments import curves, gradient_noise
from lab.loss_curves.measured import POINTS, RATES, SHAPES, LossCurveObservations
from lab.loss_curves.numbers import (
    compare_batches,
    fired_names,
    mean_loss,
    run_curve,
    smoothed_losses,
)
from lab.stats.tokens import token_mean

POINT_TITLES = {
    "start": "before training",
    "low": "after 20 steps at the low rate",
    "healthy": "after the healthy run",
}


def tables(observations: LossCurveObservations) -> list[Table]:
    """Return the runs, the batch sizes seed by seed, their tests, the gradients."""
    return [
        shape_table(observations),
        seed_table(observations),
        significance_table(observations),
        gradient_table(observations),
    ]


def shape_table(observations: LossCurveObservations) -> Table:
    """Return one row per shape: its settings, its losses in nats/token, its detectors."""
    columns = (
        "run",
        "rate",
        "batch",
        "steps",
        "examples",
        "held out: start",
        "lowest",
        "at step",
        "end",
        "training, smoothed: end",
        "largest rise",
        "detected",
    )
    rows = []
    for shape in SHAPES:
        trial = observations.shapes[shape].trial
        curve = run_curve(observations, shape)
        smoothed = smoothed_losses(observations, shape)
        lowest_step, lowest_loss = curve.lowest_point
        row = (
            shape,
            trial.training.learning_rate,
            trial.training.batch_size,
            trial.training.steps,
            trial.examples,
            curve.start_loss,
            lowest_loss,
            lowest_step,
            curve.final_loss,
            float(smoothed[-1]),
            curves.largest_rise(smoothed),
            fired_names(observations, shape),
        )
        rows.append(row)
    return Table("Four shapes", columns, tuple(rows))


def seed_table(observations: LossCurveObservations) -> Table:
    """Return the final loss per rate and seed in nats/token.

    The last two columns pair the examples of one seed's runs.
    """
    plan = observations.plan
    rows = []
    for rate in RATES:
        for seed in plan.seeds:
            evaluations = [
                observations.grid[rate, size, seed].evaluation for size in plan.batch_sizes
            ]
            losses = [mean_loss(evaluation) for evaluation in evaluations]
            smallest, largest = evaluations[0], evaluations[-1]
            changes = largest.losses.astype(np.float64) - smallest.losses  # [N]
            change = token_mean(changes, smallest.example_ids)
            rows.append((plan.rates[rate], seed, *losses, change.value, change.stderr))
    columns = (
        "rate",
        "seed",
        *(f"batch {size}" for size in plan.batch_sizes),
        f"{plan.batch_sizes[-1]} - {plan.batch_sizes[0]}",
        "its standard error over examples",
    )
    return Table("Batch sizes at equal tokens: final held-out loss", columns, tuple(rows))


def significance_table(observations: LossCurveObservations) -> Table:
    """Return a paired t test over seeds for each rate and pair of batch sizes."""
    plan = observations.plan
    small, middle, large = plan.batch_sizes
    rows = []
    for rate in RATES:
        for larger, smaller in ((middle, small), (large, middle), (large, small)):
            test = compare_batches(observations, rate, larger=larger, smaller=smaller)
            batches = f"{larger} - {smaller}"
            rows.append((plan.rates[rate], batches, test.mean, *test.interval, test.p_value))
    columns = ("rate", "batches", "mean difference", "95 % from", "to", "p (paired t over seeds)")
    return Table("Batch sizes, paired by seed", columns, tuple(rows))


def gradient_table(observations: LossCurveObservations) -> Table:
    """Return signal, noise and noise scale of the gradients at each point."""
    columns = (
        "when",
        "|G|², unbiased",
        "tr Σ, per example",
        "noise scale (examples)",
        "standard error",
    )
    rows = []
    for point in POINTS:
        noise = gradient_noise.estimate_noise(observations.gradient_products[point])
        rows.append((POINT_TITLES[point], noise.signal, noise.variance, noise.scale, noise.stderr))
    return Table("Gradients of single examples", columns, tuple(rows))
