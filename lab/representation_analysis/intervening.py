"""The causal tests: one number of the stream set to something else, writes replaced by means."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch

from lab.instruments.activations import ActivationExtractor
from lab.instruments.interventions import Part, coordinate_set, started_at, write_replaced
from lab.representation_analysis.measured import (
    BASE,
    MEAN,
    ZEROED,
    AnalysisPlan,
    Interventions,
    Stream,
    Target,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS: tuple[Part, ...] = ("attention", "mlp")


def target_of(
    layer: int, stream: Stream, recorded: torch.Tensor, plan: AnalysisPlan, seed: int
) -> Target:
    """Return the number to change: the first token's largest dimension in the output of `layer`.

    Largest by |mean| over the sequences of `recorded` [L + 1, B, T, D]. The control dimensions are
    drawn from all that no massive activation is in, in the order of their numbers.
    """
    means = recorded[layer + 1, :, 0].double().mean(0)  # [D]
    dimension = int(means.abs().argmax())
    taken = {dimension, *stream.hits[:, 3].tolist()}
    free = [number for number in range(len(means)) if number not in taken]
    others = random.Random(seed).sample(free, plan.dimensions)
    return Target(layer, dimension, float(means[dimension]), tuple(others))


def interventions_of(
    model: PreTrainedModel,
    ids: torch.Tensor,
    target: Target,
    writes: torch.Tensor,
    plan: AnalysisPlan,
) -> Interventions:
    """Run the model on ids [B', T'] under every intervention.

    writes: those of the other sequences, [2, L, B, T, D], whose means replace writes here.
    """
    extractor = ActivationExtractor(model, record=("resid_pre",))
    with extractor, torch.no_grad():
        model(ids, use_cache=False)
    extractor.require_all_recorded()

    # 1. One number. What is before its layer stays as it was.
    layer = target.layer
    losses = {BASE: token_losses(model, ids)}
    changes = {ZEROED: (target.dimension, 0.0), MEAN: (target.dimension, target.mean)}
    changes |= {name: (other, 0.0) for name, other in zip(plan.others, target.others, strict=True)}
    for name, (dimension, value) in changes.items():
        with (
            started_at(model, layer, extractor["resid_pre", layer]),
            coordinate_set(model, layer, 0, dimension, value),
        ):
            losses[name] = token_losses(model, ids)

    # 2. Every write of a layer, behind the first token.
    means = writes[:, :, :, 1:].double().mean((2, 3)).to(writes.dtype)  # [2, L, D]
    start = ids[: plan.ablated]
    ablated = []
    for number, part in enumerate(PARTS):
        for each in range(means.shape[1]):
            stream = extractor["resid_pre", each][: plan.ablated]
            vector = means[number, each]
            with (
                started_at(model, each, stream),
                write_replaced(model, each, part, vector, first=1),
            ):
                ablated.append(token_losses(model, start))
    shape = (*means.shape[:2], *ablated[0].shape)  # [2, L, A, T' - 1]
    return Interventions(target, losses, np.moveaxis(np.stack(ablated).reshape(shape), 2, 0))


def token_losses(model: PreTrainedModel, ids: torch.Tensor) -> np.ndarray:
    """Return the losses of tokens 1 to T - 1 in nats, [B, T - 1]."""
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return np.asarray(losses.view(ids.shape[0], -1).cpu().numpy())
