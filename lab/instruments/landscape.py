"""The loss along a line: base + t · ΔW, where t = 0 is the base and t = 1 the trained model.

One line through a space of millions of directions (Goodfellow, Vinyals and Saxe 2015,
arXiv:1412.6544), but the one that the run has taken: it shows whether the run stopped too early, in
time or too late along its own way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.instruments import adapters
from lab.instruments.chat import Encoded
from lab.instruments.evaluation import evaluate

if TYPE_CHECKING:
    from peft import PeftModel


def line(model: "PeftModel", examples: Sequence[Encoded], at: Sequence[float]) -> np.ndarray:
    """Loss in nats of every supervised token at each t: [len(at), N], float32.

    The tokens stand in the order of the examples.
    """
    rows = []
    for t in at:
        with scaled(model, t):
            rows.append(evaluate(model, examples).losses)
    return np.stack(rows)


@contextmanager
def scaled(model: "PeftModel", t: float) -> Iterator[None]:
    """The model with t · ΔW in the place of ΔW; afterwards it is as it was.

    ΔW is linear in B, so B is multiplied.
    """
    factors = [p for name, p in adapters.parameters(model).items() if "lora_B" in name]
    kept = [p.detach().clone() for p in factors]
    with torch.no_grad():
        for p in factors:
            p.mul_(t)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(factors, kept, strict=True):
                p.copy_(old)


def lowest(at: Sequence[float], losses: Sequence[float]) -> float:
    """Where the loss is lowest: vertex of the parabola through the lowest point and its neighbours.

    At an end of the line it is that end: the lowest place may lie beyond.
    """
    place = int(np.argmin(losses))
    if place in {0, len(at) - 1}:
        return float(at[place])
    x, y = (
        np.asarray(at[place - 1 : place + 2], dtype=np.float64),
        np.asarray(losses[place - 1 : place + 2]),
    )
    a, b, _ = np.polyfit(x - x[1], y.astype(np.float64), 2)
    return float(x[1] - b / (2 * a)) if a > 0 else float(x[1])
