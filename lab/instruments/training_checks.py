"""Checks that stop a training run which would fail silently, with a plausible loss curve."""

import math
from collections.abc import Mapping, Sequence

import torch

from lab.instruments.chat import IGNORE, Encoded


class TrainingError(RuntimeError):
    """Training went wrong in a way that would otherwise be silent."""


def before(
    trained: Mapping[str, torch.Tensor], examples: Sequence[Encoded], held_out: Sequence[Encoded]
) -> None:
    """Check, before the first step, that something is trained and that the examples can teach it.

    Args:
        trained: tensors that are trained, by name.
        examples: training examples.
        held_out: those that the run will be evaluated on.

    Raises:
        TrainingError: nothing is trained, all labels are equal, or a held-out answer is learned.
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
            f"every supervised token is the same, id {tokens[0]}; expected answers. Check "
            "the labels of the data"
        )
        raise TrainingError(msg)
    leaked = [number for number, example in enumerate(held_out) if _answer(example) in answers]
    if leaked:
        msg = (
            f"{len(leaked)} of {len(held_out)} held-out examples have the answer of a training "
            f"example, the first is number {leaked[0]}; expected none: they would measure what was "
            "memorised. Split the data by its source"
        )
        raise TrainingError(msg)


def _answer(example: Encoded) -> tuple[int, ...]:
    return tuple(label for label in example.labels if label != IGNORE)


def batch(number: int, supervised: int) -> None:
    """Check, before step `number`, that the batch's loss counts at least one token."""
    if supervised == 0:
        msg = (
            f"step {number}: none of the batch's tokens is supervised; check the labels of the data"
        )
        raise TrainingError(msg)


def step(number: int, loss: float, norm: float) -> None:
    """Check, before step `number`'s update, loss and gradient norm: finite, and not zero."""
    if not math.isfinite(loss) or not math.isfinite(norm):
        msg = (
            f"step {number}: loss {loss}, gradient norm {norm}; expected finite numbers. Lower "
            "the learning rate"
        )
        raise TrainingError(msg)
    if norm == 0.0:
        msg = (
            f"step {number}: all gradients are zero; the adapter is not part of what the loss "
            "was computed from"
        )
        raise TrainingError(msg)
