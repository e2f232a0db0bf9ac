"""How much gradients of single examples disagree: the simple noise scale from their inner products.

The gradient of a batch estimates the true one G with an error of covariance Σ / batch size. Their
ratio B = tr(Σ) / |G|² is the batch size at which error and signal are equally large: below it a
batch twice as large gives almost twice the progress per step, above it almost none (McCandlish,
Kaplan, Amodei and others 2018, arXiv:1812.06162).

torch is imported by the one function that needs a model; the statistics need numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lab.stats.jackknife import jackknife

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from lab.instruments.chat import Encoded

BLOCK = 1 << 18  # columns that are multiplied in float64 at a time: 128 MiB for 64 gradients


@dataclass(frozen=True)
class GradientNoise:
    """Signal and noise of gradients of single examples.

    signal: |G|², unbiased; variance: tr(Σ), per example; scale: variance / signal, in examples,
    None where the signal is not above 0; stderr: of the scale.
    """

    signal: float
    variance: float
    scale: float | None
    stderr: float | None = None


def inner_products(model: PeftModel, examples: Sequence[Encoded]) -> np.ndarray:
    """Return the inner products [n, n] (float64) of the examples' gradients.

    A gradient is with respect to all adapters. An example's gradient is that of its loss summed
    over tokens, divided by the mean number of tokens of all: so the mean of these gradients is that
    of the token-weighted loss which a batch of all of them has in training.
    """
    import torch
    from torch.nn import functional

    from lab.instruments import adapters
    from lab.instruments.packing import pack, supervised_logits

    parameters = list(adapters.parameters(model).values())
    mean_tokens = sum(example.supervised for example in examples) / len(examples)
    model.eval()
    # [n, adapter parameters] in float32: 20 MB per example at rank 16
    gradients = torch.empty(len(examples), sum(p.numel() for p in parameters))
    for row, example in zip(gradients, examples, strict=True):
        packed = pack([example], parameters[0].device)
        logits = supervised_logits(model, packed)
        loss = functional.cross_entropy(logits, packed.targets, reduction="sum") / mean_tokens
        gradient = torch.autograd.grad(loss, parameters)
        torch.cat([g.detach().float().flatten().cpu() for g in gradient], out=row)
    return _gram_matrix(gradients)


def _gram_matrix(rows: torch.Tensor) -> np.ndarray:
    """Return rows · rowsᵀ [n, n], summed over blocks of columns.

    In float64: millions of products in float32 would lose the small ones.
    """
    gram = np.zeros((len(rows), len(rows)))
    for block in rows.split(BLOCK, dim=1):
        block64 = block.double()  # [n, BLOCK]
        gram += (block64 @ block64.T).numpy()
    return gram


def estimate_noise(gram: np.ndarray) -> GradientNoise:
    """Return signal, noise and noise scale from the inner products [n, n] of n ≥ 3 gradients.

    With mean gradient g: tr(Σ) = Σ |g_i - g|² / (n - 1); |g|² is too large by tr(Σ) / n, which is
    subtracted. Where the difference is not above 0, these n examples do not show in which direction
    to go, and the scale is None. The standard error is the jackknife's.

    Raises:
        ValueError: there are fewer than two gradients.
    """
    estimate = _estimate(gram)
    if estimate.scale is None:
        return estimate
    stderr = jackknife(len(gram), lambda units: _estimate(_subset(gram, units)).scale)
    return replace(estimate, stderr=stderr)


def noise_growth(before: np.ndarray, after: np.ndarray) -> tuple[float | None, float | None]:
    """Return the ratio of the noise scales after / before, and its jackknife standard error.

    before, after: inner products [n, n] of the gradients of the same n examples. None where one of
    the scales is None.
    """

    def growth(units: np.ndarray) -> float | None:
        scale_before = _estimate(_subset(before, units)).scale
        scale_after = _estimate(_subset(after, units)).scale
        if scale_before is None or scale_after is None:
            return None
        return scale_after / scale_before

    value = growth(np.arange(len(before)))
    if value is None:
        return None, None
    return value, jackknife(len(before), growth)


def _subset(gram: np.ndarray, units: np.ndarray) -> np.ndarray:
    products: np.ndarray = gram[np.ix_(units, units)]
    return products


def _estimate(gram: np.ndarray) -> GradientNoise:
    n = len(gram)
    if n < 2:
        msg = (
            f"got {n} gradients; expected at least 2 to show how gradients differ, at least 3 for "
            "a standard error too"
        )
        raise ValueError(msg)
    mean = float(gram.mean())  # |g|²
    variance = (float(gram.trace()) - n * mean) / (n - 1)
    signal = mean - variance / n
    scale = variance / signal if signal > 0 else None
    return GradientNoise(signal, variance, scale)
