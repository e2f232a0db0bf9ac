"""How many directions the trained updates use, which ones, and what two ranks have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from lab.instruments import adapters, lowrank, models, trials
from lab.instruments.lowrank import Directions
from lab.instruments.trials import SweepContext, Trial
from lab.lora_rank.first_step import initial_a

SIDES = ("left", "right", "learned", "null")


@dataclass(frozen=True)
class UpdateSpectra:
    """What the updates look like, layer by layer, and what two ranks have in common.

    values: trial's name -> singular values of each layer's ΔW [L, r], with zeros where a layer has
    fewer; inside: -> ‖U_kᵀ·W·V_k‖_F [L] in its k strongest directions, k the smallest rank;
    overlaps: one of SIDES -> φ(i, i) of the smallest and the largest rank [seeds, L, i = 1 … k];
    weights: ‖W‖_F [L].
    """

    values: Mapping[str, np.ndarray]
    inside: Mapping[str, np.ndarray]
    overlaps: Mapping[str, np.ndarray]
    weights: np.ndarray


def study(
    sweep_context: SweepContext, folders: Mapping[str, Path], pairs: Sequence[tuple[Trial, Trial]]
) -> UpdateSpectra:
    """Decompose the stored updates (by their trials' names), compare the two trials of each pair.

    There is one pair a seed.
    """
    stage = trials.Stage(sweep_context)
    W = {name: weight.cpu().float() for name, weight in models.linear_weights(stage.loaded.model)}
    values, inside, strongest = {}, {}, pairs[0][0].lora.r
    compared = {trial.name for pair in pairs for trial in pair}
    kept: dict[str, dict[str, Directions]] = {}
    for name, folder in folders.items():
        found = decomposed(folder, trials.read(folder).trial.lora.scale, W)
        values[name] = np.stack(
            [_padded(d.values, trials.read(folder).trial.lora.r) for d in found.values()]
        )
        inside[name] = np.array(
            [float(lowrank.inside(d, W[layer], strongest)) for layer, d in found.items()]
        )
        if name in compared:
            kept[name] = found
    overlaps = [_compare(stage.loaded, folders, kept, pair) for pair in pairs]
    return UpdateSpectra(
        values,
        inside,
        {side: np.stack([o[side] for o in overlaps]) for side in SIDES},
        np.array([float(torch.linalg.norm(weight)) for weight in W.values()]),
    )


def decomposed(folder: Path, scale: float, layers: Iterable[str]) -> dict[str, Directions]:
    """Layer -> the singular value decomposition of a stored adapter's ΔW, in the order of `layers`.

    The file has an order of its own: safetensors sorts its tensors by name, which puts layer 10
    before layer 2.
    """
    found = {name: (B, A) for name, B, A in lowrank.factors(load_file(folder / adapters.WEIGHTS))}
    return {name: lowrank.of_factors(*found[name], scale) for name in layers}


def _padded(values: torch.Tensor, r: int) -> np.ndarray:
    return np.pad(values.numpy(), (0, r - len(values)))


def _compare(
    loaded: models.Loaded,
    folders: Mapping[str, Path],
    kept: Mapping[str, dict[str, Directions]],
    pair: Sequence[Trial],
) -> dict[str, np.ndarray]:
    """φ(i, i) [L, k] of two trials' updates on both sides, of what their A learned, of random ones.

    ΔW's right side lies in the rows of A, and A is for the most part still its random beginning,
    another one for each rank. So the right sides must look unrelated, whatever was learned; A − A_0
    shows what was.
    """
    small, large = (kept[trial.name] for trial in pair)
    learned = [_learned(loaded, folders[trial.name], trial) for trial in pair]
    draw = torch.Generator().manual_seed(pair[0].seed)
    rows: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
    k = pair[0].lora.r
    for name, one in small.items():
        other, width = large[name], one.right.shape[0]
        columns = {
            "left": (one.left, other.left),
            "right": (one.right, other.right),
            "learned": (learned[0][name], learned[1][name]),
            "null": (
                lowrank.random_columns(width, k, draw),
                lowrank.random_columns(width, k, draw),
            ),
        }
        for side, (first, second) in columns.items():
            rows[side].append(lowrank.overlap(first, second).numpy())
    return {side: np.stack(found) for side, found in rows.items()}


def _learned(loaded: models.Loaded, folder: Path, trial: Trial) -> dict[str, torch.Tensor]:
    """Layer -> right singular vectors [n, r] of A − A_0, the strongest first."""
    start = initial_a(loaded, trial.lora, trial.seed)
    trained = {name: A for name, _, A in lowrank.factors(load_file(folder / adapters.WEIGHTS))}
    return {
        name: torch.linalg.svd(A - start[name], full_matrices=False)[2].T
        for name, A in trained.items()
    }
