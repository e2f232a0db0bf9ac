"""The figures of catastrophic_forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab import present
from lab.contract import Measurement
from lab.forgetting.numbers import BASE, Compared, compare, of_one_shape, over_items, suites
from lab.stats import significance as comparing

if TYPE_CHECKING:
    from lab.forgetting.experiment import ForgettingObservations


def figures(
    observations: ForgettingObservations, numbers: Mapping[str, Measurement]
) -> list[present.Figure]:
    """All figures of the report."""
    found = compare(observations)
    return [
        frontier(observations, found),
        divergence(observations, found, numbers),
        by_suite(observations),
    ]


def _points(
    observations: ForgettingObservations, x: Mapping[str, float], y: Mapping[str, float]
) -> tuple[present.Series, ...]:
    """One series for adapters that differ in rate alone, joined in order; one for each other."""
    alike = of_one_shape(observations)
    joined = present.Series(
        f"{alike[0]} to {alike[-1]}", [x[name] for name in alike], [y[name] for name in alike]
    )
    others = (name for name in x if name not in alike)
    return (joined, *(present.Series(name, [x[name]], [y[name]], kind="points") for name in others))


def frontier(observations: ForgettingObservations, found: Mapping[str, Compared]) -> present.Figure:
    """What each adapter learnt and forgot."""
    gains = {name: one.learning.value for name, one in found.items()}
    losses = {name: one.forgetting.value for name, one in found.items()}
    best = comparing.frontier(list(gains.values()), list(losses.values()))
    names = list(found)
    widest = 2 * max(one.forgetting.stderr for one in found.values())
    return present.Figure(
        name="frontier",
        title="Learning against forgetting",
        caption=(
            "Right is more learnt, up is more forgotten; the line joins rates in their order. "
            f"Beaten by no other: {', '.join(names[i] for i in best)}. Twice the standard error of "
            f"forgetting is at most {present.number(widest, 2)} nats/byte; neighbours closer than "
            "that are not told apart."
        ),
        x_label="learning: held-out loss taken off (nats/token)",
        y_label="forgetting: margin lost (nats/byte)",
        series=_points(observations, gains, losses),
    )


def divergence(
    observations: ForgettingObservations,
    found: Mapping[str, Compared],
    numbers: Mapping[str, Measurement],
) -> present.Figure:
    """How far from the base each adapter is on the base's own text, against its update's size."""
    norms = {name: one.norm for name, one in found.items()}
    distances = {name: one.divergence.value for name, one in found.items()}
    least, most = (
        pick(found.values(), key=lambda one: one.divergence.value) for pick in (min, max)
    )
    return present.Figure(
        name="divergence",
        title="Divergence from the base against the norm of the update",
        caption=(
            f"From {present.number(least.divergence.value, 2)} to "
            f"{present.number(most.divergence.value, 2)} nats/token while the norm goes from "
            f"{present.number(least.norm, 3)} to {present.number(most.norm, 3)}; Spearman over the "
            f"adapters {present.number(numbers['spearman_kl_norm'].value, 2)}."
        ),
        x_label="‖ΔW‖ over all linear layers (Frobenius)",
        y_label="KL(base‖adapter) (nats/token)",
        series=_points(observations, norms, distances),
        x_scale="log",
        y_scale="log",
    )


def by_suite(observations: ForgettingObservations) -> present.Figure:
    """What the standard and the high-rate adapter forgot in each suite, with one standard error."""
    of, before = suites(observations), observations.scores[BASE].margin
    series, told = [], []
    for name in (observations.roles["standard"], observations.roles["high_rate"]):
        lost = [
            over_items((before - observations.scores[name].margin)[items]) for items in of.values()
        ]
        values, errors = [mean.value for mean in lost], [mean.stderr for mean in lost]
        band = (
            [v - e for v, e in zip(values, errors, strict=True)],
            [v + e for v, e in zip(values, errors, strict=True)],
        )
        series.append(present.Series(name, list(of), values, band=band, kind="bar"))
        told.append(
            f"{name} most in {list(of)[values.index(max(values))]} "
            f"({present.number(max(values), 2)})"
        )
    return present.Figure(
        name="suites",
        title="Forgetting by suite",
        caption=f"Margin lost in nats/byte, with one standard error over items: {'; '.join(told)}.",
        x_label="suite",
        y_label="forgetting (nats/byte)",
        series=tuple(series),
    )
