"""Sentences that follow from the rank comparison's numbers, and turn with them."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement

q, n = present.quantity, present.number


def findings(numbers: Mapping[str, Measurement], margin: float) -> tuple[str, ...]:
    """All findings."""
    return (
        *_of_rank(numbers, margin),
        *_of_scale(numbers),
        *_of_directions(numbers),
        *_of_full(numbers),
    )


def _of_rank(numbers: Mapping[str, Measurement], margin: float) -> tuple[str, ...]:
    p = _value(numbers, "rank_equivalence_p")
    said = "are equivalent" if p < 0.05 else "could not be shown to be equivalent"
    ranks = sorted(
        int(name.removeprefix("loss_r"))
        for name in numbers
        if name.removeprefix("loss_r").isdigit()
    )
    listed = ", ".join(str(r) for r in ranks)
    return (
        f"With alpha fixed the ranks {listed} {said} within {n(margin)} nats/token (two one-sided "
        f"t tests on every pair, largest p = {n(p, 2)}). The largest rank minus the smallest: "
        f"{q(numbers['rank_gap'])}; the ranks of one seed lie within {q(numbers['rank_spread'])}.",
    )


def _of_scale(numbers: Mapping[str, Measurement]) -> tuple[str, ...]:
    told = {"alpha_2r": "alpha = 2r", "rslora": "rsLoRA"}
    compared = [
        f"with {words} it ends {_against(numbers[f'{name}_gap'])}" for name, words in told.items()
    ]
    slopes = [
        n(_value(numbers, f"first_step_slope_{name}"), 3)
        for name in ("alpha_fixed", "alpha_2r", "rslora")
    ]
    return (
        f"At the largest rank and the same rate, {'; '.join(compared)}, compared with "
        "the fixed alpha.",
        "Derivation checked, not evidence: along the gradient the first step grows as rank to the "
        f"{slopes[0]} with alpha fixed, {slopes[1]} with alpha = 2r and {slopes[2]} with rsLoRA "
        "(from the formula: 0, 1 and 0.5). A comparison of ranks with any but the first compares "
        "step sizes too.",
    )


def _against(gap: Measurement) -> str:
    # t(0.975) of three seeds
    value, reach = float(gap.value), 4.30 * (gap.stderr or 0.0)  # type: ignore[arg-type]
    if abs(value) <= reach:
        return f"no surely different loss ({q(gap)})"
    return f"{'higher' if value > 0 else 'lower'} by {q(gap)}"


def _of_directions(numbers: Mapping[str, Measurement]) -> tuple[str, ...]:
    largest = next(
        name.removeprefix("energy_rank_r") for name in numbers if name.startswith("energy_rank_r")
    )
    chance = _value(numbers, "similarity_null")
    sides = {
        "left": "the left side",
        "right": "the right side",
        "learned": "A without its random start",
    }
    found = {words: _value(numbers, f"similarity_{side}") for side, words in sides.items()}
    shared = [
        f"{words} {n(share, 3)} ({n(share / chance, 2)} times chance)"
        for words, share in found.items()
    ]
    return (
        f"Of the {largest} directions that r = {largest} has, "
        f"{q(numbers[f'energy_rank_r{largest}'])} hold 90 % of an update's energy; in full "
        f"fine-tuning it takes {q(numbers['energy_rank_full'])}.",
        "The first directions of the smallest and the largest rank, as squared cosines: "
        f"{', '.join(shared)}. Random directions have {n(chance, 3)}. Where the right sides look "
        "unrelated, it is the two random starts of A that they show.",
    )


def _of_full(numbers: Mapping[str, Measurement]) -> tuple[str, ...]:
    kept, control = _value(numbers, "full_kept_rank_8"), _value(numbers, "full_kept_random_8")
    if kept - control < 0.1:
        said = "no more than chance directions do: what it learned is spread"
    elif kept >= 0.5:
        said = "most of it: few directions are enough, though the update itself is not of low rank"
    else:
        said = "the smaller part: this update needs more directions"
    return (
        "Cut down to its best 8 directions per layer, full fine-tuning's update keeps "
        f"{n(100 * kept, 3)} % of its improvement, in 8 random ones "
        f"{n(100 * control, 2)} %: {said}.",
    )


def _value(numbers: Mapping[str, Measurement], name: str) -> float:
    return float(numbers[name].value)  # type: ignore[arg-type]
