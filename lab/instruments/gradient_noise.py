"""How much gradients of single examples disagree: the simple noise scale from their inner products.

The gradient of a batch estimates the true one G with an error of covariance Σ / batch size. Their
ratio B = tr(Σ) / |G|² is the batch size at which error and signal are equally large: below it a
batch twice as large gives almost twice the progress per step, above it almost none (McCandlish,
Kaplan, Amodei and others 2018, arXiv:1812.06162).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from lab.instruments import adapters
from lab.instruments.chat import Encoded
from lab.instruments.packing import pack, supervised_logits
from lab.stats.jackknife import jackknife

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Noise:
    """What gradients of single examples say of signal and noise.

    signal: |G|², unbiased; variance: tr(Σ), per example; scale: their ratio, None where no
    signal was found.
    """

    signal: float
    variance: float
    scale: float | None
    stderr: float | None = None


def products(model: "PeftModel", examples: Sequence[Encoded]) -> np.ndarray:
    """Inner products [n, n] (float64) of the examples' gradients with respect to all adapters.

    An example's gradient is that of its loss summed over tokens, divided by the mean number of
    tokens of all: so the mean of these gradients is that of the token-weighted loss which a batch
    of all of them has in training.
    """
    trained = list(adapters.parameters(model).values())
    tokens = sum(example.supervised for example in examples) / len(examples)
    model.eval()
    # float32: 20 MB per example at rank 16
    gradients = torch.empty(len(examples), sum(p.numel() for p in trained))
    for row, example in zip(gradients, examples, strict=True):
        packed = pack([example], trained[0].device)
        logits = supervised_logits(model, packed)
        loss = functional.cross_entropy(logits, packed.targets, reduction="sum") / tokens
        found = torch.autograd.grad(loss, trained)
        torch.cat([g.detach().float().flatten().cpu() for g in found], out=row)
    return _gram(gradients)


def _gram(rows: torch.Tensor) -> np.ndarray:
    """Sum over blocks in float64: millions of products in float32 would lose the small ones."""
    found = np.zeros((len(rows), len(rows)))
    for block in rows.split(1 << 18, dim=1):
        wide = block.double()
        found += (wide @ wide.T).numpy()
    return found


def noise(gram: np.ndarray) -> Noise:
    """The simple noise scale from the inner products [n, n] of n ≥ 3 gradients.

    Its standard error is the jackknife's. With mean gradient g: tr(Σ) = Σ |g_i − g|² / (n − 1), and
    |g|² is too large by tr(Σ) / n, which is taken off. Where nothing is left of it, these n
    examples do not show in which direction to go, and the scale is None.
    """
    found = _simple(gram)
    stderr = (
        jackknife(len(gram), lambda kept: _simple(_of(gram, kept)).scale)
        if found.scale is not None
        else None
    )
    return Noise(found.signal, found.variance, found.scale, stderr)


def growth(before: np.ndarray, after: np.ndarray) -> tuple[float | None, float | None]:
    """Ratio of noise scales of the same n examples, [n, n] each; its jackknife standard error."""

    def compute(kept: np.ndarray) -> float | None:
        first, second = _simple(_of(before, kept)).scale, _simple(_of(after, kept)).scale
        return second / first if first is not None and second is not None else None

    found = compute(np.arange(len(before)))
    return found, jackknife(len(before), compute) if found is not None else None


def _of(gram: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return gram[np.ix_(kept, kept)]


def _simple(gram: np.ndarray) -> Noise:
    n = len(gram)
    if n < 2:
        msg = (
            f"{n} gradients do not show how gradients differ; wanted at least 3, for a "
            "standard error too"
        )
        raise ValueError(msg)
    mean = float(gram.mean())  # |g|²
    variance = (float(gram.trace()) - n * mean) / (n - 1)
    signal = mean - variance / n
    return Noise(signal, variance, variance / signal if signal > 0 else None)
