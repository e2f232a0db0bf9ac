"""The tables of the rank comparison's report."""

from __future__ import annotations

import math
import statistics

import numpy as np

from lab.contract import Table
from lab.lora_rank import numbers
from lab.lora_rank.measured import LoraRankObservations

Row = tuple[str | float | None, ...]


def tables(observations: LoraRankObservations) -> tuple[Table, ...]:
    """Return all tables."""
    return (
        settings_table(observations),
        updates_table(observations),
        layer_kinds_table(observations),
        cuts_table(observations),
    )


def settings_table(observations: LoraRankObservations) -> Table:
    """Return what was trained, and the loss of each trial."""
    rows: list[Row] = []
    for name, results in observations.settings.items():
        lora = results[0].trial.lora
        losses = numbers.losses(results)
        size = (lora.r, lora.lora_alpha, lora.scale, observations.adapter_parameters[name])
        rows.append((name, *size, statistics.fmean(losses), *losses))
    first_results = next(iter(observations.settings.values()))
    seeds = [f"seed {result.trial.seed}" for result in first_results]
    return Table(
        title="Settings",
        columns=("setting", "rank", "alpha", "scale", "parameters", "loss", *seeds),
        rows=tuple(rows),
    )


def updates_table(observations: LoraRankObservations) -> Table:
    """Return size and shape of the updates: means over layers and seeds, norms of all layers."""
    spectra = observations.spectra
    weight_norm = math.sqrt(float((spectra.weight_norms**2).sum()))
    rows: list[Row] = []

    # 1. The adapters.
    for name, results in observations.settings.items():
        sizes = []
        for result in results:
            norms = numbers.update_norms(spectra.values[result.trial.name])  # [L]
            sizes.append(np.linalg.norm(norms) / weight_norm)
        stable = statistics.fmean(numbers.layer_means(observations, results, "stable"))
        energy = statistics.fmean(numbers.layer_means(observations, results, "energy"))
        amplification = statistics.fmean(
            numbers.layer_means(observations, results, "amplification")
        )
        against_random = weight_against_random(observations, name)
        rows.append((name, float(np.mean(sizes)), stable, energy, amplification, against_random))

    # 2. The full fine-tuning, which has no strongest directions of its own to compare.
    full = observations.full_tuning.values
    size = float(np.linalg.norm(numbers.update_norms(full)) / weight_norm)
    stable = float(numbers.spectrum_statistic(full, "stable").mean())
    energy = float(numbers.spectrum_statistic(full, "energy").mean())
    rows.append(("full", size, stable, energy, None, None))
    return Table(
        title="Updates",
        columns=(
            "setting",
            "norm / weights' norm",
            "stable rank",
            "energy rank",
            "amplification",
            "W against random",
        ),
        rows=tuple(rows),
    )


def weight_against_random(observations: LoraRankObservations, setting: str) -> float:
    """Return how many times more of W is in an update's strongest directions than in random ones.

    Random directions hold ‖W‖_F · k / √(m·n), in the root of the mean square. Mean over layers and
    seeds.
    """
    k = min(observations.by_rank)
    sides = np.sqrt(observations.full_tuning.shapes.prod(1))  # √(m·n), [L]
    chance = observations.spectra.weight_norms * k / sides  # [L]
    ratios = []
    for result in observations.settings[setting]:
        inside_norms = observations.spectra.inside_norms[result.trial.name]
        ratios.append(float((inside_norms / chance).mean()))
    return statistics.fmean(ratios)


def layer_kinds_table(observations: LoraRankObservations) -> Table:
    """Return the energy rank by kind of linear layer, mean over layers and seeds."""
    # 1. Energy rank of each layer [L], by rank of the adapter and of the full update.
    energy_ranks = {}
    for r, results in observations.by_rank.items():
        by_seed = [numbers.by_layer(observations, run.trial.name, "energy") for run in results]
        energy_ranks[f"r{r}"] = np.mean(by_seed, axis=0)
    full = observations.full_tuning
    energy_ranks["full"] = numbers.spectrum_statistic(full.values, "energy")

    # 2. One row per kind of layer.
    rows: list[Row] = []
    for kind in dict.fromkeys(full.kinds):
        layers = [i for i, layer_kind in enumerate(full.kinds) if layer_kind == kind]
        possible = int(full.largest_ranks[layers[0]])
        means = [float(by_layer[layers].mean()) for by_layer in energy_ranks.values()]
        rows.append((kind, possible, *means))
    return Table(
        title="Energy rank by kind of layer",
        columns=("layer", "rank possible", *energy_ranks),
        rows=tuple(rows),
    )


def cuts_table(observations: LoraRankObservations) -> Table:
    """Return loss and improvement kept of full fine-tuning's update, whole and in parts."""
    base_loss = float(observations.base.losses.mean(dtype="float64"))
    rows: list[Row] = [("none", base_loss, 0.0)]
    for name, evaluation in observations.full_tuning.evaluations.items():
        loss = float(evaluation.losses.mean(dtype="float64"))
        rows.append((name, loss, numbers.share_kept(observations, name).value))
    return Table(
        title="Full fine-tuning, cut",
        columns=("part of the update", "loss", "improvement kept"),
        rows=tuple(rows),
    )
