"""Findings of the rank comparison: sentences that follow from its numbers and change with them."""

from __future__ import annotations

from collections.abc import Mapping

from lab.contract import Measurement
from lab.lora_rank.measured import CONVENTIONS
from lab.present import number, quantity

T_THREE_SEEDS = 4.30  # t(0.975) with 2 degrees of freedom
LEVEL = 0.05  # of the equivalence test
CLEAR_SHARE = 0.1  # of the improvement: what the best directions must keep beyond random ones


def findings(measurements: Mapping[str, Measurement], equivalence_margin: float) -> tuple[str, ...]:
    """Return all findings; the margin is in nats/token."""
    return (
        _rank_finding(measurements, equivalence_margin),
        _scale_finding(measurements),
        _first_step_finding(measurements),
        _energy_finding(measurements),
        _similarity_finding(measurements),
        _full_tuning_finding(measurements),
    )


def _rank_finding(measurements: Mapping[str, Measurement], equivalence_margin: float) -> str:
    p_value = measurements["rank_equivalence_p"].number
    verdict = "could not be shown to be equivalent"
    if p_value < LEVEL:
        verdict = "are equivalent"

    suffixes = [name.removeprefix("loss_r") for name in measurements]
    rank_list = ", ".join(sorted(filter(str.isdigit, suffixes), key=int))
    return (
        f"With alpha fixed the ranks {rank_list} {verdict} within {number(equivalence_margin)} "
        "nats/token (two one-sided t tests on every pair, largest p = "
        f"{number(p_value, 2)}). The largest rank minus the smallest: "
        f"{quantity(measurements['rank_gap'])}; the highest minus the lowest rank's loss in one "
        f"seed, mean over seeds: {quantity(measurements['rank_spread'])}."
    )


def _scale_finding(measurements: Mapping[str, Measurement]) -> str:
    alpha_2r = _compare_with_fixed_alpha(measurements["alpha_2r_gap"])
    rslora = _compare_with_fixed_alpha(measurements["rslora_gap"])
    return (
        "At the largest rank and the same rate, compared with the fixed alpha: with alpha = 2r the "
        f"loss is {alpha_2r}; with rsLoRA it is {rslora}."
    )


def _compare_with_fixed_alpha(gap: Measurement) -> str:
    half_width = T_THREE_SEEDS * (gap.stderr or 0.0)
    if abs(gap.number) <= half_width:
        verdict = "not significantly different"
    elif gap.number > 0:
        verdict = "significantly higher"
    else:
        verdict = "significantly lower"
    return f"{verdict}, with a difference of {quantity(gap)}"


def _first_step_finding(measurements: Mapping[str, Measurement]) -> str:
    fixed, alpha_2r, rslora = (
        number(measurements[f"first_step_slope_{name}"].number, 3) for name in CONVENTIONS
    )
    return (
        "Derivation checked, not evidence: along the gradient the first step grows as rank to the "
        f"{fixed} with alpha fixed, {alpha_2r} with alpha = 2r and {rslora} with rsLoRA (from the "
        "formula: 0, 1 and 0.5). A comparison of ranks with any but the first compares step sizes "
        "too."
    )


def _energy_finding(measurements: Mapping[str, Measurement]) -> str:
    prefix = "energy_rank_r"
    largest = next(name.removeprefix(prefix) for name in measurements if name.startswith(prefix))
    return (
        f"Of the {largest} directions that r = {largest} has, "
        f"{quantity(measurements[f'energy_rank_r{largest}'])} hold 90 % of an update's energy; in "
        f"full fine-tuning it takes {quantity(measurements['energy_rank_full'])}."
    )


def _similarity_finding(measurements: Mapping[str, Measurement]) -> str:
    chance = measurements["similarity_null"].number
    names = {
        "left": "the left side",
        "right": "the right side",
        "learned": "A without its random start",
    }
    shares = []
    for side, name in names.items():
        share = measurements[f"similarity_{side}"].number
        shares.append(f"{name} {number(share, 3)} ({number(share / chance, 2)} times chance)")
    return (
        "The first directions of the smallest and the largest rank, as squared cosines: "
        f"{', '.join(shares)}. Random directions have {number(chance, 3)}. Where the right sides "
        "look unrelated, they show the two random starts of A and not what was learned."
    )


def _full_tuning_finding(measurements: Mapping[str, Measurement]) -> str:
    best = measurements["full_kept_rank_8"].number
    random = measurements["full_kept_random_8"].number
    if best - random < CLEAR_SHARE:
        verdict = "no more than random directions do, so what it learned is spread"
    elif best >= 0.5:
        verdict = (
            "most of the improvement, so few directions are enough, though the update is not of "
            "low rank"
        )
    else:
        verdict = "the smaller part of the improvement, so this update needs more directions"
    return (
        "Cut to its best 8 directions per layer, full fine-tuning's update keeps "
        f"{number(100 * best, 3)} % of its improvement; cut to 8 random ones, "
        f"{number(100 * random, 2)} %. The best 8 keep {verdict}."
    )
