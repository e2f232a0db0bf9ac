"""What the extraction study observes: arrays of the real model, of ten families, and guards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

WRAPPERS = ("bfloat16", "nf4", "adapter")
OFFSET = 1  # of the diagonal that the statistics include: the previous token


@dataclass(frozen=True)
class ModelArrays:
    """One text of T tokens through the real model; L layers, H query heads, H' key heads, width D.

    pattern: [L, H, T, T], recorded; q, rot_q, z: [L, T, H, D]; k, rot_k, v: [L, T, H', D]; sink,
    entropy, distance, previous: [L, H, T], the statistics that were computed without patterns;
    logits_recorded, logits_plain: [positions, V]; padded: [L, H, T', T'], pattern of a text with
    `padding` tokens before it; errors: name -> [L], the largest difference of a weight in each
    layer (see `parity`).
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
    errors: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FamilyArrays:
    """A tiny random model of one family: its recorded patterns and their errors.

    float32, float64: [layers, B, H, T, T]; errors: "float32" and "float64" -> [layers], the largest
    difference to eager attention.
    """

    ids: np.ndarray
    mask: np.ndarray
    float32: np.ndarray
    float64: np.ndarray
    errors: Mapping[str, np.ndarray]


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
    """Everything that the numbers are made from."""

    model: ModelArrays
    families: Mapping[str, FamilyArrays]
    guards: Guards
