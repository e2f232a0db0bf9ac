"""Attention inside each example of a pack, at the cost of the examples and not of the pack.

One mask over a pack of T tokens is right and wasteful: T² scores are computed, of which a pack of
eight examples needs an eighth. So queries, keys and values are laid out as one row per example,
causal attention runs over the rows, and the results go back to where their tokens stand. What fills
the shorter rows comes last, where no real token looks.

transformers finds it under the name NAME; without `apart` it is transformers' own sdpa.
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
class Apart:
    """Where the T tokens of a pack stand when its E examples, of at most L tokens, are rows.

    tokens: [E·L], for each place of a row the token in the pack (0 where the row is filled up);
    places: [T], for each token its place in the flattened rows. A beginning that all examples share
    stands in every row as key and value, and is taken back from the first.
    """

    tokens: torch.Tensor
    places: torch.Tensor
    examples: int

    def to(self, device: torch.device | str) -> "Apart":
        """The same on another device."""
        return Apart(self.tokens.to(device), self.places.to(device), self.examples)


def apart(owner: torch.Tensor, positions: torch.Tensor, examples: int, shared: int) -> Apart | None:
    """A pack's rows, or None where one long example makes them dearer than the mask: E·L² > T².

    Args:
        owner: [T], each token's example; negative for the shared beginning.
        positions: [T], each token's place in its example.
        examples: E.
        shared: length of the shared beginning.
    """
    total = len(owner)
    longest = int(positions.max()) + 1
    if examples * longest**2 > total**2:
        return None
    places = owner.clamp(min=0) * longest + positions  # [T]
    tokens = torch.zeros(examples * longest, dtype=torch.long)
    tokens[places] = torch.arange(total)
    tokens.view(examples, longest)[:, :shared] = torch.arange(shared)
    return Apart(tokens, places, examples)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    apart: Apart | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Query [1, H, T, D], key and value [1, H', T, D] with H' dividing H → [1, T, H, D].

    The signature is that of transformers.
    """
    if apart is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    # On a CPU the kernel's backward pass takes two to three times as long in bfloat16 as in
    # float32.
    dtype = (
        torch.float32
        if query.device.type == "cpu" and query.dtype == torch.bfloat16
        else query.dtype
    )
    rows = [_rows(x.to(dtype), apart) for x in (query, key, value)]
    if query.device.type == "cpu" and rows[0].shape[2] <= SHORT and not dropout:
        found = _short(*rows, scaling)
    else:
        found = functional.scaled_dot_product_attention(
            *rows,
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # [E, H, L, D]
    return found.transpose(1, 2).flatten(0, 1).index_select(0, apart.places)[None].to(
        query.dtype
    ), None


def _short(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """softmax(s·Q·Kᵀ)·V, all scores in memory; [E, H, L, D] and [E, H', L, D] twice → [E, H, L, D].

    The query heads that share a key head stand in one matrix, so keys and values are not repeated.
    """
    examples, heads, length, width = query.shape
    shared = key.shape[1]  # H'
    scale = width**-0.5 if scaling is None else scaling
    later = torch.full((length, length), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    grouped = query.reshape(examples, shared, -1, width)  # [E, H', H/H'·L, D]
    scores = (grouped @ key.transpose(2, 3)).mul(scale).view(
        examples, heads, length, length
    ) + later
    return (scores.softmax(-1).view(examples, shared, -1, length) @ value).view(
        examples, heads, length, width
    )


def _rows(x: torch.Tensor, apart: Apart) -> torch.Tensor:
    """[1, H, T, D] → [E, H, L, D]."""
    return (
        x[0]
        .transpose(0, 1)
        .index_select(0, apart.tokens)
        .unflatten(0, (apart.examples, -1))
        .transpose(1, 2)
    )


@contextmanager
def switched_on(config: Any) -> Iterator[None]:
    """Let a model with this config use `attention` in place of sdpa.

    One that was loaded with another stays with it.
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
