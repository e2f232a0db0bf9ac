"""The measurements of the learning-rate exploration: pure functions of what was observed."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.contract import Measurement
from lab.learning_rate.instability import gradient_spikes, instability, loss_spikes
from lab.learning_rate.measured import LearningRateObservations, Setting
from lab.learning_rate.optimum import vertex
from lab.stats.paired import paired
from lab.stats.tokens import token_mean

LOSS = "nats/token"
RATE = "learning rate"
LOG_RATE = "log10 rate"


@dataclass(frozen=True)
class Stability:
    """How one trial with true answers behaved.

    instability, instability_same_batches: nats per token, the second less the smallest rate's loss
    on the same batches; gradient_spikes, loss_spikes: numbers of steps.
    """

    instability: float
    instability_same_batches: float
    gradient_spikes: int
    loss_spikes: int


def measurements(observations: LearningRateObservations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _measure_losses(observations)
        | _measure_optimum(observations)
        | _measure_control(observations)
        | _measure_stability(observations)
    )


# Rates as text


def format_rate(rate: float) -> str:
    """Return a rate as a reader expects it: 0.0002 is 2e-4."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def rate_tag(rate: float) -> str:
    """Return a rate as part of a measurement's name: 0.0002 is 2e_4."""
    return format_rate(rate).replace("-", "_").replace(".", "_")


# Losses


def _measure_losses(observations: LearningRateObservations) -> dict[str, Measurement]:
    base = token_mean(observations.base.losses.astype(np.float64), observations.base.example_ids)
    losses = {
        "eval_loss_base": Measurement.of_estimate(base.value, LOSS, stderr=base.stderr, n=base.n)
    }
    for setting in observations.plan.true_answers:
        name = f"eval_loss_r{setting.rank}_lr{rate_tag(setting.rate)}"
        losses[name] = Measurement.of_sample(observations.final_losses(setting), LOSS)
    control_losses = observations.final_losses(observations.plan.control)
    losses["eval_loss_shuffled"] = Measurement.of_sample(control_losses, LOSS)
    return losses


# The best rate


def sort_by_loss(
    observations: LearningRateObservations, settings: Sequence[Setting]
) -> list[Setting]:
    """Return settings from the lowest mean loss to the highest."""

    def mean_loss_and_rate(setting: Setting) -> tuple[float, float]:
        return statistics.fmean(observations.final_losses(setting)), setting.rate

    return sorted(settings, key=mean_loss_and_rate)


def _losses_by_seed(
    observations: LearningRateObservations, settings: Sequence[Setting]
) -> list[tuple[float, ...]]:
    """Return for each seed the final losses of the settings: [seeds][settings]."""
    by_setting = [observations.final_losses(setting) for setting in settings]
    return list(zip(*by_setting, strict=True))


def best_rates(observations: LearningRateObservations, settings: Sequence[Setting]) -> list[float]:
    """Return the rate with the lowest loss, of each seed."""
    by_seed = _losses_by_seed(observations, settings)
    return [settings[int(np.argmin(losses))].rate for losses in by_seed]


def optima(
    observations: LearningRateObservations, settings: Sequence[Setting]
) -> list[float | None]:
    """Return log10 of the best rate by the parabola through three settings, of each seed."""
    log_rates = [float(np.log10(setting.rate)) for setting in settings]
    return [vertex(log_rates, losses) for losses in _losses_by_seed(observations, settings)]


