"""The findings of the attention views: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.attention_views.measured import ViewPlan
from lab.contract import Measurement

# rank correlations from which a sentence says so
CLOSE, LOOSE = 0.6, 0.3


def findings(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _sink_finding(plan, measurements),
        _control_finding(measurements),
        _layer_finding(plan, measurements),
        _norm_finding(measurements),
        _distance_finding(plan, measurements),
        _induction_finding(plan, measurements),
        _previous_finding(plan, measurements),
        _ablation_finding(plan, measurements),
        _circuit_finding(plan, measurements),
    ]


def page_facts(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    """Return what stands beside the page's pictures: their controls and the causal test."""

    def nats(name: str) -> str:
        return present.number(measurements[name].value, 3)

    return (
        f"Controls: with random weights no head has an induction score above "
        f"{_percent(measurements['induction_score_random_weights'])}, and on one token repeated "
        f"{present.number(measurements['sink_rate_one_token'].value, 3)} % of the heads have a "
        f"sink. Causal test: the loss on the second copy of a random sequence is "
        f"{nats('loss_second_copy')} nats per token, without the {plan.top} induction heads "
        f"{nats('loss_without_induction_heads')}, without the previous-token head before them "
        f"{nats('loss_without_previous_head')}, without {plan.top} random heads "
        f"{nats('loss_without_random_heads')} in the mean."
    )


def _sink_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    first, second = measurements["sink_rate"], measurements["sink_rate_second_token"]
    if first.number > second.number:
        verdict = "the sink is the first token, not the beginning of the text"
    else:
        verdict = "the first token is no sink"
    return (
        f"On running text of {plan.length} tokens {present.quantity(first)} of the heads give the "
        f"first token a mean share above 0.3, and {present.quantity(second)} the second token: "
        f"{verdict}."
    )


def _control_finding(measurements: Mapping[str, Measurement]) -> str:
    random_tokens = measurements["sink_rate_random_tokens"]
    one_token = measurements["sink_rate_one_token"]
    untrained = measurements["sink_rate_random_weights"]
    needs_content = random_tokens.number < measurements["sink_rate"].number / 2
    content = "it is not about content"
    if needs_content:
        content = "it needs text that means something"
    vanishes = one_token.number < measurements["sink_rate"].number / 2
    end = "and it stays there"
    if vanishes:
        end = "where no token differs from another it vanishes"
    return (
        f"The same rate is {present.quantity(random_tokens)} on random tokens: {content}. On one "
        f"token repeated it is {present.quantity(one_token)}: {end}. With random weights it is "
        f"{present.quantity(untrained)}."
    )


def _layer_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    early, late = measurements["sink_share_early"], measurements["sink_share_late"]
    times = measurements["sink_late_over_early"]
    direction = "grows" if times.number > 1 else "does not grow"
    return (
        f"The mean share on the first token {direction} with depth: {_percent(early)} in the first "
        f"{present.count(plan.early, 'layer')}, {_percent(late)} from layer {plan.late} on, "
        f"{present.number(times.value, 3)} times as much."
    )


def _norm_finding(measurements: Mapping[str, Measurement]) -> str:
    rho = measurements["sink_follows_norm"]
    verdict = "does not follow"
    if rho.value is not None and rho.number > CLOSE:
        verdict = "follows"
    elif rho.value is not None and rho.number > LOOSE:
        verdict = "loosely follows"
    return (
        f"Over layers the sink share {verdict} the size of the first token's residual against the "
        f"median token's: rank correlation {present.number(rho.value, 3)}; the residual is up to "
        f"{present.quantity(measurements['norm_ratio_highest'])} as large."
    )


def _distance_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    distance = measurements["distance_late"]
    without = measurements["distance_late_without_sink"]
    direction = "farther" if without.number > distance.number else "nearer"
    return (
        f"From layer {plan.late} on a head looks {present.quantity(distance)} back in the mean; "
        f"without the first token {present.quantity(without)}, which is {direction}. This holds "
        f"in {measurements['layers_nearer_without_sink'].value} of "
        f"{present.count(int(measurements['layers_with_sink'].number), 'layer')} with a sink share "
        "above 40 %."
    )


def _induction_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    score = measurements["induction_score"]
    control = measurements["induction_score_random_weights"]
    count = int(measurements["induction_heads"].number)
    verdict = "training made them"
    if score.number < 2 * control.number:
        verdict = "so there are none"
    return (
        f"{present.count(count, 'head')} look at the token behind the last occurrence of the "
        f"current one with a mean share above {plan.induction_threshold:g}; the most does "
        f"{measurements['induction_head'].value} with {_percent(score)}. With random weights no "
        f"head exceeds {_percent(control)}: {verdict}."
    )


def _previous_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    score = measurements["previous_score"]
    where = "no earlier layer has"
    if measurements["previous_head_before_induction"].value:
        where = "an earlier layer has"
    return (
        f"{measurements['previous_head'].value} looks most at the token just before, with "
        f"{_percent(score)} (random weights: "
        f"{_percent(measurements['previous_score_random_weights'])}). Induction needs such a head "
        f"before it: {where} one above {plan.previous_threshold:g}."
    )


def _ablation_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    first, second = measurements["loss_first_copy"], measurements["loss_second_copy"]
    without = measurements["loss_without_induction_heads"]
    others = measurements["loss_without_random_heads"]
    ratio = present.number(measurements["ablation_ratio"].value, 3)
    return (
        f"The loss is {present.quantity(first)} on a random sequence and "
        f"{present.quantity(second)} on its copy. Without the {plan.top} heads of the highest "
        f"induction scores it is {present.quantity(without)} there, without {plan.top} random "
        f"others {present.quantity(others)}. That is {ratio} times the largest of these: "
        f"{_ablation_verdict(measurements)}."
    )


def _ablation_verdict(measurements: Mapping[str, Measurement]) -> str:
    rise_ratio = measurements["ablation_rise_ratio"]
    if measurements["ablation_ratio"].number > 2:
        return "copying needs these heads more than any of the random sets"
    if rise_ratio.value is not None and rise_ratio.number > 2:
        return (
            f"copying needs these heads, with a rise {present.number(rise_ratio.value, 3)} times "
            "that of the random sets in the mean, but one of the sets nearly as much"
        )
    return "the picture of these heads does not show what copying needs"


def _circuit_finding(plan: ViewPlan, measurements: Mapping[str, Measurement]) -> str:
    alone = measurements["loss_without_previous_head"]
    containing = int(measurements["random_sets_with_previous_head"].number)
    with_all = measurements["loss_second_copy"].number
    contain = "contain"
    if containing == 1:
        contain = "contains"
    verdict = "copying does not hang on this single head"
    if alone.number > 2 * with_all:
        verdict = "copying needs this head too, as it must if induction heads read what it writes"
    return (
        "Without the strongest previous-token head before the strongest induction head alone, the "
        f"loss on the copy is {present.quantity(alone)}: {verdict}. {containing} of {plan.draws} "
        f"random sets {contain} this head."
    )


def _percent(measurement: Measurement) -> str:
    """Return a share as percent: `35.2 %`."""
    return f"{present.number(100 * measurement.number, 3)} %"
