"""Running a model on token sequences and recording its attention, residual norms and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lab.attention_views.measured import Head, SetStatistics
from lab.instruments.ablation import zeroed
from lab.instruments.capture import AttentionExtractor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def statistics_of(
    model: PreTrainedModel, ids: torch.Tensor, *, period: int | None = None
) -> tuple[SetStatistics, np.ndarray]:
    """Return the statistics of every head on ids [B, T], and the residual's norms [B, L, T].

    With the `period` S of repeated sequences also the diagonals S - 1 and S.
    """
    offsets = [1]
    if period is not None:
        offsets += [period - 1, period]
    extractor = AttentionExtractor(model, record=("pattern",), statistics=True, offsets=offsets)
    with extractor, torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states
    extractor.require_all_recorded()

    def stacked(tensors: Sequence[torch.Tensor]) -> np.ndarray:
        return np.asarray(torch.stack(list(tensors), dim=1).float().cpu())  # [B, L, …]

    layers = [extractor.statistics[layer] for layer in extractor.layers]
    second = [extractor["pattern", layer][..., 1] for layer in extractor.layers]  # [B, H, T] each
    statistics = SetStatistics(
        sink=stacked([layer.sink for layer in layers]),
        second=stacked(second),
        entropy=stacked([layer.entropy for layer in layers]),
        distance=stacked([layer.distance for layer in layers]),
        previous=stacked([layer.diagonals[1] for layer in layers]),
    )
    if period is not None:
        statistics = SetStatistics(
            **vars(statistics)
            | {
                "induction": stacked([layer.diagonals[period - 1] for layer in layers]),
                "duplicate": stacked([layer.diagonals[period] for layer in layers]),
            }
        )
    # hidden_states[l] enters layer l; the last one is behind the final norm and enters none
    norms = stacked([state.float().norm(dim=-1) for state in hidden[:-1]])  # [B, L, T]
    return statistics, norms


def patterns_of(model: PreTrainedModel, ids: torch.Tensor) -> np.ndarray:
    """Return the attention patterns of one sequence [T]: [L, H, T, T]."""
    extractor = AttentionExtractor(model, record=("pattern",))
    with extractor, torch.no_grad():
        model(ids[None])
    extractor.require_all_recorded()
    stacked = extractor.stacked("pattern")  # [L, 1, H, T, T]
    patterns: np.ndarray = stacked[:, 0].float().numpy()
    return patterns


def token_losses(
    model: PreTrainedModel, ids: torch.Tensor, heads: Sequence[Head] = ()
) -> np.ndarray:
    """Return the losses of tokens 1 to T - 1 in nats, [B, T - 1], with `heads` switched off."""
    with zeroed(model, heads), torch.no_grad():
        logits = model(ids).logits[:, :-1].float()  # [B, T - 1, V]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return np.asarray(losses.view(ids.shape[0], -1).cpu().numpy())


def untrained(model: PreTrainedModel, seed: int) -> Any:
    """Return a model of the same architecture with random weights."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        control = AutoModelForCausalLM.from_config(
            model.config, dtype=model.dtype, attn_implementation="sdpa"
        )
    return control.to(model.device).eval()
