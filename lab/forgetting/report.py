"""The findings of the forgetting study: sentences that follow from the numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.forgetting.measured import BASE, ForgettingObservations
from lab.forgetting.numbers import LEVEL, Comparison, frontier_names


def findings(
    observations: ForgettingObservations,
    comparisons: Mapping[str, Comparison],
    measurements: Mapping[str, Measurement],
) -> tuple[str, ...]:
    """Return the findings; other numbers make other sentences."""
    return (
        _on_the_base(measurements),
        _on_who_forgot(comparisons),
        _on_what_it_follows(observations, measurements),
        _on_accuracy(observations, comparisons, measurements),
        _on_text(observations, measurements),
        _on_intruders(observations, comparisons),
        _on_the_frontier(comparisons),
    )


def _on_the_base(measurements: Mapping[str, Measurement]) -> str:
    percent = present.number(100 * measurements["acc_base"].number, 3)
    return (
        f"The base answers {percent} % of {measurements['items'].value} items "
        "correctly (chance: 25 %); its mean margin is "
        f"{present.quantity(measurements['margin_base'])}."
    )


def _on_who_forgot(comparisons: Mapping[str, Comparison]) -> str:
    names = [name for name, comparison in comparisons.items() if comparison.forgot]
    return (
        f"{present.count(len(names), 'adapter')} of {len(comparisons)} lost margin beyond chance "
        f"(paired t over items, adjusted by Holm, {LEVEL}): {', '.join(names) or 'none'}."
    )


def _on_what_it_follows(
    observations: ForgettingObservations, measurements: Mapping[str, Measurement]
) -> str:
    roles = observations.roles
    low = present.quantity(measurements["forgetting_low_rate"])
    high = present.quantity(measurements["forgetting_high_rate"])
    by_rate = measurements["spearman_rate"]
    by_norm = measurements["spearman_norm"]
    kl_by_norm = measurements["spearman_kl_norm"]
    return (
        f"From {roles['low_rate']} to {roles['high_rate']} forgetting goes from {low} to {high}. "
        f"Over adapters it {_relation(by_rate)} the rate (Spearman "
        f"{present.number(by_rate.value, 2)}) and {_relation(by_norm)} the norm of the update "
        f"({present.number(by_norm.value, 2)}); the divergence {_relation(kl_by_norm)} the norm "
        f"({present.number(kl_by_norm.value, 2)})."
    )


def _relation(correlation: Measurement) -> str:
    """Return the verb for a rank correlation, judged by two standard errors."""
    value = correlation.number
    if abs(value) <= 2 * (correlation.stderr or 0.0):
        return "does not clearly follow"
    if value > 0:
        return "rises with"
    return "falls with"


def _on_accuracy(
    observations: ForgettingObservations,
    comparisons: Mapping[str, Comparison],
    measurements: Mapping[str, Measurement],
) -> str:
    name = observations.roles["standard"]
    standard = comparisons[name]
    p = measurements["mcnemar_p_standard"].number
    verdict = "sees no change"
    if p < LEVEL:
        verdict = "sees a change"
    margin_change = present.number(-standard.forgetting.value, 3)
    stderr = present.number(standard.forgetting.stderr, 2)
    return (
        f"Of {name}, accuracy {verdict}: {present.count(standard.items_lost, 'item')} lost and "
        f"{standard.items_won} won, McNemar's p {present.number(p, 2)}. Its margin changed by "
        f"{margin_change} ± {stderr} nats/byte."
    )


def _on_text(observations: ForgettingObservations, measurements: Mapping[str, Measurement]) -> str:
    kl = measurements["kl_standard"]
    change = measurements["text_loss_change_standard"]
    noise = 2 * (change.stderr or 0.0)
    verdict = "differ by more than"
    if abs(change.number - kl.number) <= noise:
        verdict = "agree within"
    return (
        f"On text that the base wrote, {observations.roles['standard']} is "
        f"{present.quantity(kl)} away from it, and its loss rose by {present.quantity(change)}: "
        f"two estimates of one divergence, which {verdict} twice their standard error."
    )


def _on_intruders(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> str:
    roles = observations.roles
    low = comparisons[roles["low_rate"]].intruders
    standard = comparisons[roles["standard"]].intruders
    high = comparisons[roles["high_rate"]].intruders
    directions = observations.models[BASE].similarities.shape[1]
    return (
        f"Among {len(observations.matrices)} matrices with {directions} leading directions each, "
        f"{roles['low_rate']} has {present.count(low, 'intruder')}, {roles['standard']} "
        f"{standard}, {roles['high_rate']} {high}; the base compared with itself has "
        f"{observations.intruders(BASE)}."
    )


def _on_the_frontier(comparisons: Mapping[str, Comparison]) -> str:
    return (
        f"Pareto frontier: {', '.join(frontier_names(comparisons))}. For every other adapter, one "
        "of these learned at least as much and forgot no more."
    )