def _measure_optimum(observations: LearningRateObservations) -> dict[str, Measurement]:
    plan = observations.plan
    second = f"r{plan.second_rank[0].rank}"

    # 1. The best of the rates that were run, by the mean over seeds.
    best, runner_up = sort_by_loss(observations, plan.first_rank)[:2]
    lead = paired(observations.final_losses(runner_up), observations.final_losses(best))
    best_second = sort_by_loss(observations, plan.second_rank)[0]

    # 2. The optimum between them, seed by seed, and how far it moves with the rank.
    first_optima = optima(observations, plan.first_rank_shared)
    second_optima = optima(observations, plan.second_rank)
    shifts: list[float | None] = []
    for one, other in zip(first_optima, second_optima, strict=True):
        if one is None or other is None:
            shifts.append(None)
        else:
            shifts.append(other - one)

    # 3. The seeds in which both ranks have the same best rate.
    pairs = zip(
        best_rates(observations, plan.first_rank_shared),
        best_rates(observations, plan.second_rank),
        strict=True,
    )
    unchanged = sum(one == other for one, other in pairs)
    return {
        "best_rate": Measurement.of_exact(best.rate, RATE),
        "best_rate_lead": Measurement.of_sample(lead.differences, LOSS),
        f"best_rate_{second}": Measurement.of_exact(best_second.rate, RATE),
        "formula_rate": Measurement.of_exact(observations.formula_rate, RATE),
        "optimum_log10_rate": _sample_of_all(first_optima, LOG_RATE),
        f"optimum_log10_rate_{second}": _sample_of_all(second_optima, LOG_RATE),
        "optimum_shift": _sample_of_all(shifts, LOG_RATE),
        "winner_unchanged_seeds": Measurement.of_exact(unchanged, "seeds"),
    }


def _sample_of_all(values: Sequence[float | None], unit: str) -> Measurement:
    """Return the sample of all seeds, or "not measured" if one seed's parabola has no minimum.

    Without that seed the others would agree too well.
    """
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return Measurement.of_estimate(None, unit)
    return Measurement.of_sample(numbers, unit)


# The control


def _measure_control(observations: LearningRateObservations) -> dict[str, Measurement]:
    base = observations.base_loss
    true_losses = observations.final_losses(observations.plan.counterpart)
    shuffled_losses = observations.final_losses(observations.plan.control)
    gaps = []
    shares = []
    for true, shuffled in zip(true_losses, shuffled_losses, strict=True):
        gaps.append(shuffled - true)
        shares.append((base - shuffled) / (base - true))
    return {
        "control_gap": Measurement.of_sample(gaps, LOSS),
        "format_share": Measurement.of_sample(shares, ""),
    }


# Stability


def stability_by_seed(observations: LearningRateObservations, setting: Setting) -> list[Stability]:
    """Return the metrics of a setting with true answers, of each seed."""
    thresholds = observations.plan.spikes
    rows = zip(
        observations.results[setting],
        observations.training_losses(setting),
        observations.losses_above_reference(setting),
        strict=True,
    )
    metrics = []
    for result, losses, above_reference in rows:
        norms = np.array([step.grad_norm for step in result.steps])  # [T]
        stability = Stability(
            instability=instability(losses),
            instability_same_batches=instability(above_reference),
            gradient_spikes=gradient_spikes(norms, thresholds.gradient),
            loss_spikes=loss_spikes(above_reference, thresholds.loss),
        )
        metrics.append(stability)
    return metrics


def _measure_stability(observations: LearningRateObservations) -> dict[str, Measurement]:
    plan = observations.plan
    metrics = {setting: stability_by_seed(observations, setting) for setting in plan.true_answers}

    # 1. Climbs of the smallest and the largest rate.
    lowest = plan.first_rank[0]
    highest = plan.first_rank[-1]
    climbs = {}
    for setting in (lowest, highest):
        values = [stability.instability for stability in metrics[setting]]
        name = f"instability_lr{rate_tag(setting.rate)}"
        climbs[name] = Measurement.of_sample(values, LOSS)
    values = [stability.instability_same_batches for stability in metrics[highest]]
    name = f"instability_same_batches_lr{rate_tag(highest.rate)}"
    climbs[name] = Measurement.of_sample(values, LOSS)

    # 2. Spikes of all trials.
    gradient_count = 0
    loss_count = 0
    for stability in itertools.chain.from_iterable(metrics.values()):
        gradient_count += stability.gradient_spikes
        loss_count += stability.loss_spikes
    return climbs | {
        "gradient_spikes": Measurement.of_exact(gradient_count, "steps"),
        "loss_spikes": Measurement.of_exact(loss_count, "steps"),
    }
