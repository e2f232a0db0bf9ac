"""Everything that needs a model: the base's text, and the scores of one model.

Each call can run in a process of its own.

write(job)
    the texts that the base samples
score(job, adapter, texts)
    items -> log-likelihoods of choices; texts -> losses and divergences; adapter -> norms;
    some matrices -> similarities
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file

from lab.forgetting import base_text
from lab.forgetting.measured import ModelScores
from lab.instruments import adapters, intruders, models, multiple_choice
from lab.instruments.chat import Encoded
from lab.instruments.multiple_choice import Item
from lab.instruments.trials import DESCRIPTION, trial_from_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Job:
    """What all models of a run have in common.

    items: of all suites, in order; texts, tokens: how many texts the base writes, and their
    length; matrices: names of the linear layers that are decomposed; directions: how many
    singular vectors of each are compared.
    """

    model: Path
    dtype: str
    device: str
    items: tuple[Item, ...]
    texts: int
    tokens: int
    seed: int
    matrices: tuple[str, ...]
    directions: int


class _Stage:
    """A process's own base model, with what is computed of it once."""

    def __init__(self, job: Job) -> None:
        self.loaded = models.load(job.model, dtype=getattr(torch, job.dtype), device=job.device)
        tokenizer = self.loaded.tokenizer
        self.tokens = [multiple_choice.encode(tokenizer, item) for item in job.items]
        self.vectors = {}
        for name in job.matrices:
            weight = self.loaded.model.get_submodule(name).weight.detach()
            self.vectors[name] = intruders.left_vectors(weight)


_stage = lru_cache(maxsize=1)(_Stage)  # a process scores one model after the other


def write(job: Job) -> list[Encoded]:
    """Return the texts that the base writes."""
    loaded = _stage(job).loaded
    texts: list[Encoded] = base_text.sample(
        loaded.model, loaded.tokenizer, job.texts, tokens=job.tokens, seed=job.seed
    )
    return texts


def score(job: Job, adapter: Path | None, texts: Sequence[Encoded]) -> ModelScores:
    """Score the base, or the base with the adapter of a stored trial's folder."""
    stage = _stage(job)
    linears = [name for name, _ in models.linear_weights(stage.loaded.model)]
    if adapter is None:
        return _score(job, stage, stage.loaded.model, texts, np.zeros(len(linears)))

    trial = trial_from_json(json.loads((adapter / DESCRIPTION).read_text("utf-8"))["trial"])
    model = adapters.attach(stage.loaded, trial.lora, trial.seed)
    try:
        adapters.restore(model, load_file(adapter / adapters.WEIGHTS))
        norms = np.array([_update_norm(model, name) for name in linears])
        return _score(job, stage, model, texts, norms)
    finally:
        model.unload()  # takes the adapter's layers out of the base, which the next model uses


def _update_norm(model: PeftModel, name: str) -> float:
    """Return ‖ΔW‖_F of one linear layer, ΔW = s·B·A with A [r, in] and B [out, r].

    ‖ΔW‖_F = s·√tr(BᵀB·AAᵀ) needs two r × r matrices and none as large as the layer.
    """
    layer = model.get_base_model().get_submodule(name)
    A = layer.lora_A["default"].weight.detach().double()
    B = layer.lora_B["default"].weight.detach().double()
    squared = ((B.T @ B) * (A @ A.T)).sum()
    # rounding can leave a square just below 0
    return float(layer.scaling["default"] * float(squared.clamp(min=0).sqrt()))


def _score(
    job: Job,
    stage: _Stage,
    model: PreTrainedModel | PeftModel,
    texts: Sequence[Encoded],
    norms: np.ndarray,
) -> ModelScores:
    """Score a model on texts, matrices and items; norms: of its update, [L]."""
    distance = base_text.distance(model, texts)
    similarities = []
    for name in job.matrices:
        weight = _weight(model, name)
        row = intruders.similarities(stage.vectors[name], weight, job.directions)
        similarities.append(row.cpu().numpy())
    return ModelScores(
        log_likelihoods=multiple_choice.log_likelihoods(model, stage.tokens),
        losses=distance.losses,
        divergences=distance.divergences,
        example_ids=distance.example_ids,
        norms=norms,
        similarities=np.stack(similarities),  # [M, directions]
    )


def _weight(model: PreTrainedModel | PeftModel, name: str) -> torch.Tensor:
    """Return the weight of a linear layer [out, in], with the update of its adapter if any."""
    if not hasattr(model, "get_base_model"):
        return model.get_submodule(name).weight.detach()
    layer = model.get_base_model().get_submodule(name)
    with torch.no_grad():
        return layer.base_layer.weight + layer.get_delta_weight("default")
