"""Attention weights and exact statistics of them, from the queries and keys of one layer.

The weights of T tokens need T² numbers per head. Most questions need less: how much goes to the
first token, how spread out a row is, how far a head looks. Where attention is causal and nothing
else (no padding, no window, no soft-capping), the kernel's log-sum-exp gives all of these exactly
and without a softmax (`flash_statistics`). Elsewhere the rows are computed in chunks of QUERIES
queries, used and dropped (`chunked_statistics`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isqrt, prod

import torch

QUERIES = 128  # rows of weights that are in memory at once
# Weights in memory at once where they are used at once: twice that is 2 MiB, about what a core's
# cache holds.
FLASH_WEIGHTS = 2**18
FEWEST_QUERIES, MOST_QUERIES = 8, 128  # at once, however many keys they have


class CaptureError(RuntimeError):
    """Attention cannot be recorded, or was not; the message says why and what to do."""


@dataclass(frozen=True)
class AttentionCall:
    """One layer's call of attention: what its weights follow from.

    B sequences, H query heads, H' key heads (H' divides H), Q queries, K keys of width D; the last
    query stands on the last key.

    query: [B, H, Q, D], key: [B, H', K, D], both rotated where the model rotates; scale: of the
    scores; mask: None, True where q may attend to k, or added to the scores, [B or 1, 1 or H, Q,
    K]; causal: without a mask, a query attends to no later key; softcap: c of
    c · tanh(score / c) (Gemma 2), None: none.
    """

    query: torch.Tensor
    key: torch.Tensor
    scale: float
    mask: torch.Tensor | None = None
    causal: bool = True
    softcap: float | None = None

    @property
    def first_query(self) -> int:
        """Return the position of the first query among the keys."""
        return self.key.shape[2] - self.query.shape[2]

    @property
    def is_plain(self) -> bool:
        """Return whether attention is causal and nothing else: no mask, no cap, no cache."""
        square = self.query.shape[2] == self.key.shape[2]
        return self.mask is None and self.softcap is None and self.causal and square


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of the weights A[q, k] of every head and query; all [B, H, Q] in float32 or wider.

    sink: A[q, first key that the sequence may attend to]; entropy: -Σ A ln A, in nats; distance:
    Σ A · (q - k), in tokens; diagonals: offset -> A[q, q - offset], 0 where there is no such key;
    keys: [B or 1, Q], how many keys a query may attend to. A query that may attend to nothing (of
    padding) has 0 everywhere.
    """

    sink: torch.Tensor
    entropy: torch.Tensor
    distance: torch.Tensor
    diagonals: dict[int, torch.Tensor]
    keys: torch.Tensor


@dataclass(frozen=True)
class Rows:
    """The rows of queries `first` to `first` + n - 1.

    scores: [B, H, n, K], scaled and capped, -inf where a query may not attend; weights: their
    softmax, 0 there.
    """

    first: int
    scores: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class RowBlocks:
    """A matrix [B, H, Q, K] as blocks of rows, without the keys that come after all of a block.

    Of causal attention they are half of the matrix. blocks: [B, H, n, end], one below the other;
    keys: K; unseen: the value at the keys that were left out.
    """

    blocks: tuple[torch.Tensor, ...]
    keys: int
    unseen: float

    def whole(self) -> torch.Tensor:
        """Return a new tensor [B, H, Q, K]."""
        batch, heads = self.blocks[0].shape[:2]
        queries = sum(block.shape[2] for block in self.blocks)
        matrix = self.blocks[0].new_full((batch, heads, queries, self.keys), self.unseen)
        first = 0
        for block in self.blocks:
            count, end = block.shape[2:]
            matrix[:, :, first : first + count, :end] = block
            first += count
        return matrix


def rows_of_weights(call: AttentionCall, queries: int = QUERIES) -> Iterator[Rows]:
    """Yield the weights of `queries` queries after the other, in float32 or wider.

    Key head h' serves the query heads h' · H/H' to (h' + 1) · H/H' - 1 (repeat-interleave, not
    tiled; Ainslie et al. 2023, arXiv:2305.13245): the queries of a group are one matrix, so keys
    are not repeated.
    """
    batch, heads, total, width = call.query.shape
    shared = call.key.shape[1]  # H'
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    keys = call.key.to(dtype).transpose(2, 3)  # [B, H', D, K]
    for first in range(0, total, queries):
        # 1. The scores, of all keys that a causal query can see.
        chunk = call.query[:, :, first : first + queries].to(dtype)  # [B, H, n, D]
        count = chunk.shape[2]
        end = keys.shape[3]
        if call.mask is None and call.causal:
            end = call.first_query + first + count
        grouped = chunk.reshape(batch, shared, -1, width)  # [B, H', H/H'·n, D]
        scores = (grouped @ keys[..., :end]).view(batch, heads, count, end) * call.scale
        if call.softcap is not None:
            scores = torch.tanh(scores / call.softcap) * call.softcap

        # 2. What a query may not see.
        scores = _hide(call, scores, first)

        # 3. The softmax; a row of padding, which sees nothing, is 0 and not NaN.
        weights = scores.softmax(-1)
        if call.mask is not None:
            weights = weights.nan_to_num(0.0)
        yield Rows(first, scores, weights)


def _hide(call: AttentionCall, scores: torch.Tensor, first: int) -> torch.Tensor:
    """Return the scores [B, H, n, end] with -inf where a query may not attend."""
    count, end = scores.shape[2:]
    if call.mask is not None:
        mask = call.mask[:, :, first : first + count, :end]
        if mask.dtype == torch.bool:
            return scores.masked_fill(~mask, -torch.inf)
        hidden = mask <= torch.finfo(mask.dtype).min / 2  # eager's masks add the least number
        return (scores + mask).masked_fill(hidden, -torch.inf)
    if not call.causal:
        return scores
    later = torch.ones(count, end, dtype=torch.bool, device=scores.device)
    return scores.masked_fill(later.triu(call.first_query + first + 1), -torch.inf)


def visible_keys(call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many keys each query may attend to, [B or 1, Q], and the first of all, [B or 1].

    With a mask per head, those of the first head.
    """
    queries, keys = call.query.shape[2], call.key.shape[2]
    device = call.query.device
    if call.mask is not None:
        visible = call.mask[:, 0]  # [B or 1, Q, K]
        if visible.dtype != torch.bool:
            visible = visible > torch.finfo(visible.dtype).min / 2
        seen_by_any = visible.any(1).to(torch.int8)  # [B or 1, K]
        return visible.sum(-1), seen_by_any.argmax(-1)
    count = torch.full((1, queries), keys, device=device)
    if call.causal:
        count = torch.arange(call.first_query + 1, keys + 1, device=device)[None]
    return count, torch.zeros(1, dtype=torch.long, device=device)


def chunked_statistics(call: AttentionCall, offsets: Sequence[int]) -> AttentionStatistics:
    """Return the statistics from rows of weights, with any mask, window or soft-capping."""
    # 1. Room for the results.
    batch, heads, total, _ = call.query.shape
    keys, first_key = visible_keys(call)
    dtype = torch.promote_types(call.query.dtype, torch.float32)

    def empty() -> torch.Tensor:
        return torch.zeros(batch, heads, total, dtype=dtype, device=call.query.device)

    sink, entropy, distance = empty(), empty(), empty()
    diagonals = {offset: empty() for offset in offsets}

    # 2. Chunk after chunk.
    for rows in rows_of_weights(call):
        weights = rows.weights  # [B, H, n, end]
        count, end = weights.shape[2:]
        here = slice(rows.first, rows.first + count)
        places = torch.arange(end, device=weights.device)
        queries = torch.arange(count, device=weights.device) + call.first_query + rows.first
        column = first_key.expand(batch)[:, None, None, None].expand(batch, heads, count, 1)
        sink[:, :, here] = weights.gather(3, column)[..., 0]
        entropy[:, :, here] = torch.special.entr(weights).sum(-1)
        distance[:, :, here] = queries * weights.sum(-1) - weights @ places.to(dtype)
        for offset, diagonal in diagonals.items():
            source = (queries - offset)[:, None].expand(batch, heads, count, 1)
            share = weights.gather(3, source.clamp(0, end - 1))[..., 0]
            diagonal[:, :, here] = torch.where(queries >= offset, share, 0.0)
    return AttentionStatistics(sink, entropy, distance, diagonals, keys)


def flash_statistics(
    call: AttentionCall, log_sum_exp: torch.Tensor, offsets: Sequence[int]
) -> AttentionStatistics:
    """Return the statistics from the log-sum-exp of each query, [B, H, T], without a softmax.

    Only for a call that `is_plain`.
    """
    # 1. Room for the results; G = B·H' groups of r = H/H' query heads.
    batch, heads, total, _ = call.query.shape
    shared = call.key.shape[1]
    lse = log_sum_exp.to(torch.promote_types(call.query.dtype, torch.float32))
    shape = (batch * shared, total, heads // shared)  # [G, T, r]
    sink, entropy, mean_position = (lse.new_empty(shape) for _ in range(3))
    diagonals = {offset: lse.new_zeros(shape) for offset in offsets}
    positions = torch.arange(total, dtype=lse.dtype, device=lse.device)
    ones = torch.ones_like(positions)

    # 2. Chunk after chunk. The entropy -Σ A ln A and the mean position are sums over rows.
    for chunk in _chunks(call, lse):
        end = chunk.first + chunk.weights.shape[1]
        here = (chunk.groups, slice(chunk.first, end))
        sink[here] = chunk.weights[..., 0]
        for offset, diagonal in diagonals.items():
            share = chunk.weights.diagonal(chunk.first - offset, 1, 3)  # [g, r, up to n]
            diagonal[chunk.groups, end - share.shape[2] : end] = share.transpose(1, 2)
        mean_position[here] = chunk.weights @ positions[:end]
        entropy[here] = -(chunk.logarithms.mul_(chunk.weights) @ ones[:end])

    # 3. As [B, H, T]. Rounding can leave the entropy of one key, and its distance, just below 0.
    def by_head(result: torch.Tensor) -> torch.Tensor:
        return result.transpose(1, 2).reshape(batch, heads, total)

    return AttentionStatistics(
        sink=by_head(sink),
        entropy=by_head(entropy).clamp(min=0),
        distance=(positions - by_head(mean_position)).clamp(min=0),
        diagonals={offset: by_head(diagonal) for offset, diagonal in diagonals.items()},
        keys=visible_keys(call)[0],
    )


@dataclass(frozen=True)
class _Chunk:
    """The weights of n queries of g groups, `first` and those after it, with the keys up to them.

    groups: a slice of the G groups; logarithms, weights: ln A and A, [g, n, r, first + n].
    """

    groups: slice
    first: int
    logarithms: torch.Tensor
    weights: torch.Tensor


def _chunks(call: AttentionCall, lse: torch.Tensor) -> Iterator[_Chunk]:
    """Yield all weights in turn, about FLASH_WEIGHTS at once, in two buffers that all share.

    A[q, k] = exp(s·q·k - lse[q]), and what is in the exponent is one product: of [s·q, -lse] and
    [k, 1].
    """
    # 1. Both factors. A group's r queries of one position follow each other, so that the queries
    #    of a chunk of positions are one matrix.
    batch, heads, total, width = call.query.shape
    shared = call.key.shape[1]
    groups, together = batch * shared, heads // shared  # G, r
    query = call.query.to(lse.dtype).unflatten(1, (shared, together)).transpose(2, 3)
    rows = lse.new_empty(batch, shared, total, together, width + 1)
    torch.mul(query, call.scale, out=rows[..., :-1])
    torch.neg(lse.unflatten(1, (shared, together)).transpose(2, 3), out=rows[..., -1])
    rows = rows.flatten(0, 1)  # [G, T, r, D + 1]
    keys = lse.new_ones(batch, shared, width + 1, total)
    keys[:, :, :-1] = call.key.transpose(2, 3)
    keys = keys.flatten(0, 1)  # [G, D + 1, T]

    # 2. Chunks of n queries, which are n·(first + n) weights of each head. Of a short text several
    #    groups go together.
    per_head = FLASH_WEIGHTS // together
    at_once = max(1, per_head // total**2)
    bounds = [0]
    while bounds[-1] < total:
        first = bounds[-1]
        end = (first + isqrt(first**2 + 4 * per_head)) // 2  # (end - first)·end = per_head
        end = min(max(end, first + FEWEST_QUERIES), first + MOST_QUERIES)
        bounds.append(min(end, total))

    # 3. ln A, then A, with 0 where a key comes after its query.
    longest = max(end - first for first, end in pairwise(bounds))
    later = lse.new_ones(longest, longest, dtype=torch.bool).triu(1)[:, None]  # [n, 1, n]
    room = at_once * together * max((end - first) * end for first, end in pairwise(bounds))
    logarithms, weights = lse.new_empty(room), lse.new_empty(room)
    for group in range(0, groups, at_once):
        some = slice(group, min(group + at_once, groups))
        for first, end in pairwise(bounds):
            part = rows[some, first:end]  # [g, n, r, D + 1]
            shape = (*part.shape[:3], end)
            size = prod(shape)
            log_part, weights_part = logarithms[:size].view(shape), weights[:size].view(shape)
            if at_once == 1:  # all threads share one product; a batch of one has one thread
                torch.mm(part.flatten(0, 2), keys[group, :, :end], out=log_part.flatten(0, 2))
            else:
                torch.bmm(part.flatten(1, 2), keys[some, :, :end], out=log_part.flatten(1, 2))
            torch.exp(log_part, out=weights_part)
            weights_part[..., first:].masked_fill_(later[: end - first, :, : end - first], 0.0)
            yield _Chunk(some, first, log_part, weights_part)


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return causal attention [B, H, T, D] and its log-sum-exp [B, H, T], by the CPU's kernel.

    It is the kernel that sdpa uses there, and gives the same bits.
    """
    attended, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p=0.0, is_causal=True, scale=scale
    )
    return attended, log_sum_exp


def each_head(key: torch.Tensor, heads: int) -> torch.Tensor:
    """Return keys or values for each query head: [B, H', T, D] → [B, H, T, D], repeat-interleave.

    Query head h reads key head h // (H/H').
    """
    return key.repeat_interleave(heads // key.shape[1], dim=1)


def patterns(
    call: AttentionCall, positions: Iterable[int] | None = None, dtype: torch.dtype | None = None
) -> RowBlocks:
    """Return the weights [B, H, Q, K] of all queries, or of those at `positions`, on the CPU.

    dtype: of what is kept; None: as they are computed.
    """
    return _collect(call, positions, dtype, "weights", unseen=0.0)


def scores(
    call: AttentionCall, positions: Iterable[int] | None = None, dtype: torch.dtype | None = None
) -> RowBlocks:
    """Return the scores [B, H, Q, K] before the softmax; -inf where a query may not attend."""
    return _collect(call, positions, dtype, "scores", unseen=-torch.inf)


def _collect(
    call: AttentionCall,
    positions: Iterable[int] | None,
    dtype: torch.dtype | None,
    field: str,
    *,
    unseen: float,
) -> RowBlocks:
    """Return a field of all `Rows`."""
    if positions is not None:
        call = at_positions(call, list(positions))
    blocks = []
    for rows in rows_of_weights(call):
        block: torch.Tensor = getattr(rows, field)
        blocks.append(block.to(device="cpu", dtype=dtype))
    return RowBlocks(tuple(blocks), keys=call.key.shape[2], unseen=unseen)


def of_heads(call: AttentionCall, heads: Sequence[int]) -> AttentionCall:
    """Return the call of some query heads alone, each beside its own key head."""
    mask = call.mask
    if mask is not None and mask.shape[1] > 1:
        mask = mask[:, list(heads)]
    key = each_head(call.key, call.query.shape[1])
    return replace(call, query=call.query[:, list(heads)], key=key[:, list(heads)], mask=mask)


def at_positions(call: AttentionCall, positions: list[int]) -> AttentionCall:
    """Return the call of some queries alone; what they may attend to becomes a mask."""
    mask = call.mask
    if mask is None:
        keys = torch.arange(call.key.shape[2], device=call.query.device)
        queries = torch.arange(call.query.shape[2], device=call.query.device) + call.first_query
        mask = (keys[None] <= queries[:, None])[None, None]  # [1, 1, Q, K]
        if not call.causal:
            mask = torch.ones_like(mask)
    return replace(
        call, query=call.query[:, :, positions], mask=mask[:, :, positions], causal=False
    )
