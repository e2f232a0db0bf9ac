"""The loss along an update: base + alpha · ΔW; alpha = 0 is the base, alpha = 1 the trained model.

alpha is here the share of the update that is applied, and not the alpha of LoRA's scale alpha/r.

One line through a space of millions of directions (Goodfellow, Vinyals and Saxe 2015,
arXiv:1412.6544), but the one that the run has taken: it shows whether the run stopped too early, in
time or too late on that line.

torch is imported by the functions that need a model; `lowest_alpha` needs numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from peft import PeftModel

    from lab.instruments.chat import Encoded


def loss_along_update(
    model: PeftModel, examples: Sequence[Encoded], alphas: Sequence[float]
) -> np.ndarray:
    """Return the loss in nats of every supervised token at each alpha: [len(alphas), N], float32.

    The tokens are in the order of the examples.
    """
    from lab.instruments.evaluation import evaluate

    rows = []
    for alpha in alphas:
        with scaled_update(model, alpha):
            rows.append(evaluate(model, examples).losses)
    return np.stack(rows)  # len(alphas) × [N] -> [len(alphas), N]


@contextmanager
def scaled_update(model: PeftModel, alpha: float) -> Iterator[None]:
    """Replace ΔW by alpha · ΔW within the block; restore ΔW at its end.

    ΔW is linear in B, so B is multiplied.
    """
    import torch

    from lab.instruments import adapters

    factors = [p for name, p in adapters.parameters(model).items() if "lora_B" in name]
    originals = [p.detach().clone() for p in factors]
    with torch.no_grad():
        for p in factors:
            p.mul_(alpha)
    try:
        yield
    finally:
        # copied back and not divided: alpha may be 0, and a division would round
        with torch.no_grad():
            for p, original in zip(factors, originals, strict=True):
                p.copy_(original)


def lowest_alpha(alphas: Sequence[float], losses: Sequence[float]) -> float:
    """Return the alpha of the lowest loss.

    It is the vertex of the parabola through the lowest point and its neighbours; at an end of the
    line it is that end, and the minimum may be beyond it.
    """
    index = int(np.argmin(losses))
    if index in {0, len(alphas) - 1}:
        return float(alphas[index])
    x = np.asarray(alphas[index - 1 : index + 2], dtype=np.float64)  # [3]
    y = np.asarray(losses[index - 1 : index + 2], dtype=np.float64)  # [3]
    a, b, _ = np.polyfit(x - x[1], y, 2)
    if a <= 0:
        return float(x[1])
    return float(x[1] - b / (2 * a))
