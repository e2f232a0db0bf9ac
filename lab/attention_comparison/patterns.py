"""Attention patterns of one model on all prompts, and what is compared of two models.

Prompts of a kind are one batch, padded on the right without a mask: a causal model's earlier
positions cannot see what is behind them, and the padding's own queries are left out of every mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.attention_comparison.prompts import COMPARED, FIRST_QUERY, REPEATED, Prompt
from lab.instruments.capture import AttentionExtractor
from lab.instruments.head_scores import distance_without_sink, js_divergence

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Batch:
    """The prompts of one kind: ids [B, T], padded with 0; lengths: of each prompt."""

    kind: str
    ids: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def counted(self) -> torch.Tensor:
        """Return [B, T]: True for the queries with enough keys, padding left out."""
        queries = torch.arange(self.ids.shape[1])
        lengths = torch.tensor(self.lengths)[:, None]  # [B, 1]
        return (queries >= FIRST_QUERY) & (queries < lengths)


def batches(prompts: Sequence[Prompt]) -> dict[str, Batch]:
    """Return kind -> its prompts as one batch, in order."""
    by_kind: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_kind.setdefault(prompt.kind, []).append(prompt)
    made = {}
    for kind, group in by_kind.items():
        lengths = tuple(len(prompt.ids) for prompt in group)
        ids = torch.zeros(len(group), max(lengths), dtype=torch.long)  # [B, T]
        for row, prompt in zip(ids, group, strict=True):
            row[: len(prompt.ids)] = torch.tensor(prompt.ids)
        made[kind] = Batch(kind, ids, lengths)
    return made


@torch.no_grad()  # type: ignore[untyped-decorator]
def record(model: PeftModel, prompts: dict[str, Batch]) -> dict[str, torch.Tensor]:
    """Return kind -> the patterns of all layers and heads, [L, B, H, T, T] in float32."""
    model.eval()
    device = next(model.parameters()).device
    transformer = model.get_base_model().base_model  # no head: no logits are needed
    recorded = {}
    with AttentionExtractor(model) as extractor:
        for kind, batch in prompts.items():
            extractor.clear()
            transformer(input_ids=batch.ids.to(device), use_cache=False)
            extractor.require_all_recorded()
            recorded[kind] = extractor.stacked("pattern").float()
    return recorded


def divergences(
    prompts: dict[str, Batch], one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]
) -> np.ndarray:
    """Return the Jensen-Shannon divergence of each head on each compared prompt, [L·H, P], nats.

    The mean over a prompt's queries. In double precision: most heads move by less than 1e-3.
    """
    columns = []
    for kind in COMPARED:
        rows = []
        for layer_one, layer_other in zip(one[kind], other[kind], strict=True):
            rows.append(js_divergence(layer_one.double(), layer_other.double()))  # [B, H, T]
        columns.append(_mean_over_queries(torch.stack(rows), prompts[kind]))
    return np.concatenate(columns, axis=1)


def statistics(
    prompts: dict[str, Batch], recorded: dict[str, torch.Tensor], period: int
) -> dict[str, np.ndarray]:
    """Return the statistics of each head on each prompt, by name, as `measured.STATISTICS` has it.

    sink, entropy, distance, distance_without_sink: [L·H, P]; induction: [L·H, repeated prompts].
    """
    # 1. What is the mean over a prompt's queries.
    columns: dict[str, list[np.ndarray]] = {}
    for kind in COMPARED:
        for name, values in _per_query(recorded[kind].double()).items():
            columns.setdefault(name, []).append(_mean_over_queries(values, prompts[kind]))
    means = {name: np.concatenate(parts, axis=1) for name, parts in columns.items()}

    # 2. A[q, q - (period - 1)], the token after the first copy of q, over the second copy.
    diagonal = recorded[REPEATED].diagonal(offset=1 - period, dim1=-2, dim2=-1)  # [L, B, H, ·]
    second_copy = (
        diagonal[..., 2:].double().mean(-1)
    )  # [L, B, H]; before it: q = period - 1, period
    means["induction"] = second_copy.transpose(1, 2).flatten(0, 1).numpy()  # [L·H, B]
    return means


def _per_query(weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the statistics of every row of patterns [L, B, H, T, T]; each [L, B, H, T]."""
    places = torch.arange(weights.shape[-1], dtype=weights.dtype)
    largest = torch.log(places + 1).clamp(min=1e-9)  # entropy of an even row; of one key it is 0
    sink = weights[..., 0]
    distance = places - weights @ places
    return {
        "sink": sink,
        "entropy": torch.special.entr(weights).sum(-1) / largest,
        "distance": distance,
        "distance_without_sink": distance_without_sink(distance, sink),
    }


def _mean_over_queries(values: torch.Tensor, batch: Batch) -> np.ndarray:
    """Return the mean over the counted queries: [L, B, H, T] → [L·H, B]."""
    counted = batch.counted.to(values.dtype)[:, None]  # [B, 1, T]
    means = (values * counted).sum(-1) / counted.sum(-1)  # [L, B, H]
    array: np.ndarray = means.transpose(1, 2).flatten(0, 1).numpy()
    return array
