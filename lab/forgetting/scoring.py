"""Everything that needs a model: the base's text, and one model's scores.

Each call can run in a process of its own.

score(job, adapter, texts)
    items → log-likelihoods of choices; texts → losses and divergences; adapter → norms;
    some matrices → similarities
"""

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
from lab.instruments import adapters, intruders, models, multiple_choice
from lab.instruments.chat import Encoded
from lab.instruments.multiple_choice import Item, Tokens
from lab.instruments.trials import DESCRIPTION, described

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Job:
    """What all models of a run have in common.

    items: of all suites, in order; texts, tokens: how many texts the base writes, and their
    length; matrices: names of linear layers whose singular vectors are looked at; directions:
    how many of them.
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


@dataclass(frozen=True)
class ModelScores:
    """What one model did. L: all linear layers; M: the matrices looked at.

    log_likelihoods: [items, choices], nats; losses, divergences, example_ids: [N], see
    `base_text.Distance`; norms: [L], ‖ΔW‖_F in the order of the layers, 0 for the base;
    similarities: [M, directions], see `intruders`.
    """

    log_likelihoods: np.ndarray
    losses: np.ndarray
    divergences: np.ndarray
    example_ids: np.ndarray
    norms: np.ndarray
    similarities: np.ndarray


class _Stage:
    """A process's own base model, with what is computed of it once."""

    def __init__(self, job: Job) -> None:
        self.loaded = models.load(job.model, dtype=getattr(torch, job.dtype), device=job.device)
        self.tokens: list[Tokens] = [
            multiple_choice.encode(self.loaded.tokenizer, item) for item in job.items
        ]
        self.vectors = {
            name: intruders.left_vectors(self.loaded.model.get_submodule(name).weight.detach())
            for name in job.matrices
        }


_stage = lru_cache(maxsize=1)(_Stage)  # a process scores one model after the other


def write(job: Job) -> list[Encoded]:
    """The texts that the base writes."""
    loaded = _stage(job).loaded
    return base_text.sample(
        loaded.model, loaded.tokenizer, job.texts, tokens=job.tokens, seed=job.seed
    )


def score(job: Job, adapter: Path | None, texts: Sequence[Encoded]) -> ModelScores:
    """Score the base, or the base with the adapter of a stored trial's folder."""
    stage = _stage(job)
    if adapter is None:
        layers = [(name, None) for name, _ in models.linear_weights(stage.loaded.model)]
        return _scored(job, stage, stage.loaded.model, texts, dict(layers))
    trial = described(json.loads((adapter / DESCRIPTION).read_text("utf-8"))["trial"])
    names = [name for name, _ in models.linear_weights(stage.loaded.model)]
    model = adapters.attach(stage.loaded, trial.lora, trial.seed)
    try:
        adapters.restore(model, load_file(adapter / adapters.WEIGHTS))
        return _scored(job, stage, model, texts, {name: _layer(model, name) for name in names})
    finally:
        model.unload()  # takes the adapter's layers out of the base, which the next model uses


@dataclass(frozen=True)
class _Layer:
    """ΔW = scale·B·A of one linear layer. A: [r, in], B: [out, r]."""

    A: torch.Tensor
    B: torch.Tensor
    scale: float

    def norm(self) -> float:
        """‖ΔW‖_F = scale·√tr(BᵀB·AAᵀ): two matrices of r × r, not one as large as the layer."""
        A, B = self.A.double(), self.B.double()
        return self.scale * float(((B.T @ B) * (A @ A.T)).sum().clamp(min=0).sqrt())


def _layer(model: "PeftModel", name: str) -> _Layer:
    layer = model.get_base_model().get_submodule(name)
    A, B = (getattr(layer, f"lora_{part}")["default"].weight.detach() for part in "AB")
    return _Layer(A, B, layer.scaling["default"])


@torch.no_grad()
def _scored(
    job: Job,
    stage: _Stage,
    model: "PeftModel",
    texts: Sequence[Encoded],
    layers: dict[str, _Layer | None],
) -> ModelScores:
    distance = base_text.distance(model, texts)
    found = []
    language_model = model.get_base_model() if hasattr(model, "get_base_model") else model
    for name in job.matrices:
        module, layer = language_model.get_submodule(name), layers[name]
        weight = (
            module.weight
            if layer is None
            else module.base_layer.weight + module.get_delta_weight("default")
        )
        found.append(
            intruders.similarities(stage.vectors[name], weight.detach(), job.directions)
            .cpu()
            .numpy()
        )
    return ModelScores(
        log_likelihoods=multiple_choice.log_likelihoods(model, stage.tokens),
        losses=distance.losses,
        divergences=distance.divergences,
        example_ids=distance.example_ids,
        norms=np.array([layer.norm() if layer else 0.0 for layer in layers.values()]),
        similarities=np.stack(found),
    )
