"""The figures of the comparison. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.attention_comparison.measured import ComparisonObservations
from lab.attention_comparison.numbers import course, movement, prompt_mean, rise
from lab.contract import Measurement

SHOWN = 6  # panels of the film strip
MILLINATS = "movement (thousandths of a nat)"


def figures(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure | present.Heatmap]:
    """Return all figures of the report."""
    return [
        moved_figure(observations, measurements),
        layers_figure(observations),
        ablation_figure(observations, measurements),
        over_time_figure(observations, measurements),
        strip_figure(observations, measurements),
    ]


def moved_figure(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> present.Heatmap:
    """Show every head's movement beside both nulls, in one colour range."""
    moves = movement(observations)
    panels = (
        present.Panel("base against tuned", _grid(observations, moves.tuned)),
        present.Panel("seed against seed", _grid(observations, moves.seeds)),
        present.Panel("base against random", _grid(observations, moves.random)),
    )
    return present.Heatmap(
        name="moved",
        title="How far each head moved, beside what chance does",
        caption=(
            f"Mean Jensen-Shannon divergence per head: "
            f"{_milli(measurements['js_tuned'])} between base and tuned, "
            f"{_milli(measurements['js_seeds'])} between two seeds, "
            f"{_milli(measurements['js_random'])} between base and a random update of equal norm "
            f"(thousandths of a nat). {measurements['most_moved_head'].value} moved furthest; "
            f"{measurements['heads_moved'].value} of {measurements['heads'].value} heads are above "
            "both nulls."
        ),
        x_label="head",
        y_label="layer",
        value_label=MILLINATS,
        panels=panels,
        low=0.0,
    )


def _milli(measurement: Measurement) -> str:
    return present.number(1000 * measurement.number, 3)


def _grid(observations: ComparisonObservations, values: np.ndarray) -> list[list[float]]:
    """Return [H, P] in nats as layers × heads, mean over prompts, in thousandths."""
    plan = observations.plan
    grid: list[list[float]] = (
        (1000 * values.mean(1)).reshape(plan.layers, plan.heads_per_layer).tolist()
    )
    return grid


def layers_figure(observations: ComparisonObservations) -> present.Figure:
    """Show the movement of each layer, mean over its heads, with its nulls."""
    plan = observations.plan
    moves = movement(observations)
    lines = {
        "base against tuned": moves.tuned,
        "seed against seed": moves.seeds,
        "base against random": moves.random,
    }
    series = []
    furthest = []
    for label, values in lines.items():
        by_layer = values.reshape(plan.layers, plan.heads_per_layer, -1).mean(1)  # [L, P]
        means = [prompt_mean(1000 * row) for row in by_layer]
        y = [mean.value for mean in means]
        low = [mean.value - mean.stderr for mean in means]
        high = [mean.value + mean.stderr for mean in means]
        series.append(present.Series(label, range(plan.layers), y, band=(low, high)))
        furthest.append(f"{label} in layer {int(np.argmax(y))} ({present.number(max(y), 3)})")
    return present.Figure(
        name="layers",
        title="Movement of attention by layer",
        caption=(
            f"Mean over a layer's heads, bands ± 1 standard error over "
            f"{len(observations.kinds)} prompts. Largest: {'; '.join(furthest)}. "
            "Logarithmic scale."
        ),
        x_label="layer",
        y_label=MILLINATS,
        y_scale="log",
        series=tuple(series),
    )


def ablation_figure(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show what the heads that moved most are worth, beside random heads, in both models."""
    ablation = observations.ablation
    examples = observations.token_examples
    rises = {"tuned": rise(ablation.tuned, examples), "base": rise(ablation.base, examples)}
    names = list(rises)
    moved = [one.moved for one in rises.values()]
    random = [one.random for one in rises.values()]
    series = (
        present.Series(
            "heads that moved most",
            names,
            [mean.value for mean in moved],
            band=(
                [mean.value - mean.stderr for mean in moved],
                [mean.value + mean.stderr for mean in moved],
            ),
            kind="bar",
        ),
        present.Series(
            "random heads",
            names,
            [sum(draws) / len(draws) for draws in random],
            band=([min(draws) for draws in random], [max(draws) for draws in random]),
            kind="bar",
        ),
    )
    tuned, base = measurements["ablation_excess_tuned"], measurements["ablation_excess_base"]
    return present.Figure(
        name="ablation",
        title="Task loss without some heads",
        caption=(
            f"Rise of the held-out loss without the {observations.plan.moved} heads that moved "
            f"most, and without each of {observations.plan.ablation_draws} random sets of as many "
            "others (bars: ± 1 standard error over examples; from the least to the largest set). "
            f"Moved minus random: {present.quantity(tuned)} in the tuned model, "
            f"{present.quantity(base)} in the base."
        ),
        x_label="model",
        y_label="rise of the loss (nats/token)",
        series=series,
    )


def over_time_figure(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show the way of the loss and that of attention, each as a share of its end."""
    seen = course(observations)
    series = [_way("loss", seen.steps, seen.fall), _way("attention", seen.steps, seen.attention)]
    end = float(seen.attention[-1])
    if end > 0:
        share = (seen.random / end).tolist()
        random = present.Series("attention, random update", seen.steps, share, style="dashed")
        series.append(random)
    loss, attention = measurements["loss_half_step"], measurements["attention_half_step"]
    return present.Figure(
        name="over_time",
        title="Does the loss know before attention moves?",
        caption=(
            "Share of the whole fall of the held-out loss, and of the whole movement of attention, "
            f"at each snapshot. Half of the way: the loss at step {present.number(loss.value, 3)}, "
            f"attention at step {present.number(attention.value, 3)}. The dashed line is a random "
            "update of the same norms, as a share of the trained one's end."
        ),
        x_label="optimizer step",
        y_label="share of the way",
        series=tuple(series),
    )


def _way(label: str, steps: tuple[int, ...], values: np.ndarray) -> present.Series:
    """Return values as shares of the last; as they are if that is 0."""
    end = float(values[-1])
    shares = values / end if end else values
    return present.Series(label, steps, shares.tolist())


def strip_figure(
    observations: ComparisonObservations, measurements: Mapping[str, Measurement]
) -> present.Heatmap:
    """Show the heads' movement at some snapshots, the first and the last among them."""
    plan = observations.plan
    trained = observations.snapshots.trained
    count = min(SHOWN, len(trained))
    shown = np.unique(np.linspace(0, len(trained) - 1, count).round().astype(int)).tolist()
    panels = []
    for i in shown:
        label = f"step {plan.steps[i]}"
        panels.append(present.Panel(label, _grid(observations, trained[i].divergence)))
    correlation = measurements["early_late_correlation"]
    return present.Heatmap(
        name="heads_over_time",
        title="Which heads move first",
        caption=(
            f"Movement from the base at {len(shown)} of {len(trained)} snapshots of one training. "
            "Between the first and the last snapshot the order of the heads has a rank correlation "
            f"of {present.number(correlation.value, 3)}; a head was above the random update for "
            f"the first time at step {_step(measurements['first_step_moved'])}."
        ),
        x_label="head",
        y_label="layer",
        value_label=MILLINATS,
        panels=tuple(panels),
        low=0.0,
    )


def _step(measurement: Measurement) -> str:
    return "none" if measurement.value is None else str(measurement.value)
