"""Full fine-tuning of a small model's linear layers, in contrast to LoRA: same loop, data, loss."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from lab.instruments import training
from lab.instruments.chat import Encoded
from lab.instruments.models import Loaded, linear_weights
from lab.instruments.packing import pack, supervised_tokens
from lab.instruments.training import Settings, Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STORED = torch.bfloat16  # of an update on disk; what is evaluated is what is stored


class FullTuningError(RuntimeError):
    """Full fine-tuning would silently do something else."""


def linears(model: "PreTrainedModel") -> dict[str, torch.nn.Parameter]:
    """Name and weight [m, n] of each linear layer that LoRA adapts, in the order of the layers."""
    return {name: model.get_submodule(name).weight for name, _ in linear_weights(model)}


def gradient(model: "PreTrainedModel", batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """G = dL/dW [m, n] of each linear layer, for the mean loss over a batch's supervised tokens."""
    with _trainable(model) as weights:
        supervised_tokens(model, pack(batch, model.device)).losses.mean().backward()
        found = {name: weight.grad for name, weight in weights.items()}
    return {name: grad for name, grad in found.items() if grad is not None}


def tune(
    loaded: Loaded, examples: Sequence[Encoded], settings: Settings, after_step: training.AfterStep
) -> tuple[list[Step], dict[str, torch.Tensor]]:
    """Train a model's linear layers in place; give steps and each layer's ΔW [m, n] in bfloat16.

    The model is left as base + the ΔW that is given, rounding included.

    Raises:
        FullTuningError: the weights are not float32. A bfloat16 weight of 0.05 cannot move by less
            than 1e-4, so that most steps would be lost in rounding.
    """
    model = loaded.model
    if model.dtype != torch.float32:
        msg = (
            f"full fine-tuning of weights in {model.dtype}; wanted torch.float32, load the "
            "model with that dtype"
        )
        raise FullTuningError(msg)
    with _trainable(model) as weights:
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        steps = training.train(model, examples, settings, after_step=after_step)
    with torch.no_grad():
        update = {
            name: (weight - before[name]).to(STORED) for name, weight in linears(model).items()
        }
    put(model, before, update)
    return steps, update


@torch.no_grad()
def put(
    model: "PreTrainedModel", before: Mapping[str, torch.Tensor], update: Mapping[str, torch.Tensor]
) -> None:
    """Set each linear layer to before + update."""
    for name, weight in linears(model).items():
        weight.copy_(before[name])
        weight.add_(update[name])


@contextmanager
def _trainable(model: "PreTrainedModel") -> Iterator[dict[str, torch.nn.Parameter]]:
    """Let the linear layers, and nothing else, have gradients; afterwards nothing has."""
    model.requires_grad_(False)
    weights = linears(model)
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        yield weights
    finally:
        model.requires_grad_(False)
        model.zero_grad()
