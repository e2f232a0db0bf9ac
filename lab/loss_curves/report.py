"""What the report of loss_curve_analysis says in rows and sentences.

Each sentence turns with its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.contract import Context, Measurement, Table
from lab.instruments import curves, gradient_noise
from lab.loss_curves.experiment import ON_A_LINE, POINTS, RATES, SHAPES, LossCurveObservations
from lab.loss_curves.numbers import compare, curve, thresholds
from lab.stats.tokens import token_mean

SMOOTH = 0.5  # share of a fall that happens between epochs where there is no staircase
WORDS = {
    "start": "before training",
    "low": "after 20 steps at the low rate",
    "healthy": "after the healthy run",
}


# Tables


def tables(ctx: Context, observations: LossCurveObservations) -> tuple[Table, ...]:
    """The runs, the batch sizes seed by seed, their tests, the gradients."""
    return (
        _shapes(ctx, observations),
        _seeds(ctx, observations),
        _tests(ctx, observations),
        _gradients(observations),
    )


def _shapes(ctx: Context, observations: LossCurveObservations) -> Table:
    columns = (
        "run",
        "rate",
        "batch",
        "steps",
        "examples",
        "held out: start",
        "lowest",
        "at step",
        "end",
    )
    rows = []
    for name in SHAPES:
        shown, trial = curve(ctx, observations, name), observations.shapes[name].trial
        smooth = curves.smoothed(shown.losses, shown.tokens, thresholds(ctx).beta)
        told = (
            name,
            trial.training.learning_rate,
            trial.training.batch_size,
            trial.training.steps,
            trial.examples,
        )
        held_out = (shown.held_out[0][1], shown.lowest[1], shown.lowest[0], shown.end)
        rise, fired = curves.largest_rise(smooth), curves.detected(shown, thresholds(ctx))
        rows.append((*told, *held_out, float(smooth[-1]), rise, "+".join(fired) or "none"))
    return Table(
        "Four shapes",
        (*columns, "training, smoothed: end", "largest rise", "detected"),
        tuple(rows),
    )


def _seeds(ctx: Context, observations: LossCurveObservations) -> Table:
    """Final loss per seed; the last two columns pair the examples of one seed's runs."""
    sizes, rows = ctx.config["batches"], []
    for rate in RATES:
        for seed in ctx.config["seeds"]:
            ran = [observations.grid[rate, size, seed].evaluation for size in sizes]
            change = token_mean(
                ran[-1].losses.astype(np.float64) - ran[0].losses, ran[0].example_ids
            )
            losses = [float(e.losses.mean(dtype="float64")) for e in ran]
            rows.append((ctx.config["rates"][rate], seed, *losses, change.value, change.stderr))
    named = [f"batch {size}" for size in sizes]
    columns = (
        "rate",
        "seed",
        *named,
        f"{sizes[-1]} - {sizes[0]}",
        "its standard error over examples",
    )
    return Table("Batch sizes at equal tokens: final held-out loss", columns, tuple(rows))


def _tests(ctx: Context, observations: LossCurveObservations) -> Table:
    sizes, rows = ctx.config["batches"], []
    for rate in RATES:
        for larger, smaller in ((sizes[1], sizes[0]), (sizes[2], sizes[1]), (sizes[2], sizes[0])):
            found = compare(ctx, observations, rate, larger, smaller)
            compared = f"{larger} - {smaller}"
            rows.append(
                (ctx.config["rates"][rate], compared, found.mean, *found.interval, found.p_value)
            )
    columns = ("rate", "batches", "mean difference", "95 % from", "to", "p (paired t over seeds)")
    return Table("Batch sizes, paired by seed", columns, tuple(rows))


def _gradients(observations: LossCurveObservations) -> Table:
    rows = []
    for point in POINTS:
        found = gradient_noise.noise(observations.products[point])
        rows.append((WORDS[point], found.signal, found.variance, found.scale, found.stderr))
    columns = (
        "when",
        "|G|², unbiased",
        "tr Σ, per example",
        "noise scale (examples)",
        "standard error",
    )
    return Table("Gradients of single examples", columns, tuple(rows))


# Sentences


