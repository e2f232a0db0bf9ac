"""The sentences of FEAT-021's report, word by word, as the recomputed numbers decide them.

A number is written as a mark, which `says` compares to the digits that are shown. All else must be
the same text: a verdict, a head's name or the group that a number belongs to cannot be another one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gates.induction_heads import arrays, report
from gates.induction_heads.arrays import GROUPS, TITLES
from gates.induction_heads.plan import CONDITIONS, names, plan
from gates.induction_heads.report import BARS, GROUP_TITLES
from gates.shared.documents import NUMBER

MARK = re.compile(r"⟨([^|⟩]+)\|(\d)⟩")
Numbers = Mapping[str, Any]


def says(text: str, expected: str) -> bool:
    """Return whether a text is the expected one, its numbers to the digits of their marks."""
    pieces = MARK.split(expected)  # words, value, digits, words, …
    pattern = f"({NUMBER.pattern})".join(map(re.escape, pieces[::3]))
    match = re.fullmatch(pattern, text)
    if match is None:
        return False
    wanted = zip(match.groups(), pieces[1::3], pieces[2::3], strict=True)
    return all(_shows(stated, float(value), int(digits)) for stated, value, digits in wanted)


def _shows(stated: str, value: float, digits: int) -> bool:
    number = float(stated.replace(",", ""))
    if value == 0:
        return number == 0
    unit: float = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    return abs(number - value) <= 0.51 * unit


def mark(value: float | None, digits: int = 4) -> str:
    """Return the mark of a number; what is shown of None."""
    return "not measured" if value is None else f"⟨{float(value)!r}|{digits}⟩"


def _with_error(number: Mapping[str, Any], digits: int = 4) -> str:
    text = mark(number["value"], digits)
    if number["stderr"] is not None:
        text += f" ± {mark(number['stderr'], 2)}"
    return text


def _quantity(number: Mapping[str, Any]) -> str:
    return f"{_with_error(number)} nats/token (n = {mark(number['n'])})"


def _count(number: int, noun: str) -> str:
    return f"{mark(number)} {noun}{'' if number == 1 else 's'}"


#### findings


def findings(numbers: Numbers) -> list[str]:
    """Return the findings, in their order."""
    return [
        _when(numbers),
        _order(numbers),
        _end(numbers),
        _without_repeats(numbers),
        _one_layer(numbers),
        _groups(numbers),
        _single_head(numbers),
    ]


def _when(numbers: Numbers) -> str:
    learnt, seeds, steps = numbers["seeds_learnt"], len(plan()["seeds"]), plan()["steps"]
    if learnt == 0:
        return f"None of {mark(seeds)} two-layer models learnt to copy within {mark(steps)} steps."
    return (
        f"{mark(learnt)} of {mark(seeds)} two-layer models learnt to copy, at step "
        f"{_step(numbers['learnt_step'])} of {mark(steps)}; {mark(90)} % to {mark(10)} % of the "
        f"fall of their loss took {mark(numbers['fall_steps']['value'], 3)} steps in the mean."
    )


def _step(number: Mapping[str, Any]) -> str:
    return f"{_with_error(number)} ({_count(number['n'], 'seed')})"


def _order(numbers: Numbers) -> str:
    score = mark(plan()["head_score"])
    if numbers["induction_step"]["value"] is None:
        return f"No head of a two-layer model reached an induction score of {score}."
    text = f"An induction score of {score} is reached at step {_step(numbers['induction_step'])}"
    lead = numbers["induction_lead"]["value"]
    if lead is not None:
        text += f", {_side(lead, 'steps before', 'steps after')} the loss counts as learnt"
    if numbers["previous_token_step"]["value"] is None:
        return f"{text}; a previous-token score of {score} is not reached."
    text += f"; a previous-token score of {score} at step {_step(numbers['previous_token_step'])}"
    lead = numbers["previous_token_lead"]["value"]
    if lead is not None:
        text += f", {_side(lead, 'steps before', 'steps after')} the induction score"
    return f"{text}."


def _side(value: float, above: str, below: str) -> str:
    if value == 0:
        return "in the same step as"
    return f"{mark(abs(value), 3)} {above if value > 0 else below}"


def _end(numbers: Numbers) -> str:
    accuracy = 100 * numbers["second_copy_accuracy"]["value"]
    chance = numbers["chance_loss"]
    cost = numbers["first_copy_loss"]["value"] - chance
    return (
        f"On second copies the two-layer models end at {_quantity(numbers['second_copy_loss'])} "
        f"and name {mark(accuracy, 3)} % of the tokens; on first copies, where nothing can be "
        f"predicted, at {_quantity(numbers['first_copy_loss'])}, {mark(abs(cost), 3)} "
        f"{'above' if cost > 0 else 'below'} chance ({mark(chance)})."
    )


def _without_repeats(numbers: Numbers) -> str:
    return (
        f"Trained on data without repeats, {mark(numbers['seeds_learnt_no_repeats'])} of "
        f"{mark(len(plan()['seeds']))} two-layer models learnt to copy: their loss on second "
        f"copies ends at {_quantity(numbers['second_copy_loss_no_repeats'])}, their best induction "
        f"score at {mark(numbers['induction_score_no_repeats']['value'], 3)} (even attention: "
        f"{mark(numbers['chance_induction_score'], 3)})."
    )


def _one_layer(numbers: Numbers) -> str:
    loss = numbers["second_copy_loss_one_layer"]
    above = loss["value"] - numbers["unordered_loss"]
    return (
        f"With one layer {mark(numbers['seeds_learnt_one_layer'])} of "
        f"{mark(len(plan()['seeds']))} models learnt to copy: the loss on second copies ends at "
        f"{_quantity(loss)}, {mark(abs(above), 3)} {'above' if above > 0 else 'below'} what "
        f"knowing a piece's tokens without their order would give "
        f"({mark(numbers['unordered_loss'])}); the best induction score is "
        f"{mark(numbers['induction_score_one_layer']['value'], 3)}."
    )


def _groups(numbers: Numbers) -> str:
    rises = []
    for group, words in zip(
        GROUPS,
        ("the induction heads", "the previous-token heads", "all other heads"),
        strict=True,
    ):
        rises.append(f"{words} by {_quantity(numbers[f'ablation_{group}'])}")
    ratio = numbers["ablation_ratio"]["value"]
    last = "without the other heads the loss does not rise"
    if ratio is not None:
        last = f"the smaller of the first two is {mark(ratio, 3)} times the last"
    return f"Zeroed heads raise the loss on second copies: {', '.join(rises)}; {last}."


def _single_head(numbers: Numbers) -> str:
    alone = numbers["ablation_previous_token_head"]
    together = numbers["ablation_previous_token_heads"]["values"]
    pairs = zip(alone["values"], together, strict=True)
    shared = [one for one, all_of_them in pairs if 2 * one < all_of_them]
    verdict = "no model shares this work between heads"
    if shared:
        verdict = (
            f"in {_count(len(shared), 'model')} it is less than half of what all of them are "
            "worth together, because another head does the same"
        )
    return (
        "Zeroing only the best previous-token head raises the loss on second copies by "
        f"{_quantity(alone)}: {verdict}."
    )


#### figures


def captions(numbers: Numbers) -> dict[str, tuple[str, str]]:
    """Return figure -> its title and caption."""
    return {
        "loss": ("Loss on the second copy", _loss_caption(numbers)),
        "scores": ("Attention of the best head of each run", _scores_caption(numbers)),
        **{f"film_{group}": _film_texts(group) for group in GROUPS[:2]},
        "ablation": ("Two-layer models with heads zeroed", _ablation_caption(numbers)),
    }


def _loss_caption(numbers: Numbers) -> str:
    ends = []
    for condition in CONDITIONS:
        loss = numbers[arrays.suffixed("second_copy_loss", condition)]["value"]
        ends.append(f"{TITLES[condition]} {mark(loss, 3)}")
    learnt = numbers["learnt_step"]
    when = "no two-layer run stays below half of it"
    if learnt["value"] is not None:
        when = (
            f"two-layer runs stay below half of it from step {mark(learnt['value'], 3)} on (mean "
            f"of {mark(learnt['n'])})"
        )
    return (
        f"Mean over {mark(plan()['evaluation'])} sequences; at the end: {'; '.join(ends)} "
        f"nats/token. Chance is {mark(numbers['chance_loss'])}; {when}. Knowing a piece's tokens "
        f"without their order would give {mark(numbers['unordered_loss'], 3)}."
    )


def _scores_caption(numbers: Numbers) -> str:
    def score(name: str) -> str:
        return mark(numbers[name]["value"], 3)

    return (
        "Share of attention on the token to copy (induction) and on the token before (previous "
        f"token, first layer). Two layers end at {score('induction_score')} and "
        f"{score('previous_token_score')} in the mean; the induction score ends at "
        f"{score('induction_score_no_repeats')} with {TITLES['no_repeats']}, at "
        f"{score('induction_score_one_layer')} with {TITLES['one_layer']}."
    )


def _film_texts(group: str) -> tuple[str, str]:
    period = plan()["film_period"]
    distance, stripe, first, last = 1, "the token before", 1, 2 * period
    if group == "induction_heads":
        distance, stripe, first, last = period - 1, "the token to copy", period, 2 * period - 1
    values = []
    for pattern in report.film_patterns(group).values():
        shares = [float(pattern[query, query - distance]) for query in range(first, last)]
        values.append(mark(math.fsum(shares) / len(shares), 2))
    learnt = arrays.steps_of(names("repeats")[0])["learnt"]
    when = "this run never learnt to copy"
    if learnt is not None:
        when = f"copying is learnt at step {mark(learnt)}"

    layer, head = report.film_head(group)
    group_title = GROUP_TITLES[GROUPS.index(group)]
    return (
        f"Attention of L{layer}H{head} while it is learnt ({group_title})",
        f"Mean over {mark(plan()['film'])} sequences of {mark(period)} tokens repeated once, seed "
        f"{mark(plan()['seeds'][0])}. The share on {stripe}, {_count(distance, 'token')} back, "
        f"goes {' → '.join(values)}; {when}.",
    )


def _ablation_caption(numbers: Numbers) -> str:
    shown = (GROUPS[0], GROUPS[1], "previous_token_head", GROUPS[2])
    means = []
    for title, name in zip(BARS, shown, strict=True):
        means.append(f"{title} {mark(numbers[f'ablation_{name}']['value'], 3)}")
    return f"Rise of the loss on second copies, mean over seeds: {', '.join(means)} nats/token."
