"""The measurements of the rank comparison: pure functions of what was observed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from lab.contract import Measurement
from lab.lora_rank.measured import CONVENTIONS, FirstStep, LoraRankObservations
from lab.stats.paired import equivalence, paired
from lab.stats.tokens import Mean, ratio, token_mean

if TYPE_CHECKING:
    from lab.instruments.trials import TrialResult

LOSS = "nats/token"

# A number of each layer: stable rank and energy rank of its ΔW; how much ΔW amplifies what W has.
SpectrumStatistic = Literal["stable", "energy"]
LayerStatistic = Literal["stable", "energy", "amplification"]


def measurements(
    observations: LoraRankObservations, equivalence_margin: float
) -> dict[str, Measurement]:
    """Return all measurements by name; the margin is in nats/token."""
    return (
        _measure_losses(observations)
        | _measure_ranks(observations, equivalence_margin)
        | _measure_first_step(observations)
        | _measure_directions(observations)
        | _measure_full_tuning(observations)
    )


# Losses


def losses(results: Sequence[TrialResult]) -> list[float]:
    """Return the mean held-out loss of each trial, over all evaluation tokens."""
    return [float(result.evaluation.losses.mean(dtype="float64")) for result in results]


def _measure_losses(observations: LoraRankObservations) -> dict[str, Measurement]:
    measured_losses = {
        f"loss_{name}": Measurement.of_sample(losses(results), LOSS)
        for name, results in observations.settings.items()
    }
    full = observations.full_tuning.evaluations["full"]
    mean = token_mean(full.losses.astype(np.float64), full.example_ids)
    return measured_losses | {"loss_full": _estimate(mean, LOSS)}


def _estimate(mean: Mean, unit: str) -> Measurement:
    return Measurement.of_estimate(mean.value, unit, stderr=mean.stderr, n=mean.n)


def _measure_ranks(
    observations: LoraRankObservations, equivalence_margin: float
) -> dict[str, Measurement]:
    """Compare the ranks, and the scales of the largest rank, seed by seed."""
    losses_by_rank = {r: losses(results) for r, results in observations.by_rank.items()}
    smallest = losses_by_rank[min(losses_by_rank)]
    largest = losses_by_rank[max(losses_by_rank)]

    # 1. The ranks, with alpha fixed.
    rank_gaps = paired(largest, smallest).differences
    spreads = [max(row) - min(row) for row in zip(*losses_by_rank.values(), strict=True)]
    # All pairs must be equivalent, so the worst one decides, and needs no correction.
    p_values = []
    for one, other in itertools.combinations(losses_by_rank.values(), 2):
        differences = paired(one, other).differences
        p_values.append(equivalence(differences, equivalence_margin).p_value)
    comparison = {
        "rank_gap": Measurement.of_sample(rank_gaps, LOSS),
        "rank_spread": Measurement.of_sample(spreads, LOSS),
        "rank_equivalence_p": Measurement.of_estimate(max(p_values), ""),
    }

    # 2. The largest rank with other scales, against the same rank with alpha fixed.
    for name in ("alpha_2r", "rslora"):
        gaps = paired(losses(observations.settings[name]), largest).differences
        comparison[f"{name}_gap"] = Measurement.of_sample(gaps, LOSS)

    # 3. Parameters per unit of rank: one number, or not measured.
    counts = {observations.adapter_parameters[f"r{r}"] / r for r in losses_by_rank}
    per_rank = int(counts.pop()) if len(counts) == 1 else None
    comparison["parameters_per_rank"] = Measurement.of_exact(
        per_rank, "parameters per unit of rank"
    )
    return comparison


# The first step


def relative_descent(first_step: FirstStep) -> np.ndarray:
    """Return ⟨ΔW, −G⟩ / ‖G‖ over all layers: [seeds, 3, ranks]."""
    gradient_norm = np.sqrt((first_step.gradient_norms**2).sum(-1))  # [seeds]
    descent: np.ndarray = first_step.descent.sum(-1) / gradient_norm[:, None, None]
    return descent


def slopes(first_step: FirstStep, ranks: Sequence[int]) -> np.ndarray:
    """Return d log(⟨ΔW, −G⟩ / ‖G‖) / d log r: [seeds, 3], a straight line fitted over the ranks."""
    x = np.log(np.asarray(ranks, dtype=np.float64))
    x = x - x.mean()
    y = np.log(relative_descent(first_step))  # [seeds, 3, ranks]
    slope: np.ndarray = (y * x).sum(-1) / (x**2).sum()
    return slope


def _measure_first_step(observations: LoraRankObservations) -> dict[str, Measurement]:
    by_seed = slopes(observations.first_step, list(observations.by_rank))  # [seeds, 3]
    return {
        f"first_step_slope_{name}": Measurement.of_sample(by_seed[:, i].tolist(), "")
        for i, name in enumerate(CONVENTIONS)
    }


# The directions of the updates


def update_norms(values: np.ndarray) -> np.ndarray:
    """Return ‖ΔW‖_F [L] from singular values [L, k]."""
    norms: np.ndarray = np.sqrt((values.astype(np.float64) ** 2).sum(-1))
    return norms


def spectrum_statistic(values: np.ndarray, statistic: SpectrumStatistic) -> np.ndarray:
    """Return the stable or the energy rank [L] from singular values [L, k]."""
    # Here, because the instrument imports torch: reports are made without it.
    import torch

    from lab.instruments import lowrank

    formula = {"stable": lowrank.stable_rank, "energy": lowrank.energy_rank}[statistic]
    ranks: np.ndarray = formula(torch.from_numpy(values)).numpy()
    return ranks.astype(np.float64)


def by_layer(
    observations: LoraRankObservations, trial_name: str, statistic: LayerStatistic
) -> np.ndarray:
    """Return a statistic of each layer of a trial: [L].

    The amplification is about as many directions as the smallest rank has.
    """
    values = observations.spectra.values[trial_name]
    if statistic == "amplification":
        smallest_rank = min(observations.by_rank)
        inside_norms = observations.spectra.inside_norms[trial_name]
        amplification: np.ndarray = update_norms(values[:, :smallest_rank]) / inside_norms
        return amplification
    return spectrum_statistic(values, statistic)


def layer_means(
    observations: LoraRankObservations, results: Sequence[TrialResult], statistic: LayerStatistic
) -> list[float]:
    """Return the mean over layers of a statistic, one value per seed."""
    means = []
    for result in results:
        means.append(float(by_layer(observations, result.trial.name, statistic).mean()))
    return means


def _measure_directions(observations: LoraRankObservations) -> dict[str, Measurement]:
    largest = max(observations.by_rank)
    results = observations.by_rank[largest]
    stable = layer_means(observations, results, "stable")
    energy = layer_means(observations, results, "energy")
    amplification = layer_means(observations, results, "amplification")
    directions = {
        f"stable_rank_r{largest}": Measurement.of_sample(stable, ""),
        f"energy_rank_r{largest}": Measurement.of_sample(energy, "directions"),
        f"amplification_r{largest}": Measurement.of_sample(amplification, ""),
    }
    for side, overlap in observations.spectra.overlaps.items():
        # φ(1, 1) [seeds, L] -> mean over layers [seeds]
        similarity = overlap[:, :, 0].mean(1, dtype=np.float64)
        directions[f"similarity_{side}"] = Measurement.of_sample(similarity.tolist(), "")
    return directions


# The full fine-tuning


def share_kept(observations: LoraRankObservations, part: str) -> Mean:
    """Return the share of full fine-tuning's improvement that a part of its update keeps.

    It is a ratio over examples: Σ (base − part) / Σ (base − full) of the token losses.
    """
    base = observations.base.losses.astype(np.float64)
    evaluations = observations.full_tuning.evaluations
    return ratio(
        base - evaluations[part].losses,
        base - evaluations["full"].losses,
        observations.base.example_ids,
    )


def _measure_full_tuning(observations: LoraRankObservations) -> dict[str, Measurement]:
    """Measure one run: standard errors of ranks count layers, those of shares count examples."""
    full = observations.full_tuning
    assert np.array_equal(observations.base.example_ids, full.evaluations["full"].example_ids)
    return {
        "stable_rank_full": _mean_over_layers(spectrum_statistic(full.values, "stable"), ""),
        "energy_rank_full": _mean_over_layers(
            spectrum_statistic(full.values, "energy"), "directions"
        ),
        "full_kept_rank_8": _estimate(share_kept(observations, "rank 8"), ""),
        "full_kept_random_8": _estimate(share_kept(observations, "random 8"), ""),
    }


def _mean_over_layers(values: np.ndarray, unit: str) -> Measurement:
    """Return the mean of values [L] with its standard error."""
    stderr = float(values.std(ddof=1) / np.sqrt(len(values)))
    return Measurement.of_estimate(float(values.mean()), unit, stderr=stderr, n=len(values))
