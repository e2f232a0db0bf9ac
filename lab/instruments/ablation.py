"""Attention heads switched off: their result z is set to 0 before the output projection.

The causal test beside a picture of a head: does the model lose what the picture suggests? Always
beside as many other heads, drawn at random, because any ablation costs something.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from lab.instruments.attention import CaptureError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Head = tuple[int, int]  # layer, query head

OUTPUTS = ("o_proj", "dense", "c_proj")  # Llama and its relatives, GPT-NeoX, GPT-2


@contextmanager
def zeroed(model: PreTrainedModel | PeftModel, heads: Collection[Head]) -> Iterator[None]:
    """Set z of these heads to 0 in every forward pass inside the block.

    Raises:
        CaptureError: a head does not exist, or its output projection is not known here.
    """
    config = model.config.get_text_config()
    shape = (config.num_hidden_layers, config.num_attention_heads)
    for layer, head in heads:
        if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
            msg = f"layer {layer}, head {head} does not exist; the model has {shape[0]} layers of "
            msg += f"{shape[1]} heads"
            raise CaptureError(msg)

    by_layer: dict[int, list[int]] = {}
    for layer, head in sorted(set(heads)):
        by_layer.setdefault(layer, []).append(head)
    with ExitStack() as stack:
        for layer, numbers in by_layer.items():
            part = _output_projection(model, layer)
            hook = partial(_zero, numbers=numbers, count=shape[1])
            stack.callback(part.register_forward_pre_hook(hook).remove)
        yield


def _output_projection(model: torch.nn.Module, layer: int) -> torch.nn.Module:
    """Return the linear layer that reads z of a layer."""
    for module in model.modules():
        if getattr(module, "layer_idx", None) != layer:
            continue
        for name in OUTPUTS:
            part = getattr(module, name, None)
            if isinstance(part, torch.nn.Module):
                return part
    msg = f"layer {layer} has no output projection known here ({', '.join(OUTPUTS)})"
    raise CaptureError(msg)


def _zero(
    _part: torch.nn.Module, inputs: tuple[Any, ...], *, numbers: list[int], count: int
) -> tuple[Any, ...]:
    """Return the projection's inputs with z of some heads 0; z is [B, T, H·D]."""
    z = inputs[0].clone()
    z.unflatten(-1, (count, -1))[:, :, numbers] = 0  # a view: [B, T, H, D]
    return (z, *inputs[1:])
