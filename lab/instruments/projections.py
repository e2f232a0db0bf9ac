"""Queries and keys before the rotation, read from the projections of an attention layer.

transformers' attention interface is given q and k after RoPE. Before it they exist only as outputs
of a linear layer, whose name and layout differ by family.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from lab.instruments.attention import CaptureError


@contextmanager
def watched(
    model: torch.nn.Module,
    layers: Sequence[int],
    names: Sequence[str],
    projected: MutableMapping[tuple[int, str], torch.Tensor],
) -> Iterator[None]:
    """Write each layer's q and k to `projected` when the model runs inside the block.

    names: "q", "k" or both. The tensors hold [B, T, H, D] in this order, of some shape.

    Raises:
        CaptureError: a layer's projections are not known here.
    """
    with ExitStack() as stack:
        for module in model.modules():
            layer = getattr(module, "layer_idx", None)
            if layer not in layers or not _is_attention(module):
                continue
            for part in _parts(module, names):
                hook = partial(_note, attention=module, names=names, projected=projected)
                stack.callback(part.register_forward_hook(hook).remove)
        yield


def _is_attention(module: torch.nn.Module) -> bool:
    return any(
        hasattr(module, name) for name in ("q_proj", "qkv_proj", "query_key_value", "c_attn")
    )


def _parts(module: torch.nn.Module, names: Sequence[str]) -> list[torch.nn.Module]:
    """Return the linear layers with the named projections."""
    if hasattr(module, "q_proj"):
        return [getattr(module, f"{name}_proj") for name in names]
    for fused in ("qkv_proj", "query_key_value", "c_attn"):
        if hasattr(module, fused):
            return [getattr(module, fused)]
    msg = f"q and k before the rotation are not known for {type(module).__name__}; "
    msg += "record rot_q and rot_k"
    raise CaptureError(msg)


def _note(
    part: torch.nn.Module,
    _inputs: Any,
    output: torch.Tensor,
    *,
    attention: torch.nn.Module,
    names: Sequence[str],
    projected: MutableMapping[tuple[int, str], torch.Tensor],
) -> None:
    """Write what one linear layer [B, T, …] says about q and k."""
    for name in names:
        tensor = _of_output(attention, part, name, output.detach())
        if tensor is not None:
            projected[attention.layer_idx, name] = tensor


def _of_output(
    attention: torch.nn.Module, part: torch.nn.Module, name: str, output: torch.Tensor
) -> torch.Tensor | None:
    """Return q or k as [B, T, H·D] or [B, T, H, D]; None: `part` is the other one's."""
    # 1. A layer of its own, normalised in some families (Qwen 3, Gemma 3, OLMo 2).
    if hasattr(attention, "q_proj"):
        if part is not getattr(attention, f"{name}_proj"):
            return None
        norm = getattr(attention, f"{name}_norm", None)
        if norm is None:
            return output
        width = norm.weight.shape[-1]  # D, or H·D where all heads are normalised together
        return norm(output.view(*output.shape[:2], -1, width))

    # 2. One layer for all: GPT-NeoX, whose heads each have q, k, v side by side.
    batch, total, _ = output.shape
    place = ("q", "k").index(name)
    if hasattr(attention, "query_key_value"):
        by_head = output.view(batch, total, -1, 3 * attention.head_size)
        return by_head.chunk(3, dim=-1)[place]

    # 3. GPT-2: all of q, all of k, all of v, equally wide.
    if hasattr(attention, "c_attn"):
        return output.chunk(3, dim=-1)[place]

    # 4. Phi-3: the same, but k and v have fewer heads.
    config: Any = attention.config
    query_width = config.num_attention_heads * attention.head_dim
    key_width = config.num_key_value_heads * attention.head_dim
    return output.split([query_width, key_width, key_width], dim=-1)[place]
