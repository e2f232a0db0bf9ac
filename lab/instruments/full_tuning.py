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
    """The model cannot be fully fine-tuned as it is."""


def linear_parameters(model: "PreTrainedModel") -> dict[str, torch.nn.Parameter]:
    """Return name -> weight [m, n] of each linear layer that LoRA adapts, in layer order."""
    return {name: model.get_submodule(name).weight for name, _ in linear_weights(model)}


def gradient(model: "PreTrainedModel", batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Return name -> G = dL/dW [m, n] of each linear layer.

    L is the mean loss over the batch's supervised tokens.
    """
    with _trainable(model) as weights:
        supervised_tokens(model, pack(batch, model.device)).losses.mean().backward()
        gradients = {name: weight.grad for name, weight in weights.items()}
    return {name: grad for name, grad in gradients.items() if grad is not None}


def tune(
    loaded: Loaded, examples: Sequence[Encoded], settings: Settings, after_step: training.AfterStep
) -> tuple[list[Step], dict[str, torch.Tensor]]:
    """Train a model's linear layers in place; return steps and each layer's ΔW [m, n] in bfloat16.

    The model is left as base + the returned ΔW, rounding included.

    Raises:
        FullTuningError: the weights are not float32. A bfloat16 weight of 0.05 cannot move by less
            than 1e-4, so that most steps would be lost in rounding.
    """
    model = loaded.model
    if model.dtype != torch.float32:
        msg = (
            f"full fine-tuning of weights in {model.dtype}; expected torch.float32, load the "
            "model with that dtype"
        )
        raise FullTuningError(msg)
    with _trainable(model) as weights:
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        steps = training.train(model, examples, settings, after_step=after_step)
    with torch.no_grad():
        update = {
            name: (weight - before[name]).to(STORED)
            for name, weight in linear_parameters(model).items()
        }
    set_weights(model, before, update)
    return steps, update


def set_weights(
    model: "PreTrainedModel", before: Mapping[str, torch.Tensor], update: Mapping[str, torch.Tensor]
) -> None:
    """Set each linear layer to before + update."""
    with torch.no_grad():
        for name, weight in linear_parameters(model).items():
            weight.copy_(before[name])
            weight.add_(update[name])


@contextmanager
def _trainable(model: "PreTrainedModel") -> Iterator[dict[str, torch.nn.Parameter]]:
    """Let the linear layers, and nothing else, have gradients; afterwards nothing has."""
    model.requires_grad_(requires_grad=False)
    weights = linear_parameters(model)
    for weight in weights.values():
        weight.requires_grad_(requires_grad=True)
    try:
        yield weights
    finally:
        model.requires_grad_(requires_grad=False)
        model.zero_grad()
