"""What the numbers say, in sentences that turn with them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab import present
from lab.contract import Measurement
from lab.learning_rate.instability import instability
from lab.learning_rate.numbers import ranked, tag, written

if TYPE_CHECKING:
    from lab.learning_rate.experiment import LearningRateObservations, Setting


def findings(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> tuple[str, ...]:
    """Sentences that follow from the numbers, and turn with them."""
    return (
        _on_the_winner(observations, numbers),
        _on_the_formula(observations, numbers),
        _on_the_optimum(observations, numbers),
        _on_the_rank(observations, numbers),
        _on_the_control(numbers),
        _on_stability(observations, numbers),
    )


def interval(measurement: Measurement) -> tuple[float, float]:
    """The 95 % t interval of a sample over seeds."""
    from lab.stats.paired import paired

    values = measurement.values or ()
    return paired(values, [0.0] * len(values)).interval


def surely(low: float, high: float) -> str:
    """What an interval says of a difference from 0."""
    return "surely" if low > 0 else "surely not" if high < 0 else "not surely"


def _on_the_winner(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> str:
    first = observations.plan.first
    best, next_best = ranked(observations, first)[:2]
    told = ", ".join(f"{_loss(numbers, s)} at {written(s.rate)}" for s in first)
    low, high = interval(numbers["best_rate_lead"])
    clear = "a lead that three seeds show" if low > 0 else "a lead that three seeds do not settle"
    clear = clear.replace("three", present.number(len(observations.plan.seeds)))
    return (
        f"From {present.number(numbers['eval_loss_base'].value)} nats/token of the base, rank "
        f"{first[0].rank} came to {told}. {written(best.rate)} won, "
        f"{present.number(numbers['best_rate_lead'].value, 3)} nats before "
        f"{written(next_best.rate)} (95 % interval {_range(low, high)}): {clear}."
    )


def _loss(numbers: Mapping[str, Measurement], setting: Setting) -> str:
    return present.number(numbers[f"eval_loss_r{setting.rank}_lr{tag(setting.rate)}"].value)


def _range(low: float, high: float) -> str:
    return f"{present.number(low, 3)} to {present.number(high, 3)}"


def _on_the_formula(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> str:
    formula, best = numbers["formula_rate"].value, numbers["best_rate"].value
    if formula is None:
        return (
            "The published formula knows nothing of this family of models; it made no prediction."
        )
    rates = [s.rate for s in observations.plan.first]
    nearest = min(rates, key=lambda rate: abs(math.log(rate / formula)))
    verdict = "did win" if nearest == best else f"did not win: {written(best)} did"
    return (
        f"For a width of {observations.hidden_size} the formula says {present.number(formula, 3)}; it "
        "was fitted on models from 1 B parameters on. The nearest rate of the grid, "
        f"{written(nearest)}, {verdict}."
    )


def _on_the_optimum(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> str:
    found, formula = numbers["optimum_log10_rate"], numbers["formula_rate"].value
    if found.value is None:
        return (
            "The losses at the last three rates do not bend upwards in every seed: they show no "
            "optimum between them."
        )
    low, high = interval(found)
    rates = [s.rate for s in observations.plan.shared]
    inside = rates[0] <= 10**found.value <= rates[-1]
    where = (
        "between the rates that were run"
        if inside
        else "outside of the rates that were run, an extrapolation"
    )
    text = (
        "Parabolas through the last three rates put the optimum at "
        f"{present.number(10**found.value, 3)} (95 % interval over seeds "
        f"{_range(10**low, 10**high)}), {where}"
    )
    if formula is None:
        return text + "."
    agrees = (
        "holds the formula's rate"
        if low <= math.log10(formula) <= high
        else "does not hold the formula's rate"
    )
    return f"{text}; the interval {agrees}."


def _on_the_rank(observations: LearningRateObservations, numbers: Mapping[str, Measurement]) -> str:
    from lab.stats.paired import equivalence

    plan, same = observations.plan, numbers["winner_unchanged_seeds"].value
    told = (
        f"At rank {plan.second[0].rank} with the same alpha the winner was the same of three rates "
        f"in {present.number(same)} of {present.count(len(plan.seeds), 'seed')}"
    )
    shift = numbers["optimum_shift"]
    if shift.value is None:
        return told + "; how far the optimum moved could not be observations."
    half = math.log10(plan.second[1].rate / plan.second[0].rate) / 2
    small = equivalence(shift.values or (), half).equivalent
    verdict = "surely less than" if small else "not shown to be less than"
    low, high = interval(shift)
    return (
        f"{told}; the vertex moved by {present.number(shift.value, 3)} in log10 of the rate (95 % "
        f"interval {_range(low, high)}), {verdict} half a step of the grid "
        f"({present.number(half, 2)}; two one-sided t tests)."
    )


def _on_the_control(numbers: Mapping[str, Measurement]) -> str:
    gap, share = numbers["control_gap"], numbers["format_share"]
    low, high = interval(gap)
    said = {
        "surely": "more than",
        "surely not": "less than",
        "not surely": "no more than chance beyond",
    }
    return (
        f"True answers taught {said[surely(low, high)]} shuffled ones: {present.quantity(gap)}, 95 "
        f"% interval {_range(low, high)}. {present.number(100 * float(share.value or 0), 3)} % of "
        "the improvement came with shuffled answers too: it is format."
    )


def _on_stability(
    observations: LearningRateObservations, numbers: Mapping[str, Measurement]
) -> str:
    first = observations.plan.first
    lowest, below, highest = (written(s.rate) for s in (first[0], first[-2], first[-1]))
    raw, own = (
        present.number(numbers[f"instability_{kind}lr{tag(first[-1].rate)}"].value, 3)
        for kind in ("", "same_batches_")
    )
    floor = present.number(numbers[f"instability_lr{tag(first[0].rate)}"].value, 3)
    neighbour = statistics.fmean(
        instability(curve) for curve in observations.same_batches(first[-2])
    )
    gained = [
        observations.base_loss - statistics.fmean(observations.losses(s))
        for s in (first[0], ranked(observations, first)[0])
    ]
    hardly = gained[0] < 0.1 * gained[1]
    moved = "which hardly learnt" if hardly else "which learnt too"
    floor_says = ": the batches' difference alone" if hardly else ""
    loss, gradient = (int(numbers[f"{of}_spikes"].value or 0) for of in ("loss", "gradient"))
    return (
        f"The training loss climbed back by up to {raw} nats at {highest} (mean over seeds); at "
        f"{lowest}, {moved}, by {floor}{floor_says}. Less the loss of {lowest} on the same batch, "
        f"{own} remain at {highest} and {present.number(neighbour, 3)} at {below}. Spikes over all "
        f"runs: {present.count(loss, 'step')} in the loss, {present.count(gradient, 'step')} in "
        "the gradient norm."
    )
