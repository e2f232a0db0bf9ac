"""From what lora_rank_comparison measured to its result: arrays on disk and named numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lab.contract import Context, Measurement, environment
from lab.instruments import lowrank
from lab.lora_rank.directions import SIDES
from lab.lora_rank.first_step import CONVENTIONS, slopes
from lab.stats.paired import equivalence, paired
from lab.stats.tokens import ratio, token_mean

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import TrialResult
    from lab.lora_rank.experiment import LoraRankObservations

LOSS = "nats/token"


def store(ctx: Context, observations: LoraRankObservations) -> None:
    """Write what neither the trials' own files nor the full update hold."""
    artifacts, found, first, full = (
        ctx.out / "artifacts",
        observations.found,
        observations.first,
        observations.full,
    )
    of_updates = {f"{name}.values": values for name, values in found.values.items()}
    of_updates |= {f"{name}.inside": inside for name, inside in found.inside.items()}
    _save(of_updates | {"weights": found.weights}, artifacts / "updates.safetensors")
    _save({side: found.overlaps[side] for side in SIDES}, artifacts / "overlaps.safetensors")
    steps = {
        "along": first.along,
        "gradient": first.gradient,
        "adapter_gradient": first.adapter_gradient,
    }
    _save(steps, artifacts / "first_step.safetensors")
    _save(full.history() | {"values": full.values}, artifacts / "full" / "training.safetensors")
    parts = ("losses", "entropies", "hits")
    tokens = {
        f"{name}.{part}": getattr(e, part) for name, e in full.evaluations.items() for part in parts
    }
    _save(
        tokens | {"example_ids": observations.base.example_ids},
        artifacts / "full" / "evaluation.safetensors",
    )


def _save(arrays: Mapping[str, np.ndarray], path: Any) -> None:
    from safetensors.numpy import save_file

    # safetensors writes an array's memory as it lies: of a transposed or strided one, other numbers
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    path.chmod(0o644)  # safetensors makes it private to its owner


# What the numbers are made of


def ranks(observations: LoraRankObservations) -> dict[int, Sequence[TrialResult]]:
    """Rank -> the trials of the primary comparison."""
    return {
        row[0].trial.lora.r: row
        for name, row in observations.settings.items()
        if name[1:].isdigit()
    }


def losses(row: Sequence[TrialResult]) -> list[float]:
    """Mean held-out loss of each trial, over all evaluation tokens."""
    return [float(ran.evaluation.losses.mean(dtype="float64")) for ran in row]


def over_layers(
    observations: LoraRankObservations, row: Sequence[TrialResult], what: str
) -> list[float]:
    """The mean over layers of "stable" or "energy" rank or "amplification", one value per seed."""
    return [float(by_layer(observations, ran.trial.name, what).mean()) for ran in row]


def by_layer(observations: LoraRankObservations, name: str, what: str) -> np.ndarray:
    """One of these of each layer of a trial: [L]."""
    values = observations.found.values[name]
    if what == "amplification":
        return norms(values[:, : strongest(observations)]) / observations.found.inside[name]
    return of_spectra(values, what)


def strongest(observations: LoraRankObservations) -> int:
    """How many directions an amplification is about: as many as the smallest rank has."""
    return min(ranks(observations))


def of_spectra(values: np.ndarray, what: str) -> np.ndarray:
    """Stable or energy rank [L] from singular values [L, k]."""
    measure = {"stable": lowrank.stable_rank, "energy": lowrank.energy_rank}[what]
    return measure(torch.from_numpy(values)).numpy().astype(np.float64)


def norms(values: np.ndarray) -> np.ndarray:
    """‖ΔW‖_F [L] from singular values [L, k]."""
    return np.sqrt((values.astype(np.float64) ** 2).sum(-1))


def parameters(row: Sequence[TrialResult]) -> int:
    """Numbers in the stored adapter of a setting, counted in its tensors."""
    from safetensors.torch import load_file

    from lab.instruments.adapters import WEIGHTS

    return sum(tensor.numel() for tensor in load_file(row[0].folder / WEIGHTS).values())


# The numbers


def measurements(ctx: Context, observations: LoraRankObservations) -> dict[str, Measurement]:
    """All numbers by name."""
    return (
        _of_losses(observations)
        | _of_ranks(observations, ctx.config["equivalence_margin"])
        | _of_first_step(observations)
        | _of_directions(observations)
        | _of_full(observations)
    )


def _of_losses(observations: LoraRankObservations) -> dict[str, Measurement]:
    found = {
        f"loss_{name}": Measurement.of_sample(losses(row), LOSS)
        for name, row in observations.settings.items()
    }
    full = observations.full.evaluations["full"]
    return found | {"loss_full": _mean(full)}


