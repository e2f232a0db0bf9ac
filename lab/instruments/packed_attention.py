"""Attention inside each example of a pack, at the cost of the examples and not of the pack.

One mask over a pack of T tokens is right but wasteful: T² scores are computed, of which a pack of
eight examples needs an eighth. So queries, keys and values are laid out as one row per example,
causal attention runs over the rows, and the results return to their tokens' positions. Padding of
the shorter rows comes last, where no real token attends to it.

transformers finds it under the name NAME; without a `layout` it is transformers' own sdpa.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

NAME = "packed"
# tokens of a row up to which plain products beat the fused kernel on a CPU: its blocks are longer
SHORT = 48


@dataclass(frozen=True)
class RowLayout:
    """The T tokens of a pack as E rows, one per example, of L tokens (the longest example's).

    tokens: [E·L], for each position in the flattened rows the token in the pack (0 for padding);
    row_positions: [T], for each token its position in the flattened rows. A beginning that all
    examples share is in every row as key and value; its results are those of the first row.
    """

    tokens: torch.Tensor
    row_positions: torch.Tensor
    examples: int

    def to(self, device: torch.device | str) -> "RowLayout":
        """Return the same on another device."""
        return RowLayout(self.tokens.to(device), self.row_positions.to(device), self.examples)


def row_layout(
    example_ids: torch.Tensor, positions: torch.Tensor, examples: int, shared: int
) -> RowLayout | None:
    """Return a pack's rows, or None where the rows cost more than the mask: E·L² > T².

    One long example makes them so.

    Args:
        example_ids: [T], each token's example; negative for the shared beginning.
        positions: [T], each token's position in its example.
        examples: E.
        shared: length of the shared beginning.
    """
    total = len(example_ids)
    longest = int(positions.max()) + 1
    if examples * longest**2 > total**2:
        return None
    row_positions = example_ids.clamp(min=0) * longest + positions  # [T]
    tokens = torch.zeros(examples * longest, dtype=torch.long)  # [E·L]
    tokens[row_positions] = torch.arange(total)
    tokens.view(examples, longest)[:, :shared] = torch.arange(shared)
    return RowLayout(tokens, row_positions, examples)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: RowLayout | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention: query [1, H, T, D], key, value [1, H', T, D], H' divides H → [1, T, H, D].

    The signature is that of transformers.
    """
    # 1. A pack without rows, or no pack at all.
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result

    # 2. One row per example.
    # On a CPU the kernel's backward pass takes two to three times as long in bfloat16 as in
    # float32.
    on_cpu = query.device.type == "cpu"
    dtype = query.dtype
    if on_cpu and dtype == torch.bfloat16:
        dtype = torch.float32
    rows_q = _rows(query.to(dtype), layout)  # [E, H, L, D]
    rows_k = _rows(key.to(dtype), layout)  # [E, H', L, D]
    rows_v = _rows(value.to(dtype), layout)  # [E, H', L, D]

    # 3. Causal attention over the rows.
    if on_cpu and rows_q.shape[2] <= SHORT and not dropout:
        attended = _short(rows_q, rows_k, rows_v, scaling)
    else:
        attended = functional.scaled_dot_product_attention(
            rows_q,
            rows_k,
            rows_v,
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # [E, H, L, D]

    # 4. Back to the pack's order.
    flat = attended.transpose(1, 2).flatten(0, 1)  # [E·L, H, D]
    return flat.index_select(0, layout.row_positions)[None].to(query.dtype), None


def _short(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Return softmax(s·Q·Kᵀ)·V: [E, H, L, D] and [E, H', L, D] twice → [E, H, L, D].

    All scores are in memory at once. The query heads that share a key head are one matrix, so keys
    and values are not repeated.
    """
    examples, heads, length, width = query.shape
    shared = key.shape[1]  # H'
    scale = scaling
    if scale is None:
        scale = width**-0.5
    later = torch.full((length, length), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    grouped = query.reshape(examples, shared, -1, width)  # [E, H', H/H'·L, D]
    # One name for all steps: each frees the tensor of the one before, which training has to fit.
    scores = (grouped @ key.transpose(2, 3)).mul(scale)  # [E, H', H/H'·L, L]
    scores = scores.view(examples, heads, length, length) + later
    weights = scores.softmax(-1).view(examples, shared, -1, length)  # [E, H', H/H'·L, L]
    return (weights @ value).view(examples, heads, length, width)


def _rows(x: torch.Tensor, layout: RowLayout) -> torch.Tensor:
    """Return the rows of a pack: [1, H, T, D] → [E, H, L, D]."""
    flat = x[0].transpose(0, 1).index_select(0, layout.tokens)  # [E·L, H, D]
    return flat.unflatten(0, (layout.examples, -1)).transpose(1, 2)


@contextmanager
def switched_on(config: Any) -> Iterator[None]:
    """Let a model with this config use `attention` in place of sdpa.

    A model that was loaded with another implementation keeps that.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    own = config._attn_implementation  # transformers has no other name for it
    if own != "sdpa":
        yield
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = own