def findings(ctx: Context, numbers: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Sentences that follow from the numbers, and turn with them."""
    q = present.quantity
    told = ", ".join(f"{name}: {numbers[f'detected_{name}'].value}" for name in SHAPES)
    eval_loss, gap = (numbers[name].value for name in ("eval_loss_overfitting", "overfit_gap"))
    known = float(eval_loss) - float(gap)  # type: ignore[arg-type]
    return (
        f"On {numbers['runs_told_apart'].value} of {len(SHAPES)} runs just the detector named "
        f"after it fired ({told}).",
        f"The overfitting run ends at {present.number(known, 3)} nats/token on its own examples "
        f"and at {q(numbers['eval_loss_overfitting'])} on held-out ones; on the curve's examples "
        f"{q(numbers['overfit_rise'])} above its lowest point.",
        _of_stairs(numbers["staircase_share"]),
        f"The diverging run's smoothed training loss rose by {q(numbers['divergence_rise'])}, with "
        f"finite numbers throughout; held out it ended at {q(numbers['eval_loss_diverging'])}, the "
        f"base has {q(numbers['base_loss'])}.",
        *(_of_rate(ctx, rate, numbers[f"batch_effect_{rate}"]) for rate in RATES),
        _of_growth(numbers),
        *(_of_line(ctx, name, numbers[f"line_minimum_{name}"]) for name in ON_A_LINE),
    )


def interval(measurement: Measurement) -> tuple[float, float] | None:
    """The 95 % interval value ± t(0.975, n − 1) · stderr, None where there is none."""
    from scipy.special import stdtrit

    if measurement.value is None or measurement.stderr is None or (measurement.n or 0) < 2:
        return None
    reach = float(stdtrit(measurement.n - 1, 0.975)) * measurement.stderr  # type: ignore[operator]
    return float(measurement.value) - reach, float(measurement.value) + reach


def side(measurement: Measurement, of: float) -> str:
    """Whether the interval lies "above", "below" or "around" a number ("around" without one)."""
    found = interval(measurement)
    if found is None or found[0] <= of <= found[1]:
        return "around"
    return "above" if found[0] > of else "below"


def _of_stairs(share: Measurement) -> str:
    if share.value is None:
        return (
            "After its first epoch its training loss fell no more, so there are no "
            "stairs to speak of."
        )
    name = {
        "above": "a staircase",
        "below": "the opposite of a staircase",
        "around": "not surely a staircase",
    }
    percent = 100 * float(share.value)  # type: ignore[arg-type]
    return (
        f"After its first epoch {present.number(percent, 3)} % "
        "of the fall of its training loss (relative to each batch's before training) happened "
        f"between epochs (a smooth fall: {100 * SMOOTH:.0f} %): {name[side(share, SMOOTH)]}."
    )


def _of_rate(ctx: Context, rate: str, effect: Measurement) -> str:
    sizes = ctx.config["batches"]
    verdict = {
        "above": f"batch {sizes[0]} learnt more from the same tokens",
        "below": f"batch {sizes[-1]} learnt more from the same tokens",
        "around": (
            f"{len(ctx.config['seeds'])} seeds do not tell which learns more from the same tokens"
        ),
    }[side(effect, 0.0)]
    return (
        f"At the rate {ctx.config['rates'][rate]:g} batch {sizes[-1]} ends "
        f"{present.quantity(effect)} above batch {sizes[0]} (negative: below), paired by "
        f"seed: {verdict}."
    )


def _of_growth(numbers: Mapping[str, Measurement]) -> str:
    start, end, growth = (
        numbers[n] for n in ("noise_scale_start", "noise_scale_healthy", "noise_growth")
    )
    if growth.value is None:
        return (
            "The gradients of single examples disagreed too much to tell their noise scale before "
            "or after training."
        )
    verdict = {"above": "grew", "below": "shrank", "around": "did not surely change"}[
        side(growth, 1.0)
    ]
    return (
        f"The gradient's noise scale {verdict}: {present.quantity(start)} before "
        f"training, {present.quantity(end)} after the healthy run, "
        f"{present.number(growth.value, 3)} times as large."
    )


def _of_line(ctx: Context, name: str, minimum: Measurement) -> str:
    told = (
        f"Along the {name} run's update the held-out loss is lowest at t = "
        f"{present.quantity(minimum)}: "
    )
    if minimum.value in {ctx.config["line"]["first"], ctx.config["line"]["last"]}:
        return told + "the end of the line, and the lowest place may lie beyond it."
    verdict = {
        "above": "it stopped short of the best place on its own way.",
        "below": "it went past the best place on its own way.",
        "around": "it ended where its own way is best, as far as these examples can tell.",
    }
    return told + verdict[side(minimum, 1.0)]