def _mean(found: Evaluation) -> Measurement:
    mean = token_mean(found.losses.astype(np.float64), found.example_ids)
    return Measurement.of_estimate(mean.value, LOSS, stderr=mean.stderr, n=mean.n)


def _of_ranks(observations: LoraRankObservations, margin: float) -> dict[str, Measurement]:
    of_rank = {r: losses(row) for r, row in ranks(observations).items()}
    first, last = of_rank[min(of_rank)], of_rank[max(of_rank)]
    pairs = [paired(a, b).differences for a, b in itertools.combinations(of_rank.values(), 2)]
    by_seed = zip(*of_rank.values(), strict=True)
    scales = {name: losses(observations.settings[name]) for name in ("alpha_2r", "rslora")}
    counted = {parameters(row) / r for r, row in ranks(observations).items()}
    return {
        "rank_gap": Measurement.of_sample(paired(last, first).differences, LOSS),
        "rank_spread": Measurement.of_sample([max(seed) - min(seed) for seed in by_seed], LOSS),
        # all pairs must be equivalent, so the worst one decides, and needs no correction
        "rank_equivalence_p": Measurement.of_estimate(
            max(equivalence(d, margin).p_value for d in pairs), ""
        ),
        **{
            f"{n}_gap": Measurement.of_sample(paired(s, last).differences, LOSS)
            for n, s in scales.items()
        },
        "parameters_per_rank": Measurement.of_exact(
            int(counted.pop()) if len(counted) == 1 else None, "parameters per unit of rank"
        ),
    }


def _of_first_step(observations: LoraRankObservations) -> dict[str, Measurement]:
    found = slopes(observations.first, list(ranks(observations)))  # [seeds, 3]
    names = enumerate(CONVENTIONS)
    return {
        f"first_step_slope_{name}": Measurement.of_sample(found[:, i].tolist(), "")
        for i, name in names
    }


def _of_directions(observations: LoraRankObservations) -> dict[str, Measurement]:
    sample, largest = Measurement.of_sample, max(ranks(observations))
    row = observations.settings[f"r{largest}"]
    found = {
        f"stable_rank_r{largest}": sample(over_layers(observations, row, "stable"), ""),
        f"energy_rank_r{largest}": sample(over_layers(observations, row, "energy"), "directions"),
        f"amplification_r{largest}": sample(over_layers(observations, row, "amplification"), ""),
    }
    for side, overlap in observations.found.overlaps.items():
        found[f"similarity_{side}"] = sample(
            overlap[:, :, 0].mean(1, dtype=np.float64).tolist(), ""
        )
    return found


def _of_full(observations: LoraRankObservations) -> dict[str, Measurement]:
    """Of one run: the standard errors count layers here, and examples there."""
    full, base = observations.full, observations.base
    found = {}
    for what, unit in (("stable", ""), ("energy", "directions")):
        layers = of_spectra(full.values, what)
        error = float(layers.std(ddof=1) / np.sqrt(len(layers)))
        found[f"{what}_rank_full"] = Measurement.of_estimate(
            float(layers.mean()), unit, stderr=error, n=len(layers)
        )
    for name, of in (("full_kept_rank_8", "rank 8"), ("full_kept_random_8", "random 8")):
        share = kept(observations, of)
        found[name] = Measurement.of_estimate(share.value, "", stderr=share.stderr, n=share.n)
    assert np.array_equal(base.example_ids, full.evaluations["full"].example_ids)
    return found


def kept(observations: LoraRankObservations, part: str) -> Any:
    """The share of full fine-tuning's improvement that a part keeps, as a ratio over examples."""
    before, full = observations.base.losses.astype(np.float64), observations.full.evaluations
    return ratio(
        before - full[part].losses, before - full["full"].losses, observations.base.example_ids
    )


def facts(ctx: Context, observations: LoraRankObservations) -> dict[str, Any]:
    """What a reader must know to repeat the run."""
    return environment(
        ctx,
        packages=("torch", "transformers", "peft"),
        model_sha256=observations.sweep_settings["model_sha256"],
        device=ctx.config["device"],
        dtype=ctx.config["dtype"],
        sweep_context=dict(observations.sweep_settings),
        trials={
            name: [ran.trial.name for ran in row] for name, row in observations.settings.items()
        },
        taken_over=[
            ran.trial.name for row in observations.settings.values() for ran in row if ran.reused
        ],
        config=dict(ctx.config),
    )
