"""From what loss_curve_analysis measured to its result: arrays on disk and named numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Context, Measurement, environment
from lab.instruments import curves, gradient_noise
from lab.instruments.curves import Curve, Thresholds
from lab.instruments.landscape import lowest
from lab.loss_curves.experiment import ON_A_LINE, POINTS, RATES, LossCurveObservations
from lab.stats.jackknife import jackknife
from lab.stats.paired import Paired, paired
from lab.stats.tokens import token_mean

if TYPE_CHECKING:
    from lab.instruments.trials import TrialResult


def store(ctx: Context, observations: LossCurveObservations) -> None:
    """Write what the trials' own files do not hold."""
    artifacts = ctx.out / "artifacts"
    names = {name: ran.trial.name for name, ran in observations.shapes.items()}
    (artifacts / "shapes.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    repeated = {
        "losses": observations.repeated.losses,
        "example_ids": observations.repeated.example_ids,
    }
    _save(repeated, artifacts / "repeated_base.safetensors")
    _save(
        {"at": np.array(observations.at)} | dict(observations.lines), artifacts / "line.safetensors"
    )
    _save(observations.products, artifacts / "gradient_products.safetensors")


def _save(arrays: Mapping[str, np.ndarray], path: Any) -> None:
    from safetensors.numpy import save_file

    # safetensors writes an array's memory as it lies: of a transposed or strided one, other numbers
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    path.chmod(0o644)  # safetensors makes it private to its owner


# What the numbers are made of


def thresholds(ctx: Context) -> Thresholds:
    """Those of the config."""
    return Thresholds(**ctx.config["detectors"])


def curve(ctx: Context, observations: LossCurveObservations, shape: str) -> Curve:
    """The curve of a shape's run; its ends come from evaluating the base and the trained model."""
    ran, count = observations.shapes[shape], ctx.config["data"]["curve"]
    ends = (_curve_loss(observations, e.losses, count) for e in (observations.base, ran.evaluation))
    first, last = next(ends), next(ends)
    held_out = ((0, first), *ran.curve, (len(ran.steps), last))
    return Curve([s.loss for s in ran.steps], [s.supervised_tokens for s in ran.steps], held_out)


def _curve_loss(observations: LossCurveObservations, losses: np.ndarray, count: int) -> float:
    return float(losses[observations.base.example_ids < count].mean(dtype="float64"))


def final(ran: TrialResult) -> float:
    """Mean held-out loss of a trial, over all evaluation tokens."""
    return float(ran.evaluation.losses.mean(dtype="float64"))


def seeds(ctx: Context, observations: LossCurveObservations, rate: str, size: int) -> list[float]:
    """Final losses of a batch size and rate, one per seed."""
    return [final(observations.grid[rate, size, seed]) for seed in ctx.config["seeds"]]


def compare(
    ctx: Context, observations: LossCurveObservations, rate: str, larger: int, smaller: int
) -> Paired:
    """Loss of the larger batches minus that of the smaller ones, seed by seed."""
    return paired(seeds(ctx, observations, rate, larger), seeds(ctx, observations, rate, smaller))


def steps_of_an_epoch(ran: TrialResult) -> int:
    """Optimizer steps in which a trial sees each of its examples once."""
    return ran.trial.examples // ran.trial.training.batch_size


# The numbers


def measurements(ctx: Context, observations: LossCurveObservations) -> dict[str, Measurement]:
    """All numbers by name."""
    return (
        _of_shapes(ctx, observations)
        | _of_overfitting(ctx, observations)
        | _of_batches(ctx, observations)
        | _of_noise(observations)
        | _of_lines(ctx, observations)
    )


def _of_shapes(ctx: Context, observations: LossCurveObservations) -> dict[str, Measurement]:
    numbers = {"base_loss": _mean(observations.base.losses, observations.base.example_ids)}
    fired = {}
    for name, ran in observations.shapes.items():
        numbers[f"eval_loss_{name}"] = _mean(ran.evaluation.losses, ran.evaluation.example_ids)
        fired[name] = curves.detected(curve(ctx, observations, name), thresholds(ctx))
        numbers[f"detected_{name}"] = Measurement.of_exact("+".join(fired[name]) or "none")
    alone = sum(found == (name,) for name, found in fired.items())
    diverging = curve(ctx, observations, "diverging")
    smooth = curves.smoothed(diverging.losses, diverging.tokens, thresholds(ctx).beta)
    rise = Measurement.of_estimate(curves.largest_rise(smooth), "nats/token")
    return numbers | {
        "runs_told_apart": Measurement.of_exact(alone, "runs"),
        "divergence_rise": rise,
    }


