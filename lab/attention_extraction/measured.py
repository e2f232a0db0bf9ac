"""What the extraction study observes: arrays of the real model, of ten families, and guards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

WRAPPERS = ("bfloat16", "nf4", "adapter")
OFFSET = 1  # of the diagonal that the statistics include: the previous token


@dataclass(frozen=True)
class Pair:
    """Weights [L, …, T, T] that were recorded, and those that they are held against."""

    recorded: np.ndarray
    reference: np.ndarray

    def differences(self) -> np.ndarray:
        """Return the largest difference of a weight in each layer, [L]."""
        differences = np.abs(self.recorded.astype(np.float64) - self.reference)
        largest: np.ndarray = differences.reshape(len(differences), -1).max(axis=1)
        return largest


@dataclass(frozen=True)
class ModelArrays:
    """One text of T tokens through the real model; L layers, H query heads, H' key heads, width D.

    pattern: [L, H, T, T], recorded; q, rot_q, z: [L, T, H, D]; k, rot_k, v: [L, T, H', D]; sink,
    entropy, distance, previous: [L, H, T], the statistics that were computed without patterns;
    logits_recorded, logits_plain: [positions, V]; padded: [L, H, T', T'], pattern of a text with
    `padding` tokens before it.
    """

    ids: np.ndarray
    padding: int
    rope_theta: float
    pattern: np.ndarray
    q: np.ndarray
    k: np.ndarray
    rot_q: np.ndarray
    rot_k: np.ndarray
    v: np.ndarray
    z: np.ndarray
    sink: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    previous: np.ndarray
    logits_recorded: np.ndarray
    logits_plain: np.ndarray
    padded: np.ndarray


@dataclass(frozen=True)
class FamilyArrays:
    """A tiny random model of one family: its weights [layers, B, H, T, T] beside eager attention's.

    ids, mask: [B, T]. In float32 rows of padding are 0 on both sides, as nothing reads them; in
    float64 there is no padding.
    """

    ids: np.ndarray
    mask: np.ndarray
    float32: Pair
    float64: Pair


@dataclass(frozen=True)
class Guards:
    """Whether the extractor refuses what it must, and leaves nothing behind.

    layers_recorded: of the real model; checkpointing_refused: gradient checkpointing is an error;
    second_run_refused: a second forward pass without `clear` is an error; hooks_left: hooks and
    changed settings after a forward pass that raised.
    """

    layers_recorded: int
    checkpointing_refused: bool
    second_run_refused: bool
    hooks_left: int


@dataclass(frozen=True)
class ExtractionObservations:
    """Everything that the numbers are made from.

    kinds: "float32", "float64" or a wrapper -> the real model's weights [L, H, T, T] beside eager
    attention's; "shift", "stretch" -> those of changed positions beside the usual ones.
    """

    model: ModelArrays
    kinds: Mapping[str, Pair]
    families: Mapping[str, FamilyArrays]
    guards: Guards
