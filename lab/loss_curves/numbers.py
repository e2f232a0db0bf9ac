"""The measurements of the loss-curve analysis: pure functions of its observations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lab.contract import Measurement
from lab.instruments import curves, gradient_noise
from lab.instruments.curves import Curve
from lab.instruments.landscape import lowest_alpha
from lab.loss_curves.measured import POINTS, RATES, RUNS_ALONG_UPDATE, LossCurveObservations
from lab.stats.jackknife import jackknife
from lab.stats.paired import Paired, paired
from lab.stats.tokens import token_mean

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import TrialResult


def measurements(observations: LossCurveObservations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _of_shapes(observations)
        | _of_overfitting(observations)
        | _of_batches(observations)
        | _of_noise(observations)
        | _along_updates(observations)
    )


# What numbers, tables and figures are made of


def run_curve(observations: LossCurveObservations, shape: str) -> Curve:
    """Return the curve of a shape's run.

    Its held-out ends come from evaluating the base and the trained model.
    """
    result = observations.shapes[shape]
    on_curve = observations.base.example_ids < observations.plan.curve_examples  # [N]
    start = float(observations.base.losses[on_curve].mean(dtype="float64"))
    end = float(result.evaluation.losses[on_curve].mean(dtype="float64"))
    return Curve(
        losses=[step.loss for step in result.steps],
        tokens=[step.supervised_tokens for step in result.steps],
        held_out=((0, start), *result.curve, (len(result.steps), end)),
    )


def smoothed_losses(observations: LossCurveObservations, shape: str) -> np.ndarray:
    """Return the smoothed training loss [T] of a shape's run, in nats/token."""
    curve = run_curve(observations, shape)
    return curves.smooth(curve.losses, curve.tokens, observations.plan.thresholds.beta)


def fired_names(observations: LossCurveObservations, shape: str) -> str:
    """Return the names of the detectors that fire on a shape's run, joined by "+", or "none"."""
    curve = run_curve(observations, shape)
    fired = curves.fired_detectors(curve, observations.plan.thresholds)
    return "+".join(fired) or "none"


def mean_loss(evaluation: Evaluation) -> float:
    """Return the mean loss over all tokens of an evaluation, in nats/token."""
    return float(evaluation.losses.mean(dtype="float64"))


def final_losses(observations: LossCurveObservations, rate: str, size: int) -> list[float]:
    """Return the final held-out losses of a rate and batch size, one per seed, in nats/token."""
    losses = []
    for seed in observations.plan.seeds:
        losses.append(mean_loss(observations.grid[rate, size, seed].evaluation))
    return losses


def compare_batches(
    observations: LossCurveObservations, rate: str, *, larger: int, smaller: int
) -> Paired:
    """Return the loss of the larger batches minus that of the smaller ones, paired by seed."""
    first = final_losses(observations, rate, larger)
    second = final_losses(observations, rate, smaller)
    return paired(first, second)


def steps_per_epoch(result: TrialResult) -> int:
    """Return the optimizer steps in which a trial sees each of its examples once."""
    return result.trial.examples // result.trial.training.batch_size


# Measurements


def _of_shapes(observations: LossCurveObservations) -> dict[str, Measurement]:
    """Return each run's held-out loss and the detectors that fire on it."""
    measurements = {"base_loss": _token_mean(observations.base)}
    told_apart = 0
    for shape, result in observations.shapes.items():
        fired = fired_names(observations, shape)
        measurements[f"eval_loss_{shape}"] = _token_mean(result.evaluation)
        measurements[f"detected_{shape}"] = Measurement.of_exact(fired)
        told_apart += fired == shape  # its own detector and no other
    rise = curves.largest_rise(smoothed_losses(observations, "diverging"))
    measurements["runs_told_apart"] = Measurement.of_exact(told_apart, "runs")
    measurements["divergence_rise"] = Measurement.of_estimate(rise, "nats/token")
    return measurements


def _token_mean(evaluation: Evaluation) -> Measurement:
    mean = token_mean(evaluation.losses.astype(np.float64), evaluation.example_ids)
    return Measurement.of_estimate(mean.value, "nats/token", stderr=mean.stderr, n=mean.n)