def _mean(losses: np.ndarray, example_ids: np.ndarray) -> Measurement:
    found = token_mean(losses.astype(np.float64), example_ids)
    return Measurement.of_estimate(found.value, "nats/token", stderr=found.stderr, n=found.n)


def _of_overfitting(ctx: Context, observations: LossCurveObservations) -> dict[str, Measurement]:
    ran, shown = observations.shapes["overfitting"], curve(ctx, observations, "overfitting")
    epoch = steps_of_an_epoch(ran)
    known = sum(s.loss * s.supervised_tokens for s in ran.steps[-epoch:])
    known /= sum(s.supervised_tokens for s in ran.steps[-epoch:])
    held_out = token_mean(ran.evaluation.losses.astype(np.float64), ran.evaluation.example_ids)
    found = curves.staircase(shown.losses, before(observations), epoch)
    return {
        "overfit_rise": Measurement.of_estimate(shown.end - shown.lowest[1], "nats/token"),
        # the training examples are all there are, so their mean has no standard error of its own
        "overfit_gap": Measurement.of_estimate(
            held_out.value - known, "nats/token", stderr=held_out.stderr, n=held_out.n
        ),
        "staircase_share": Measurement.of_estimate(found.value, "", stderr=found.stderr, n=found.n)
        if found
        else Measurement.of_estimate(None, ""),
    }


def before(observations: LossCurveObservations) -> list[float]:
    """The base's loss on the batch of each step of the overfitting run, in nats/token."""
    ran, repeated = observations.shapes["overfitting"], observations.repeated
    size, losses = ran.trial.training.batch_size, repeated.losses.astype(np.float64)
    batches = [
        losses[(repeated.example_ids // size) == place].mean()
        for place in range(steps_of_an_epoch(ran))
    ]
    return [float(batches[step % len(batches)]) for step in range(len(ran.steps))]


def _of_batches(ctx: Context, observations: LossCurveObservations) -> dict[str, Measurement]:
    numbers, sizes = {}, ctx.config["batches"]
    for rate in RATES:
        for size in sizes:
            numbers[f"eval_loss_b{size}_{rate}"] = Measurement.of_sample(
                seeds(ctx, observations, rate, size), "nats/token"
            )
    for rate in RATES:
        found = compare(ctx, observations, rate, sizes[-1], sizes[0])
        numbers[f"batch_effect_{rate}"] = Measurement.of_sample(found.differences, "nats/token")
    return numbers


def _of_noise(observations: LossCurveObservations) -> dict[str, Measurement]:
    numbers = {}
    for point in POINTS:
        found = gradient_noise.noise(observations.products[point])
        count = len(observations.products[point])
        numbers[f"noise_scale_{point}"] = Measurement.of_estimate(
            found.scale, "examples", stderr=found.stderr, n=count
        )
    value, stderr = gradient_noise.growth(
        observations.products["start"], observations.products["healthy"]
    )
    return numbers | {
        "noise_growth": Measurement.of_estimate(value, "times", stderr=stderr, n=count)
    }


def _of_lines(ctx: Context, observations: LossCurveObservations) -> dict[str, Measurement]:
    count, numbers = ctx.config["data"]["curve"], {}
    example_ids = observations.base.example_ids[observations.base.example_ids < count]
    for name in ON_A_LINE:
        # [len(at), examples]
        sums = np.stack([np.bincount(example_ids, weights=row) for row in observations.lines[name]])
        tokens = np.bincount(example_ids)

        def minimum(
            kept: np.ndarray, sums: np.ndarray = sums, tokens: np.ndarray = tokens
        ) -> float:
            return lowest(observations.at, sums[:, kept].sum(1) / tokens[kept].sum())

        numbers[f"line_minimum_{name}"] = Measurement.of_estimate(
            minimum(np.arange(count)), "updates", stderr=jackknife(count, minimum), n=count
        )
    return numbers


def facts(ctx: Context, observations: LossCurveObservations) -> dict[str, Any]:
    """What a reader must know to repeat the run."""
    from lab.digests import digest_of

    data = {
        name: digest_of(ctx.out / "artifacts" / f"{name}.jsonl") for name in ("train", "evaluation")
    }
    return environment(
        ctx,
        packages=("torch", "transformers", "peft"),
        model=ctx.config["model"],
        model_sha256=observations.sweep_settings["model_sha256"],
        data=data,
        device=ctx.config["device"],
        dtype=ctx.config["dtype"],
        config=dict(ctx.config),
    )
