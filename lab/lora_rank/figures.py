"""The figures of the rank comparison's report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lab import present
from lab.contract import Measurement
from lab.lora_rank import numbers as report
from lab.lora_rank.first_step import CONVENTIONS

if TYPE_CHECKING:
    from lab.lora_rank.experiment import LoraRankObservations

WORDS = {"alpha_fixed": "alpha fixed", "alpha_2r": "alpha = 2r", "rslora": "rsLoRA"}
SIDES = {
    "left": "left side of ΔW",
    "right": "right side of ΔW",
    "learned": "A without its start",
    "null": "random",
}


def figures(
    observations: LoraRankObservations, numbers: Mapping[str, Measurement]
) -> list[present.Figure]:
    """All figures of the report."""
    return [
        loss(observations),
        first_step(observations, numbers),
        energy(observations),
        overlap(observations),
        cut(observations),
    ]


def loss(observations: LoraRankObservations) -> present.Figure:
    """Held-out loss against rank, every trial a point."""
    ranks = report.ranks(observations)
    points = [(r, value) for r, row in ranks.items() for value in report.losses(row)]
    means = [statistics.fmean(report.losses(row)) for row in ranks.values()]
    series = [
        present.Series("alpha fixed, one seed", *zip(*points, strict=True), kind="points"),
        present.Series("alpha fixed, mean", list(ranks), means),
    ]
    for name in ("alpha_2r", "rslora"):
        found = report.losses(observations.settings[name])
        at = [observations.settings[name][0].trial.lora.r] * len(found)
        series.append(present.Series(f"{WORDS[name]}, one seed", at, found, kind="points"))
    full = float(observations.full.evaluations["full"].losses.mean(dtype="float64"))
    series.append(
        present.Series(
            "full fine-tuning, one seed", [min(ranks), max(ranks)], [full, full], style="dashed"
        )
    )
    base = float(observations.base.losses.mean(dtype="float64"))
    low, high = min(means), max(means)
    return present.Figure(
        name="loss_by_rank",
        title="Held-out loss by rank",
        caption=(
            f"With alpha fixed the means over seeds lie between {present.number(low)} and "
            f"{present.number(high)} nats/token, the base at {present.number(base)}; full "
            f"fine-tuning at {present.number(full)}. Points of one rank differ by seed alone."
        ),
        x_label="rank r",
        y_label="loss (nats/token)",
        x_scale="log",
        series=tuple(series),
    )


def along(observations: LoraRankObservations) -> np.ndarray:
    """⟨ΔW, −G⟩ / ‖G‖ over all layers, mean over seeds: [3, ranks]."""
    first = observations.first
    return (first.along.sum(-1) / np.sqrt((first.gradient**2).sum(-1))[:, None, None]).mean(0)


def first_step(
    observations: LoraRankObservations, numbers: Mapping[str, Measurement]
) -> present.Figure:
    """How far the first step goes along the gradient."""
    ranks, found = list(report.ranks(observations)), along(observations)
    told = ", ".join(
        f"{present.number(numbers[f'first_step_slope_{name}'].value, 3)} with {WORDS[name]}"
        for name in CONVENTIONS
    )
    return present.Figure(
        name="first_step",
        title="First step along the gradient (derivation checked)",
        caption=(
            f"Slopes on these logarithmic axes: {told}. Where two lines cross, their scales are "
            "the same number. Mean over seeds."
        ),
        x_label="rank r",
        y_label="⟨ΔW, −G⟩ / ‖G‖",
        x_scale="log",
        y_scale="log",
        series=tuple(
            present.Series(WORDS[name], ranks, found[i].tolist())
            for i, name in enumerate(CONVENTIONS)
        ),
    )


def held(values: np.ndarray) -> np.ndarray:
    """Share of ‖ΔW‖_F² in the first 1, 2, … directions, mean over layers: [k] from [L, k]."""
    squares = values.astype(np.float64) ** 2
    return (squares.cumsum(1) / squares.sum(1, keepdims=True)).mean(0)


def energy(observations: LoraRankObservations) -> present.Figure:
    """How many directions hold how much of the updates."""
    series = []
    for r, row in report.ranks(observations).items():
        found = np.mean([held(observations.found.values[ran.trial.name]) for ran in row], axis=0)
        series.append(present.Series(f"LoRA, r = {r}", range(1, r + 1), found.tolist()))
    full = held(observations.full.values)
    series.append(
        present.Series("full fine-tuning", range(1, len(full) + 1), full.tolist(), style="dashed")
    )
    eighth = min(8, len(full)) - 1
    told = ", ".join(
        f"{s.label} {present.number(100 * s.y[min(eighth, len(s.y) - 1)], 3)} %" for s in series
    )
    return present.Figure(
        name="energy",
        title="Directions that hold an update",
        caption=f"Share of ‖ΔW‖² in the first 8 directions, mean over layers and seeds: {told}.",
        x_label="strongest directions",
        y_label="share of ‖ΔW‖²",
        x_scale="log",
        series=tuple(series),
    )


def overlap(observations: LoraRankObservations) -> present.Figure:
    """What the smallest and the largest rank have in common."""
    means = {
        side: found.mean((0, 1), dtype=np.float64)
        for side, found in observations.found.overlaps.items()
    }
    small, large = min(report.ranks(observations)), max(report.ranks(observations))
    told = ", ".join(
        f"{SIDES[side]} {present.number(float(found[0]), 3)}" for side, found in means.items()
    )
    return present.Figure(
        name="overlap",
        title=f"Subspaces of r = {small} and r = {large} in common",
        caption=(
            f"φ(i, i) of the i strongest directions, mean over layers and seeds. At i = 1: {told}. "
            "Random subspaces have i / d, d being the layer's width."
        ),
        x_label="directions i",
        y_label="φ(i, i)",
        series=tuple(
            present.Series(
                SIDES[side],
                range(1, len(found) + 1),
                found.tolist(),
                style="dashed" if side == "null" else "solid",
            )
            for side, found in means.items()
        ),
    )


def cut(observations: LoraRankObservations) -> present.Figure:
    """What parts of the full update achieve."""
    parts = [name for name in observations.full.evaluations if name != "full"]
    found = [report.kept(observations, name) for name in parts]
    shares = [100 * f.value for f in found]
    band = (
        [100 * (f.value - f.stderr) for f in found],
        [100 * (f.value + f.stderr) for f in found],
    )
    told = ", ".join(
        f"{name} {present.number(share, 3)} %" for name, share in zip(parts, shares, strict=True)
    )
    return present.Figure(
        name="cut",
        title="Full fine-tuning's update, cut down",
        caption=(
            f"Of the whole update's improvement remain: {told}. Error bars: one standard "
            "error over examples."
        ),
        x_label="part of the update, per layer",
        y_label="improvement kept (%)",
        series=(present.Series("kept", parts, shares, band=band, kind="bar"),),
    )
