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
        _no_repeats_finding(plan, measurements),
        _one_layer_finding(plan, measurements),
        _ablation_finding(measurements),
        _single_head_finding(measurements),
    ]


def _step_finding(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> str:
    learnt = measurements["seeds_learnt"].value
    total = len(plan.seeds)
    if not learnt:
        return f"None of {total} two-layer models learnt to copy within {plan.steps} steps."
    fall = present.number(measurements["fall_steps"].value, 3)
    return (
        f"{learnt} of {total} two-layer models learnt to copy, at step "
        f"{_step(measurements['learnt_step'])} of {plan.steps}; 90 % to 10 % of the fall of their "
        f"loss took {fall} steps in the mean."
    )


def _order_finding(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> str:
    score = f"{plan.head_score:g}"
    induction = measurements["induction_step"]
    previous = measurements["previous_token_step"]
    if induction.value is None:
        return f"No head of a two-layer model reached an induction score of {score}."
    sentence = f"An induction score of {score} is reached at step {_step(induction)}"
    if measurements["induction_lead"].value is not None:
        when = _before_or_after(measurements["induction_lead"].number)
        sentence += f", {when} the loss counts as learnt"
    if previous.value is None:
        return f"{sentence}; a previous-token score of {score} is not reached."
    sentence += f"; a previous-token score of {score} at step {_step(previous)}"
    if measurements["previous_token_lead"].value is not None:
        when = _before_or_after(measurements["previous_token_lead"].number)
        sentence += f", {when} the induction score"
    return f"{sentence}."


def _step(measurement: Measurement) -> str:
    """Return a step with its standard error over seeds: `245.0 ± 12 (3 seeds)`."""
    text = present.number(measurement.value)
    if measurement.stderr is not None:
        text += f" ± {present.number(measurement.stderr, 2)}"
    return f"{text} ({present.count(measurement.n or 0, 'seed')})"


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


def _no_repeats_finding(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> str:
    learnt = measurements["seeds_learnt_no_repeats"].value
    loss = present.quantity(measurements["second_copy_loss_no_repeats"])
    score = present.number(measurements["induction_score_no_repeats"].value, 3)
    chance = present.number(measurements["chance_induction_score"].value, 3)
    return (
        f"Trained on data without repeats, {learnt} of {len(plan.seeds)} two-layer models learnt "
        f"to copy: their loss on second copies ends at {loss}, their best induction score at "
        f"{score} (even attention: {chance})."
    )


def _one_layer_finding(plan: InductionPlan, measurements: Mapping[str, Measurement]) -> str:
    learnt = measurements["seeds_learnt_one_layer"].value
    loss = measurements["second_copy_loss_one_layer"]
    score = present.number(measurements["induction_score_one_layer"].value, 3)
    unordered = measurements["unordered_loss"].number
    side = "above" if loss.number > unordered else "below"
    distance = present.number(abs(loss.number - unordered), 3)
    return (
        f"With one layer {learnt} of {len(plan.seeds)} models learnt to copy: the loss on second "
        f"copies ends at {present.quantity(loss)}, {distance} {side} what knowing a piece's tokens "
        f"without their order would give ({present.number(unordered)}); the best induction score "
        f"is {score}."
    )


def _ablation_finding(measurements: Mapping[str, Measurement]) -> str:
    rises = []
    for group, words in (
        ("induction_heads", "the induction heads"),
        ("previous_token_heads", "the previous-token heads"),
        ("other_heads", "all other heads"),
    ):
        rises.append(f"{words} by {present.quantity(measurements[f'ablation_{group}'])}")
    ratio = measurements["ablation_ratio"]
    comparison = "without the other heads the loss does not rise"
    if ratio.value is not None:
        comparison = (
            f"the smaller of the first two is {present.number(ratio.value, 3)} times the last"
        )
    return f"Zeroed heads raise the loss on second copies: {', '.join(rises)}; {comparison}."


def _single_head_finding(measurements: Mapping[str, Measurement]) -> str:
    alone = measurements["ablation_previous_token_head"]
    together = measurements["ablation_previous_token_heads"]
    pairs = zip(alone.values or (), together.values or (), strict=True)
    shared = sum(single < group / 2 for single, group in pairs)
    verdict = "no model shares this work between heads"
    if shared:
        verdict = (
            f"in {present.count(shared, 'model')} it is less than half of what all of them are "
            "worth together, because another head does the same"
        )
    return (
        "Zeroing only the best previous-token head raises the loss on second copies by "
        f"{present.quantity(alone)}: {verdict}."
    )
