"""The findings of the comparison: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lab import present
from lab.attention_comparison.measured import STATISTICS, ComparisonObservations
from lab.contract import Measurement


def findings(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _movement_finding(measurements),
        _seeds_finding(measurements),
        _random_finding(measurements),
        _heads_finding(observations, measurements),
        _prompts_finding(measurements),
        _statistics_finding(measurements),
        _ablation_finding(observations, measurements),
        _interaction_finding(measurements),
        _time_finding(measurements),
        _first_finding(measurements),
        _replay_finding(observations, measurements),
    ]


def verdict(
    measurement: Measurement, reference: float = 0.0
) -> Literal["above", "below", "around"]:
    """Return whether the 95 % interval is above, below or around a reference value.

    value ± t(0.975, n - 1) · stderr; without a standard error it is "around": nothing is claimed.
    """
    from scipy.special import stdtrit  # quantiles of Student's t

    if measurement.value is None or measurement.stderr is None or (measurement.n or 0) < 2:
        return "around"
    reach = float(stdtrit((measurement.n or 0) - 1, 0.975)) * measurement.stderr
    if measurement.number - reach > reference:
        return "above"
    if measurement.number + reach < reference:
        return "below"
    return "around"


def _movement_finding(measurements: Mapping[str, Measurement]) -> str:
    tuned = present.quantity(measurements["js_tuned"])
    off = measurements["js_adapter_off"].number
    control = "exactly 0" if off == 0 else f"up to {present.number(off, 3)} nats, and must be 0"
    return (
        f"Fine-tuning moved attention by {tuned} per head. With the adapter switched off the "
        f"same model differs from the base by {control}."
    )


def _seeds_finding(measurements: Mapping[str, Measurement]) -> str:
    share = measurements["shared_share"]
    relation = {
        "above": "more than independent moves would: the seeds share",
        "below": "less than independent moves would: the shared share is",
        "around": "about what independent moves would: the shared share is",
    }[verdict(share)]
    return (
        f"Two seeds are {present.quantity(measurements['js_seeds'])} apart. They agree "
        f"{relation} {present.number(100 * share.number, 3)} % of the movement "
        "(0 %: independent, 100 %: equal)."
    )


def _random_finding(measurements: Mapping[str, Measurement]) -> str:
    ratio = measurements["random_ratio"]
    relation = {
        "above": "further than",
        "below": "less far than",
        "around": "about as far as",
    }[verdict(ratio, 1.0)]
    return (
        f"A random update of equal norm in every matrix moves attention by "
        f"{present.quantity(measurements['js_random'])}. Training moved it {relation} that: "
        f"{present.number(ratio.value, 3)} times."
    )


def _heads_finding(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> str:
    depth = measurements["movement_depth"]
    half = {
        "above": "in the later half of the layers",
        "below": "in the earlier half of the layers",
        "around": "in the middle of the layers",
    }[verdict(depth, 0.5)]
    return (
        f"{measurements['heads_above_seeds'].value} of {measurements['heads'].value} heads are "
        f"above the other seeds and {measurements['heads_above_random'].value} above the random "
        f"updates (paired t over prompts, Holm, 0.05), {measurements['heads_moved'].value} above "
        f"both. {measurements['most_moved_head'].value} moved furthest, by "
        f"{present.quantity(measurements['js_most_moved'])}; the {observations.plan.moved} "
        f"furthest have {present.number(100 * measurements['top_share'].number, 3)} % of all "
        f"movement. Its mean depth is {present.number(depth.value, 3)} (0: first layer, 1: last), "
        f"{half}. Two seeds order the heads alike with a rank correlation of "
        f"{present.number(measurements['seed_rank_correlation'].value, 3)}."
    )


def _prompts_finding(measurements: Mapping[str, Measurement]) -> str:
    relation = {"above": "more", "below": "less", "around": "not clearly more or less"}[
        verdict(measurements["task_excess"])
    ]
    return (
        f"Attention moved {relation} on held-out examples of the task "
        f"({present.quantity(measurements['js_task'])}) than on running text "
        f"({present.quantity(measurements['js_text'])})."
    )


def _statistics_finding(measurements: Mapping[str, Measurement]) -> str:
    parts = []
    for name in STATISTICS:
        shift = measurements[f"{name}_shift"]
        words = name.replace("_", " ")
        before = present.number(measurements[f"{name}_base"].value, 3)
        relation = {"above": "rose", "below": "fell", "around": "did not clearly change"}[
            verdict(shift)
        ]
        amount = present.number(shift.value, 3)
        parts.append(f"{words} {relation} ({amount} from {before})")
    return f"In the mean over heads: {', '.join(parts)}."


def _ablation_finding(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> str:
    excess = measurements["ablation_excess_tuned"]
    relation = {
        "above": "more than",
        "below": "less than",
        "around": "not clearly more or less than",
    }[verdict(excess)]
    return (
        f"Without the {observations.plan.moved} heads that moved most the tuned model's task loss "
        f"rises by {present.quantity(measurements['ablation_moved_tuned'])} from "
        f"{present.number(measurements['loss_tuned'].value, 3)}, {relation} without random ones "
        f"({present.number(measurements['ablation_random_tuned'].value, 3)}; difference "
        f"{present.quantity(excess)})."
    )


def _interaction_finding(measurements: Mapping[str, Measurement]) -> str:
    interaction = measurements["ablation_interaction"]
    relation = {
        "above": "Tuning made these heads matter more",
        "below": "Tuning made these heads matter less",
        "around": "It is not clear that tuning changed what these heads matter",
    }[verdict(interaction)]
    return (
        f"In the base, from a loss of {present.number(measurements['loss_base'].value, 3)}, the "
        f"same heads cost {present.quantity(measurements['ablation_moved_base'])} and random ones "
        f"{present.number(measurements['ablation_random_base'].value, 3)} (difference "
        f"{present.quantity(measurements['ablation_excess_base'])}). {relation}: "
        f"{present.quantity(interaction)}."
    )


def _time_finding(measurements: Mapping[str, Measurement]) -> str:
    lag = measurements["attention_lag"]
    if lag.value is None:
        return "The held-out loss did not fall, so there is no order of loss and attention."
    relation = {
        "above": "The loss fell first",
        "below": "Attention moved first",
        "around": "Neither clearly came first",
    }[verdict(lag)]
    return (
        f"{relation}: the held-out loss was half of its way down at step "
        f"{present.quantity(measurements['loss_half_step'])}, attention at "
        f"{present.quantity(measurements['attention_half_step'])}, "
        f"{present.number(lag.value, 3)} steps later (negative: earlier). {_peak(measurements)}"
    )


def _peak(measurements: Mapping[str, Measurement]) -> str:
    step = measurements["attention_peak_step"].value
    overshoot = measurements["attention_overshoot"].number
    if overshoot == 0:
        return f"Attention was furthest from the base at the end, step {step}."
    return (
        f"Attention was furthest from the base at step {step}, "
        f"{present.number(100 * overshoot, 3)} % further than at the end."
    )


def _first_finding(measurements: Mapping[str, Measurement]) -> str:
    moved, loss = measurements["first_step_moved"], measurements["first_step_loss"]
    first = "At no snapshot was a head above its null"
    if moved.value is not None:
        first = f"The first snapshot with a head above its random update is step {moved.value}"
    fell = "the loss never fell by a tenth of its way"
    if loss.value is not None:
        fell = f"the loss had fallen by a tenth of its way at step {loss.value}"
    correlation = measurements["early_late_correlation"]
    return (
        f"{first}; {fell}. The heads that moved first and those that moved most in the end have a "
        f"rank correlation of {present.number(correlation.value, 3)}. Over the "
        f"{measurements['snapshots'].value} snapshots the fall of the loss and the movement "
        f"correlate with "
        f"{present.number(measurements['loss_attention_correlation'].value, 3)}."
    )


def _replay_finding(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> str:
    gap = measurements["replay_gap"].number
    relation = "bit for bit" if gap == 0 else f"up to {present.number(gap, 3)} per number"
    return (
        f"The training that was repeated for its snapshots ends at the stored adapter "
        f"{observations.trials[0]} {relation}."
    )
