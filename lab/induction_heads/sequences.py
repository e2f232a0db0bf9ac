"""Sequences to copy: a random piece of varying length, again and again."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(
    count: int,
    length: int,
    vocabulary: int,
    periods: tuple[int, int],
    generator: torch.Generator,
    *,
    repeated: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return token ids [count, length] and the period [count] of each sequence.

    Tokens are drawn evenly from the vocabulary; from its period on, which is drawn evenly from
    `periods` (both ends included), a sequence repeats what it had a period before. So no fixed
    distance is the right one to copy from. With `repeated` False nothing repeats: every token is
    drawn, and no model can predict any of them better than 1 / vocabulary.
    """
    ids = torch.randint(vocabulary, (count, length), generator=generator)
    shortest, longest = periods
    drawn = torch.randint(shortest, longest + 1, (count,), generator=generator)
    if repeated:
        sources = torch.arange(length)[None, :] % drawn[:, None]  # [count, length]
        ids = ids.gather(1, sources)
    return ids, drawn


def copying_queries(periods: Tensor, length: int) -> Tensor:
    """Return which queries [count, length] can copy their next token: those of the second copy.

    The query at q, with P <= q <= 2P - 2, has seen its token at q - P and can copy what followed
    there, the token at q - P + 1. The last token of the first copy does not count: nothing shows
    yet that the sequence repeats.
    """
    queries = torch.arange(length)[None, :]  # [1, length]
    first = periods[:, None]  # [count, 1]
    return (queries >= first) & (queries <= 2 * first - 2)


def copied_keys(periods: Tensor, length: int) -> Tensor:
    """Return the key q - P + 1 [count, length] that a query q would copy from; 0 before it."""
    queries = torch.arange(length)[None, :]
    return (queries - periods[:, None] + 1).clamp(min=0)
