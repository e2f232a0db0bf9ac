"""Findings of the learning-rate exploration: sentences that follow from its numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from lab.contract import Measurement
from lab.learning_rate.measured import LearningRateObservations, Setting
from lab.learning_rate.numbers import format_rate, rate_tag, sort_by_loss, stability_by_seed
from lab.present import count, number, quantity
from lab.stats.paired import equivalence, paired

HARDLY_LEARNED = 0.1  # share of the best rate's improvement below which a rate hardly learned


def findings(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> tuple[str, ...]:
    """Return all findings."""
    return (
        _winner_finding(observations, measurements),
        _formula_finding(observations, measurements),
        _optimum_finding(observations, measurements),
        _rank_finding(observations, measurements),
        _control_finding(measurements),
        _stability_finding(observations, measurements),
    )


def _seed_interval(sample: Measurement) -> tuple[float, float]:
    """Return the 95 % t interval of the mean of a sample over seeds."""
    values = sample.values or ()
    return paired(values, [0.0] * len(values)).interval


def _format_interval(low: float, high: float) -> str:
    return f"{number(low, 3)} to {number(high, 3)}"


def _winner_finding(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> str:
    first_rank = observations.plan.first_rank

    # 1. The mean loss of each rate.
    losses = []
    for setting in first_rank:
        loss = measurements[f"eval_loss_r{setting.rank}_lr{rate_tag(setting.rate)}"]
        losses.append(f"{number(loss.number)} at {format_rate(setting.rate)}")

    # 2. The best one's lead.
    best, runner_up = sort_by_loss(observations, first_rank)[:2]
    lead = measurements["best_rate_lead"]
    low, high = _seed_interval(lead)
    verdict = "establish this lead" if low > 0 else "do not establish this lead"
    return (
        f"The base's held-out loss is {number(measurements['eval_loss_base'].number)} nats/token; "
        f"after training at rank {first_rank[0].rank} it is {', '.join(losses)}. "
        f"{format_rate(best.rate)} won, {number(lead.number, 3)} nats ahead of "
        f"{format_rate(runner_up.rate)} (95 % interval {_format_interval(low, high)}); "
        f"{count(len(observations.plan.seeds), 'seed')} {verdict}."
    )


def _formula_finding(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> str:
    formula_rate = observations.formula_rate
    if formula_rate is None:
        return (
            "The published formula was not fitted to this family of models; it made no prediction."
        )

    def log_distance(rate: float) -> float:
        return abs(math.log(rate / formula_rate))

    best = measurements["best_rate"].number
    nearest = min((setting.rate for setting in observations.plan.first_rank), key=log_distance)
    if nearest == best:
        verdict = "did win"
    else:
        verdict = f"did not win: {format_rate(best)} did"
    return (
        f"For a width of {observations.hidden_size} the formula predicts "
        f"{number(formula_rate, 3)}; it was fitted to models from 1 B parameters on. The nearest "
        f"rate of the grid, {format_rate(nearest)}, {verdict}."
    )


def _optimum_finding(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> str:
    optimum = measurements["optimum_log10_rate"]
    if optimum.value is None:
        return (
            "The losses at the last three rates do not bend upwards in every seed: they show no "
            "optimum between them."
        )

    # 1. Where the optimum is.
    low, high = _seed_interval(optimum)
    rates = [setting.rate for setting in observations.plan.first_rank_shared]
    if rates[0] <= 10**optimum.number <= rates[-1]:
        location = "between the rates that were run"
    else:
        location = "outside of the rates that were run, an extrapolation"
    finding = (
        "Parabolas through the last three rates put the optimum at "
        f"{number(10**optimum.number, 3)} (95 % interval over seeds "
        f"{_format_interval(10**low, 10**high)}), {location}"
    )

    # 2. Whether the formula agrees.
    formula_rate = observations.formula_rate
    if formula_rate is None:
        return f"{finding}."
    contains = low <= math.log10(formula_rate) <= high
    verdict = "contains" if contains else "does not contain"
    return f"{finding}; the interval {verdict} the formula's rate."


def _rank_finding(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> str:
    plan = observations.plan
    unchanged = number(measurements["winner_unchanged_seeds"].value)
    finding = (
        "With the same alpha, the best of three rates is the same at rank "
        f"{plan.second_rank[0].rank} as at rank {plan.first_rank[0].rank} in {unchanged} of "
        f"{count(len(plan.seeds), 'seed')}"
    )
    shift = measurements["optimum_shift"]
    if shift.value is None:
        return f"{finding}; how far the optimum moved could not be measured."

    # Half a step of the grid is the least that its rates can tell apart.
    half_step = math.log10(plan.second_rank[1].rate / plan.second_rank[0].rate) / 2
    verdict = "not shown to be less than"
    if equivalence(shift.values or (), half_step).equivalent:
        verdict = "significantly less than"
    low, high = _seed_interval(shift)
    return (
        f"{finding}; the vertex moved by {number(shift.number, 3)} in log10 of the rate (95 % "
        f"interval {_format_interval(low, high)}), {verdict} half a step of the grid "
        f"({number(half_step, 2)}; two one-sided t tests)."
    )


def _control_finding(measurements: Mapping[str, Measurement]) -> str:
    gap = measurements["control_gap"]
    share = measurements["format_share"].number
    low, high = _seed_interval(gap)
    if low > 0:
        verdict = "significantly lower than"
    elif high < 0:
        verdict = "significantly higher than"
    else:
        verdict = "not significantly different from that"
    return (
        f"With true answers the held-out loss is {verdict} with shuffled ones: shuffled minus true "
        f"is {quantity(gap)}, 95 % interval {_format_interval(low, high)}. "
        f"{number(100 * share, 3)} % of the improvement came with shuffled answers too: it is "
        "format."
    )


def _stability_finding(
    observations: LearningRateObservations, measurements: Mapping[str, Measurement]
) -> str:
    first_rank = observations.plan.first_rank
    smallest, *_, neighbour, largest = first_rank
    smallest_rate, neighbour_rate, largest_rate = (
        format_rate(setting.rate) for setting in (smallest, neighbour, largest)
    )

    # 1. Mean climbs: as they are, and less the smallest rate's loss on the same batch.
    largest_climb = measurements[f"instability_lr{rate_tag(largest.rate)}"].number
    smallest_climb = measurements[f"instability_lr{rate_tag(smallest.rate)}"].number
    remaining = measurements[f"instability_same_batches_lr{rate_tag(largest.rate)}"].number
    neighbour_remaining = statistics.fmean(
        stability.instability_same_batches
        for stability in stability_by_seed(observations, neighbour)
    )

    # 2. Only a rate that hardly learns shows what the batches alone do.
    best = sort_by_loss(observations, first_rank)[0]
    best_improvement = _mean_improvement(observations, best)
    if _mean_improvement(observations, smallest) < HARDLY_LEARNED * best_improvement:
        learning = "which hardly learned"
        explanation = ": the difference between batches alone"
    else:
        learning = "which learned too"
        explanation = ""

    loss_spikes = int(measurements["loss_spikes"].number)
    gradient_spikes = int(measurements["gradient_spikes"].number)
    return (
        f"The training loss climbed back by up to {number(largest_climb, 3)} nats at "
        f"{largest_rate} (mean over seeds); at {smallest_rate}, {learning}, by "
        f"{number(smallest_climb, 3)}{explanation}. Less the loss of {smallest_rate} on the same "
        f"batch, {number(remaining, 3)} remain at {largest_rate} and "
        f"{number(neighbour_remaining, 3)} at {neighbour_rate}. Spikes over all runs with true "
        f"answers: {count(loss_spikes, 'step')} in the loss, {count(gradient_spikes, 'step')} in "
        "the gradient norm."
    )


def _mean_improvement(observations: LearningRateObservations, setting: Setting) -> float:
    """Return by how much training lowered the held-out loss, nats per token, mean over seeds."""
    return observations.base_loss - statistics.fmean(observations.final_losses(setting))
