"""The findings on induction heads: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.induction_heads.measured import InductionPlan


def findings(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _step_finding(plan, measurements),
        _order_finding(plan, measurements),
        _end_finding(measurements),
        _no_repeats_finding(measurements),
        _one_layer_finding(measurements),
        _ablation_finding(measurements),
    ]


def _step_finding(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> str:
    learnt = measurements["seeds_learnt"].value
    total = len(plan.seeds)
    if not learnt:
        return f"None of {total} two-layer models learnt to copy within {plan.steps} steps."
    step = present.quantity(measurements["learnt_step"])
    fall = present.number(measurements["fall_steps"].value, 3)
    return (
        f"{learnt} of {total} two-layer models learnt to copy, at step {step} of {plan.steps}; "
        f"90 % to 10 % of the fall of their loss took {fall} steps in the mean."
    )


def _order_finding(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> str:
    parts = []
    for name, words in (
        ("previous_token_step", "A previous-token head"),
        ("induction_step", "an induction head"),
    ):
        step = measurements[name]
        if step.value is None:
            parts.append(f"{words} (a score of {plan.head_score:g}) never appeared")
        else:
            parts.append(f"{words} (a score of {plan.head_score:g}) is there at step "
                         f"{present.quantity(step)}")
    lead = measurements["induction_lead"]
    if lead.value is None:
        return f"{', '.join(parts)}."
    when = _before_or_after(lead.number)
    return f"{', '.join(parts)}: {when} the loss on second copies shows it."


def _before_or_after(lead: float) -> str:
    if lead > 0:
        return f"{present.number(lead, 3)} steps before"
    if lead < 0:
        return f"{present.number(-lead, 3)} steps after"
    return "in the same step as"


def _end_finding(measurements: Mapping[str, Measurement]) -> str:
    loss = present.quantity(measurements["second_copy_loss"])
    accuracy = present.number(100 * measurements["second_copy_accuracy"].number, 3)
    first = measurements["first_copy_loss"]
    chance = measurements["chance_loss"].number
    cost = first.number - chance
    side = "above" if cost > 0 else "below"
    return (
        f"On second copies the two-layer models end at {loss} and name {accuracy} % of the tokens; "
        f"on first copies, where nothing can be predicted, at {present.quantity(first)}, "
        f"{present.number(abs(cost), 3)} {side} chance ({present.number(chance)})."
    )


def _no_repeats_finding(measurements: Mapping[str, Measurement]) -> str:
    learnt = measurements["seeds_learnt_no_repeats"].value
    loss = present.quantity(measurements["second_copy_loss_no_repeats"])
    score = present.number(measurements["induction_score_no_repeats"].value, 3)
    chance = present.number(measurements["chance_induction_score"].value, 3)
    return (
        f"Trained on data without repeats, {learnt} of the same models learnt to copy: their loss "
        f"on second copies ends at {loss}, their best induction score at {score} (even attention: "
        f"{chance})."
    )


def _one_layer_finding(measurements: Mapping[str, Measurement]) -> str:
    learnt = measurements["seeds_learnt_one_layer"].value
    loss = measurements["second_copy_loss_one_layer"]
    score = present.number(measurements["induction_score_one_layer"].value, 3)
    unordered = measurements["unordered_loss"].number
    side = "above" if loss.number > unordered else "below"
    distance = present.number(abs(loss.number - unordered), 3)
    return (
        f"With one layer {learnt} models learnt to copy: the loss on second copies ends at "
        f"{present.quantity(loss)}, {distance} {side} what knowing a piece's tokens without their "
        f"order would give ({present.number(unordered)}); the best induction score is {score}."
    )


def _ablation_finding(measurements: Mapping[str, Measurement]) -> str:
    rises = []
    for group, words in (
        ("induction_heads", "the induction heads"),
        ("previous_token_head", "the previous-token head"),
        ("other_heads", "all other heads"),
    ):
        rises.append(f"{words} by {present.quantity(measurements[f'ablation_{group}'])}")
    ratio = measurements["ablation_ratio"]
    comparison = "without the other heads the loss does not rise"
    if ratio.value is not None:
        comparison = (
            f"the smaller of the first two is {present.number(ratio.value, 3)} times the last"
        )
    return (
        f"Zeroed heads raise the loss on second copies: {', '.join(rises)}; {comparison}."
    )
