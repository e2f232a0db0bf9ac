"""What would let a training run fail in silence, with a plausible loss curve.

Each stops it with a clear error.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from lab.instruments.chat import IGNORE, Encoded


class TrainingError(RuntimeError):
    """Training went wrong in a way that would else stay silent."""


def before(
    trained: Mapping[str, torch.Tensor], examples: Sequence[Encoded], held_out: Sequence[Encoded]
) -> None:
    """Before the first step: something is trained, answers differ, and none will be evaluated on.

    Args:
        trained: tensors that are trained, by name.
        examples: training examples; held_out: those that the run will be judged by.
    """
    if not trained:
        msg = (
            "nothing is trained: no adapter is attached, or it is switched off. Call "
            "adapters.attach first"
        )
        raise TrainingError(msg)
    answers = {_answer(example) for example in examples}
    tokens = [token for answer in answers for token in answer]
    if len(tokens) > 1 and len(set(tokens)) == 1:
        msg = (
            f"every supervised token is the same, id {tokens[0]}; wanted answers. Check the "
            "labels of the data"
        )
        raise TrainingError(msg)
    known = [number for number, example in enumerate(held_out) if _answer(example) in answers]
    if known:
        msg = (
            f"{len(known)} of {len(held_out)} held-out examples have the answer of a training "
            f"example, the first is number {known[0]}; wanted none: they would measure what was "
            "memorised. Split the data by its source"
        )
        raise TrainingError(msg)


def _answer(example: Encoded) -> tuple[int, ...]:
    return tuple(label for label in example.labels if label != IGNORE)


def batch(number: int, supervised: int) -> None:
    """Before step `number`: the batch's loss counts at least one token."""
    if supervised == 0:
        msg = (
            f"step {number}: none of the batch's tokens is supervised; check the labels of the data"
        )
        raise TrainingError(msg)


def step(number: int, loss: float, norm: float) -> None:
    """Before step `number`'s update: loss and gradient norm are numbers; there is a gradient."""
    if not math.isfinite(loss) or not math.isfinite(norm):
        msg = (
            f"step {number}: loss {loss}, gradient norm {norm}; wanted finite numbers. Lower "
            "the learning rate"
        )
        raise TrainingError(msg)
    if norm == 0.0:
        msg = (
            f"step {number}: all gradients are zero; the adapter is not part of what the loss "
            "was computed from"
        )
        raise TrainingError(msg)
