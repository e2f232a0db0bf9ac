"""The tables of the rank comparison's report."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import numpy as np

from lab.contract import Table
from lab.lora_rank import numbers as report

if TYPE_CHECKING:
    from lab.lora_rank.experiment import LoraRankObservations


def tables(observations: LoraRankObservations) -> tuple[Table, ...]:
    """All tables."""
    return settings(observations), updates(observations), kinds(observations), cuts(observations)


def settings(observations: LoraRankObservations) -> Table:
    """What was trained, and how it ended."""
    rows = []
    for name, row in observations.settings.items():
        lora, found = row[0].trial.lora, report.losses(row)
        rows.append(
            (
                name,
                lora.r,
                lora.lora_alpha,
                lora.scale,
                report.parameters(row),
                statistics.fmean(found),
                *found,
            )
        )
    seeds = [f"seed {ran.trial.seed}" for ran in observations.settings[rows[0][0]]]
    return Table(
        "Settings", ("setting", "rank", "alpha", "scale", "parameters", "loss", *seeds), tuple(rows)
    )


def updates(observations: LoraRankObservations) -> Table:
    """The updates' size and shape: means over layers and seeds, the norm of all layers together."""
    rows: list[tuple[str | float | None, ...]] = []
    weights = math.sqrt(float((observations.found.weights**2).sum()))
    for name, row in observations.settings.items():
        sizes = [
            np.linalg.norm(report.norms(observations.found.values[ran.trial.name])) / weights
            for ran in row
        ]
        means = [
            statistics.fmean(report.over_layers(observations, row, what))
            for what in ("stable", "energy", "amplification")
        ]
        rows.append((name, float(np.mean(sizes)), *means, against_random(observations, name)))
    full = observations.full.values
    shapes = [float(report.of_spectra(full, what).mean()) for what in ("stable", "energy")]
    rows.append(("full", float(np.linalg.norm(report.norms(full)) / weights), *shapes, None, None))
    columns = (
        "setting",
        "norm / weights' norm",
        "stable rank",
        "energy rank",
        "amplification",
        "W against random",
    )
    return Table("Updates", columns, tuple(rows))


def against_random(observations: LoraRankObservations, setting: str) -> float:
    """How much more of W an update's strongest directions hold than random ones, in the mean."""
    chance = (
        observations.found.weights
        * report.strongest(observations)
        / np.sqrt(observations.full.shapes.prod(1))
    )
    found = []
    for ran in observations.settings[setting]:
        inside = observations.found.inside[ran.trial.name]
        found.append(float((inside / chance).mean()))
    return statistics.fmean(found)


def kinds(observations: LoraRankObservations) -> Table:
    """Energy rank by kind of linear layer, mean over layers and seeds."""
    names, full = observations.full.kinds, report.of_spectra(observations.full.values, "energy")
    of_rank = {
        r: np.mean([report.by_layer(observations, ran.trial.name, "energy") for ran in row], axis=0)
        for r, row in report.ranks(observations).items()
    }
    rows = []
    for kind in dict.fromkeys(names):
        at = [i for i, name in enumerate(names) if name == kind]
        possible = int(observations.full.sides[at[0]])
        rows.append(
            (
                kind,
                possible,
                *(float(e[at].mean()) for e in of_rank.values()),
                float(full[at].mean()),
            )
        )
    columns = ("layer", "rank possible", *(f"r{r}" for r in of_rank), "full")
    return Table("Energy rank by kind of layer", columns, tuple(rows))


def cuts(observations: LoraRankObservations) -> Table:
    """Full fine-tuning's update, whole and in parts."""
    rows = []
    for name, found in observations.full.evaluations.items():
        rows.append(
            (name, float(found.losses.mean(dtype="float64")), report.kept(observations, name).value)
        )
    base = float(observations.base.losses.mean(dtype="float64"))
    return Table(
        "Full fine-tuning, cut",
        ("part of the update", "loss", "improvement kept"),
        (("none", base, 0.0), *rows),
    )
