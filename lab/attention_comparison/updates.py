"""Updates ΔW as the tensors of an adapter: their norms, and random ones of the same norms.

An update is what `adapters.state` returns: B [out, r] and A [r, in] of every linear layer, under
PEFT's names; ΔW = s·B·A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

PREFIX = "base_model.model."


def keys(linear: str) -> tuple[str, str]:
    """Return PEFT's names of A and B of a linear layer."""
    return f"{PREFIX}{linear}.lora_A.weight", f"{PREFIX}{linear}.lora_B.weight"


def norms(tensors: Mapping[str, torch.Tensor], linears: Sequence[str], scale: float) -> np.ndarray:
    """Return ‖ΔW‖_F of each linear layer, [matrices].

    ‖s·B·A‖² = s²·tr(BᵀB·AAᵀ) needs two r × r matrices and none as large as the layer.
    """
    values = []
    for linear in linears:
        A, B = (tensors[key].double() for key in keys(linear))
        squared = float(((B.T @ B) * (A @ A.T)).sum())
        values.append(scale * math.sqrt(max(squared, 0.0)))  # rounding can leave it below 0
    return np.array(values)


def random_like(
    tensors: Mapping[str, torch.Tensor],
    linears: Sequence[str],
    *,
    seed: tuple[int, int],
    scale: float,
) -> dict[str, torch.Tensor]:
    """Return a random update of the same rank, with ‖ΔW‖_F of every linear layer that of `tensors`.

    A, then B of one layer after the other are normal numbers of numpy's default_rng(seed); B is
    scaled to the norm.
    """
    generator = np.random.default_rng(seed)
    wanted = norms(tensors, linears, scale)
    drawn: dict[str, torch.Tensor] = {}
    for linear in linears:
        for key in keys(linear):
            values = generator.standard_normal(tuple(tensors[key].shape), dtype=np.float32)
            drawn[key] = torch.from_numpy(values)
    actual = norms(drawn, linears, scale)
    for linear, factor in zip(linears, wanted / actual, strict=True):
        _, key_of_b = keys(linear)
        drawn[key_of_b] *= float(factor)
    return drawn