def _of_overfitting(observations: LossCurveObservations) -> dict[str, Measurement]:
    """Return how far held-out and training loss part, and how much of the fall is a staircase."""
    result = observations.shapes["overfitting"]
    curve = run_curve(observations, "overfitting")
    epoch = steps_per_epoch(result)

    # 1. Held-out loss minus the training loss of the last epoch. The training examples are all
    # there are, so their mean has no standard error of its own.
    last_steps = result.steps[-epoch:]
    training_loss = sum(step.loss * step.supervised_tokens for step in last_steps)
    training_loss /= sum(step.supervised_tokens for step in last_steps)
    held_out = token_mean(
        result.evaluation.losses.astype(np.float64), result.evaluation.example_ids
    )
    gap = Measurement.of_estimate(
        held_out.value - training_loss, "nats/token", stderr=held_out.stderr, n=held_out.n
    )

    # 2. The staircase; None where the loss no longer falls after the first epoch.
    share = curves.staircase_share(curve.losses, _base_losses_per_step(observations), epoch)
    if share is None:
        staircase = Measurement.of_estimate(None, "")
    else:
        staircase = Measurement.of_estimate(share.value, "", stderr=share.stderr, n=share.n)

    _, lowest_loss = curve.lowest_point
    return {
        "overfit_rise": Measurement.of_estimate(curve.final_loss - lowest_loss, "nats/token"),
        "overfit_gap": gap,
        "staircase_share": staircase,
    }


def _base_losses_per_step(observations: LossCurveObservations) -> list[float]:
    """Return the base's loss on the batch of each step of the overfitting run, in nats/token."""
    result = observations.shapes["overfitting"]
    losses = observations.repeated_base.losses.astype(np.float64)  # [N]
    # example_ids count the run's examples in their order of use, so this is a token's batch
    batch_ids = observations.repeated_base.example_ids // result.trial.training.batch_size  # [N]
    epoch = steps_per_epoch(result)
    batch_losses = [float(losses[batch_ids == batch].mean()) for batch in range(epoch)]
    return [batch_losses[step % epoch] for step in range(len(result.steps))]


def _of_batches(observations: LossCurveObservations) -> dict[str, Measurement]:
    """Return the final loss of each batch size, and the largest batches minus the smallest."""
    sizes = observations.plan.batch_sizes
    measurements = {}
    for rate in RATES:
        for size in sizes:
            losses = final_losses(observations, rate, size)
            measurements[f"eval_loss_b{size}_{rate}"] = Measurement.of_sample(losses, "nats/token")
    for rate in RATES:
        effect = compare_batches(observations, rate, larger=sizes[-1], smaller=sizes[0])
        measurements[f"batch_effect_{rate}"] = Measurement.of_sample(
            effect.differences, "nats/token"
        )
    return measurements


def _of_noise(observations: LossCurveObservations) -> dict[str, Measurement]:
    """Return the gradient noise scale at each point, and its growth over the healthy run."""
    products = observations.gradient_products
    measurements = {}
    for point in POINTS:
        noise = gradient_noise.estimate_noise(products[point])
        measurements[f"noise_scale_{point}"] = Measurement.of_estimate(
            noise.scale, "examples", stderr=noise.stderr, n=len(products[point])
        )
    growth, stderr = gradient_noise.noise_growth(products["start"], products["healthy"])
    measurements["noise_growth"] = Measurement.of_estimate(
        growth, "times", stderr=stderr, n=len(products["start"])
    )
    return measurements


def _along_updates(observations: LossCurveObservations) -> dict[str, Measurement]:
    """Return where the held-out loss along each run's update is lowest."""
    alphas = observations.plan.alphas
    count = observations.plan.curve_examples
    example_ids = observations.base.example_ids
    example_ids = example_ids[example_ids < count]  # [N], of the curve's tokens
    tokens = np.bincount(example_ids)  # [count]
    measurements = {}
    for run in RUNS_ALONG_UPDATE:
        rows = observations.losses_along_update[run]  # [len(alphas), N]
        # the jackknife leaves out examples, so: sums per example, [len(alphas), count]
        sums = np.stack([np.bincount(example_ids, weights=row) for row in rows])

        def minimum(units: np.ndarray, sums: np.ndarray = sums) -> float:
            return lowest_alpha(alphas, sums[:, units].sum(1) / tokens[units].sum())

        measurements[f"line_minimum_{run}"] = Measurement.of_estimate(
            minimum(np.arange(count)), "updates", stderr=jackknife(count, minimum), n=count
        )
    return measurements
