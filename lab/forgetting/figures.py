"""The figures of the forgetting study, with captions made from the numbers they show."""

from __future__ import annotations

from collections.abc import Mapping

from lab import present
from lab.contract import Measurement
from lab.forgetting.measured import BASE, ForgettingObservations
from lab.forgetting.numbers import Comparison, frontier_names, item_mean


def figures(
    observations: ForgettingObservations,
    comparisons: Mapping[str, Comparison],
    measurements: Mapping[str, Measurement],
) -> list[present.Figure]:
    """Return all figures of the report."""
    return [
        frontier(observations, comparisons),
        divergence(observations, comparisons, measurements),
        by_suite(observations),
    ]


def frontier(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> present.Figure:
    """Show what each adapter learned and forgot."""
    gains = {name: comparison.learning.value for name, comparison in comparisons.items()}
    losses = {name: comparison.forgetting.value for name, comparison in comparisons.items()}
    margin = 2 * max(comparison.forgetting.stderr for comparison in comparisons.values())
    return present.Figure(
        name="frontier",
        title="Learning against forgetting",
        caption=(
            "Right is more learned, up is more forgotten; the line joins rates in their order. "
            f"On the Pareto frontier: {', '.join(frontier_names(comparisons))}. Twice the standard "
            f"error of forgetting is at most {present.number(margin, 2)} nats/byte; points closer "
            "than that cannot be distinguished."
        ),
        x_label="learning: held-out loss taken off (nats/token)",
        y_label="forgetting: margin lost (nats/byte)",
        series=_adapter_series(observations, gains, losses),
    )


def divergence(
    observations: ForgettingObservations,
    comparisons: Mapping[str, Comparison],
    measurements: Mapping[str, Measurement],
) -> present.Figure:
    """Show how far each adapter is from the base on the base's text, against its update's norm."""
    norms = {name: comparison.norm for name, comparison in comparisons.items()}
    distances = {name: comparison.divergence.value for name, comparison in comparisons.items()}
    nearest = min(distances, key=lambda name: distances[name])
    farthest = max(distances, key=lambda name: distances[name])
    correlation = measurements["spearman_kl_norm"].value
    return present.Figure(
        name="divergence",
        title="Divergence from the base against the norm of the update",
        caption=(
            f"From {present.number(distances[nearest], 2)} to "
            f"{present.number(distances[farthest], 2)} nats/token while the norm goes from "
            f"{present.number(norms[nearest], 3)} to {present.number(norms[farthest], 3)}; "
            f"Spearman over the adapters {present.number(correlation, 2)}."
        ),
        x_label="‖ΔW‖ over all linear layers (Frobenius)",
        y_label="KL(base‖adapter) (nats/token)",
        series=_adapter_series(observations, norms, distances),
        x_scale="log",
        y_scale="log",
    )


def _adapter_series(
    observations: ForgettingObservations, x: Mapping[str, float], y: Mapping[str, float]
) -> tuple[present.Series, ...]:
    """Return one line through the adapters that differ in rate alone, and a point for each other.

    x, y: adapter -> value.
    """
    joined = observations.same_shape
    line = present.Series(
        f"{joined[0]} to {joined[-1]}", [x[name] for name in joined], [y[name] for name in joined]
    )
    points = [
        present.Series(name, [x[name]], [y[name]], kind="points")
        for name in x
        if name not in joined
    ]
    return (line, *points)


def by_suite(observations: ForgettingObservations) -> present.Figure:
    """Show what the standard and the high-rate adapter forgot per suite, with standard errors."""
    suites = observations.suites
    suite_names = list(suites)
    base = observations.scores[BASE].margin  # [items]
    series = []
    maxima = []
    for name in (observations.roles["standard"], observations.roles["high_rate"]):
        lost = base - observations.scores[name].margin
        means = [item_mean(lost[indices]) for indices in suites.values()]
        values = [mean.value for mean in means]
        error_bars = (
            [mean.value - mean.stderr for mean in means],
            [mean.value + mean.stderr for mean in means],
        )
        series.append(present.Series(name, suite_names, values, band=error_bars, kind="bar"))
        largest = max(values)
        suite = suite_names[values.index(largest)]
        maxima.append(f"{name} most in {suite} ({present.number(largest, 2)})")
    return present.Figure(
        name="suites",
        title="Forgetting by suite",
        caption=(
            f"Margin lost in nats/byte, with one standard error over items: {'; '.join(maxima)}."
        ),
        x_label="suite",
        y_label="forgetting (nats/byte)",
        series=tuple(series),
    )
