"""How many directions the trained updates use, which ones, and what two ranks have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from lab.instruments import adapters, lowrank, models, trials
from lab.instruments.lowrank import Directions
from lab.instruments.trials import SweepContext, Trial
from lab.lora_rank.first_step import initial_a
from lab.lora_rank.measured import SIDES, UpdateSpectra


def study(
    sweep_context: SweepContext, folders: Mapping[str, Path], pairs: Sequence[tuple[Trial, Trial]]
) -> UpdateSpectra:
    """Decompose the stored updates and compare the two trials of each pair.

    folders: trial's name -> where it is stored; pairs: the smallest and the largest rank, one pair
    per seed.
    """
    loaded = trials.Stage(sweep_context).loaded
    weights = {name: weight.cpu().float() for name, weight in models.linear_weights(loaded.model)}
    strongest = pairs[0][0].lora.r
    compared_names = set()
    for small, large in pairs:
        compared_names |= {small.name, large.name}

    # 1. Each trial: its singular values, and how much of W is in its strongest directions.
    values: dict[str, np.ndarray] = {}
    inside_norms: dict[str, np.ndarray] = {}
    compared: dict[str, dict[str, Directions]] = {}
    for name, folder in folders.items():
        lora = trials.read(folder).trial.lora
        updates = decompose_adapter(folder, lora.scale, weights)
        values[name] = np.stack([_padded(update.values, lora.r) for update in updates.values()])
        norms = []
        for layer, update in updates.items():
            norms.append(float(lowrank.inside_norm(update, weights[layer], strongest)))
        inside_norms[name] = np.array(norms)
        if name in compared_names:
            compared[name] = updates

    # 2. Each pair: [L, k] per side, stacked to [seeds, L, k].
    rows: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
    for pair in pairs:
        for side, overlap in _compare(loaded, folders, compared, pair).items():
            rows[side].append(overlap)
    return UpdateSpectra(
        values=values,
        inside_norms=inside_norms,
        overlaps={side: np.stack(overlaps) for side, overlaps in rows.items()},
        weight_norms=np.array([float(torch.linalg.norm(W)) for W in weights.values()]),
    )


def decompose_adapter(folder: Path, scale: float, layers: Iterable[str]) -> dict[str, Directions]:
    """Return layer -> the singular value decomposition of a stored adapter's ΔW.

    In the order of `layers`: the file has an order of its own, since safetensors sorts its tensors
    by name, which puts layer 10 before layer 2.
    """
    factors = lowrank.factors_by_layer(load_file(folder / adapters.WEIGHTS))
    return {name: lowrank.decompose(*factors[name], scale) for name in layers}


def _padded(values: torch.Tensor, r: int) -> np.ndarray:
    """Return singular values [k] with zeros up to [r]."""
    return np.pad(values.numpy(), (0, r - len(values)))


def _compare(
    loaded: models.Loaded,
    folders: Mapping[str, Path],
    compared: Mapping[str, dict[str, Directions]],
    pair: Sequence[Trial],
) -> dict[str, np.ndarray]:
    """Return φ(i, i) [L, k] of two trials' updates for each of SIDES.

    The right side of ΔW lies in the rows of A, and A is for the most part still its random start,
    another one for each rank. So the right sides look unrelated, whatever was learned; A − A_0
    shows what was.
    """
    small, large = pair
    k = small.lora.r
    small_learned = _learned_directions(loaded, folders[small.name], small)
    large_learned = _learned_directions(loaded, folders[large.name], large)
    generator = torch.Generator().manual_seed(small.seed)

    rows: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
    for layer, one in compared[small.name].items():
        other = compared[large.name][layer]
        width = one.right.shape[0]
        # side -> orthonormal columns [d, k or more] of either trial
        columns = {
            "left": (one.left, other.left),
            "right": (one.right, other.right),
            "learned": (small_learned[layer], large_learned[layer]),
            "null": (
                lowrank.random_columns(width, k, generator),
                lowrank.random_columns(width, k, generator),
            ),
        }
        for side, (first, second) in columns.items():
            rows[side].append(lowrank.overlap(first, second).numpy())
    return {side: np.stack(overlaps) for side, overlaps in rows.items()}


def _learned_directions(
    loaded: models.Loaded, folder: Path, trial: Trial
) -> dict[str, torch.Tensor]:
    """Return layer -> right singular vectors [n, r] of A − A_0, the strongest first."""
    start = initial_a(loaded, trial.lora, trial.seed)
    directions = {}
    factors = lowrank.factors_by_layer(load_file(folder / adapters.WEIGHTS))
    for name, (_, A) in factors.items():
        directions[name] = torch.linalg.svd(A - start[name], full_matrices=False)[2].T
    return directions
