"""The figures of the rank comparison's report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Literal

import numpy as np

from lab.contract import Measurement
from lab.lora_rank import numbers
from lab.lora_rank.measured import CONVENTIONS, LoraRankObservations
from lab.present import Figure, Series, number

CONVENTION_LABELS = {"alpha_fixed": "alpha fixed", "alpha_2r": "alpha = 2r", "rslora": "rsLoRA"}
SIDE_LABELS = {
    "left": "left side of ΔW",
    "right": "right side of ΔW",
    "learned": "A without its start",
    "null": "random",
}


def figures(
    observations: LoraRankObservations, measurements: Mapping[str, Measurement]
) -> list[Figure]:
    """Return all figures of the report."""
    return [
        loss_figure(observations),
        first_step_figure(observations, measurements),
        energy_figure(observations),
        overlap_figure(observations),
        cut_figure(observations),
    ]


def loss_figure(observations: LoraRankObservations) -> Figure:
    """Return held-out loss against rank, every trial a point."""
    # 1. The ranks: points of every seed, and the line through their means, in one colour.
    losses_by_rank = {r: numbers.losses(runs) for r, runs in observations.by_rank.items()}
    ranks = list(losses_by_rank)
    means = [statistics.fmean(losses) for losses in losses_by_rank.values()]
    point_ranks: list[float] = []
    point_losses: list[float] = []
    for r, losses in losses_by_rank.items():
        point_ranks += [r] * len(losses)
        point_losses += losses
    fixed = CONVENTION_LABELS["alpha_fixed"]
    series = [
        Series(f"{fixed}, one seed", point_ranks, point_losses, kind="points", group=fixed),
        Series(f"{fixed}, mean", ranks, means, group=fixed),
    ]

    # 2. The largest rank with other scales.
    for name in ("alpha_2r", "rslora"):
        runs = observations.settings[name]
        label = f"{CONVENTION_LABELS[name]}, one seed"
        largest = [runs[0].trial.lora.r] * len(runs)
        series.append(Series(label, largest, numbers.losses(runs), kind="points"))

    # 3. The full fine-tuning, which has no rank.
    full = float(observations.full_tuning.evaluations["full"].losses.mean(dtype="float64"))
    ends = [min(ranks), max(ranks)]
    series.append(Series("full fine-tuning, one seed", ends, [full, full], style="dashed"))

    base = float(observations.base.losses.mean(dtype="float64"))
    return Figure(
        name="loss_by_rank",
        title="Held-out loss by rank",
        caption=(
            f"With alpha fixed the means over seeds are between {number(min(means))} and "
            f"{number(max(means))} nats/token, the base at {number(base)}; full fine-tuning at "
            f"{number(full)}. Points of one rank differ by seed alone."
        ),
        x_label="rank r",
        y_label="loss (nats/token)",
        x_scale="log",
        series=tuple(series),
    )


def first_step_figure(
    observations: LoraRankObservations, measurements: Mapping[str, Measurement]
) -> Figure:
    """Return how far the first step goes along the gradient."""
    ranks = list(observations.by_rank)
    descent = numbers.relative_descent(observations.first_step).mean(0)  # [3, ranks]
    slopes = []
    series = []
    for i, name in enumerate(CONVENTIONS):
        label = CONVENTION_LABELS[name]
        slope = measurements[f"first_step_slope_{name}"].number
        slopes.append(f"{number(slope, 3)} with {label}")
        series.append(Series(label, ranks, descent[i].tolist()))
    return Figure(
        name="first_step",
        title="First step along the gradient (derivation checked)",
        caption=(
            f"Slopes on these logarithmic axes: {', '.join(slopes)}. Where two lines cross, their "
            "scales are the same number. Mean over seeds."
        ),
        x_label="rank r",
        y_label="⟨ΔW, −G⟩ / ‖G‖",
        x_scale="log",
        y_scale="log",
        series=tuple(series),
    )


def energy_shares(values: np.ndarray) -> np.ndarray:
    """Return the share of ‖ΔW‖_F² in the first 1, 2, … directions: [k] from [L, k].

    Mean over layers.
    """
    squares = values.astype(np.float64) ** 2
    shares: np.ndarray = (squares.cumsum(1) / squares.sum(1, keepdims=True)).mean(0)
    return shares


def energy_figure(observations: LoraRankObservations) -> Figure:
    """Return how many directions hold how much of the updates."""
    series = []
    for r, runs in observations.by_rank.items():
        by_seed = [energy_shares(observations.spectra.values[run.trial.name]) for run in runs]
        shares = np.mean(by_seed, axis=0)  # [r]
        series.append(Series(f"LoRA, r = {r}", range(1, r + 1), shares.tolist()))
    full = energy_shares(observations.full_tuning.values)
    directions = range(1, len(full) + 1)
    series.append(Series("full fine-tuning", directions, full.tolist(), style="dashed"))

    # The caption compares all at 8 directions, or at the last one where there are fewer.
    eighth = min(8, len(full)) - 1
    in_first_8 = []
    for one in series:
        share = one.y[min(eighth, len(one.y) - 1)]
        in_first_8.append(f"{one.label} {number(100 * share, 3)} %")
    return Figure(
        name="energy",
        title="Directions that hold an update",
        caption=(
            "Share of ‖ΔW‖² in the first 8 directions, mean over layers and seeds: "
            f"{', '.join(in_first_8)}."
        ),
        x_label="strongest directions",
        y_label="share of ‖ΔW‖²",
        x_scale="log",
        series=tuple(series),
    )


def overlap_figure(observations: LoraRankObservations) -> Figure:
    """Return what the smallest and the largest rank have in common."""
    smallest = min(observations.by_rank)
    largest = max(observations.by_rank)
    first_directions = []
    series = []
    for side, overlap in observations.spectra.overlaps.items():
        label = SIDE_LABELS[side]
        mean = overlap.mean((0, 1), dtype=np.float64)  # [seeds, L, k] -> [k]
        first_directions.append(f"{label} {number(float(mean[0]), 3)}")
        style: Literal["solid", "dashed"] = "solid"
        if side == "null":
            style = "dashed"
        series.append(Series(label, range(1, len(mean) + 1), mean.tolist(), style=style))
    return Figure(
        name="overlap",
        title=f"Subspaces of r = {smallest} and r = {largest} in common",
        caption=(
            "φ(i, i) of the i strongest directions, mean over layers and seeds. At i = 1: "
            f"{', '.join(first_directions)}. Random subspaces have i / d, d being the layer's "
            "width."
        ),
        x_label="directions i",
        y_label="φ(i, i)",
        series=tuple(series),
    )


def cut_figure(observations: LoraRankObservations) -> Figure:
    """Return what parts of the full update achieve."""
    parts = [name for name in observations.full_tuning.evaluations if name != "full"]
    percents = []
    lower = []
    upper = []
    labels = []
    for part in parts:
        share = numbers.share_kept(observations, part)
        percents.append(100 * share.value)
        lower.append(100 * (share.value - share.stderr))
        upper.append(100 * (share.value + share.stderr))
        labels.append(f"{part} {number(100 * share.value, 3)} %")
    return Figure(
        name="cut",
        title="Full fine-tuning's update, cut to few directions",
        caption=(
            f"Of the whole update's improvement remain: {', '.join(labels)}. Error bars: one "
            "standard error over examples."
        ),
        x_label="part of the update, per layer",
        y_label="improvement kept (%)",
        series=(Series("kept", parts, percents, band=(lower, upper), kind="bar"),),
    )
