"""What the first step owes to the scale alone: a derivation, checked on the real first gradient.

At the start B = 0, so only B moves, and Adam's first step has the same size whatever the
gradient's: with G = dL/dW,

    dL/dB = s·G·Aᵀ       ΔB = −lr·sign(G·Aᵀ)       ΔW = s·ΔB·A       ⟨ΔW, −G⟩ = s·lr·Σ|G·Aᵀ|

The sum has r terms per row of W, so the part of the step along −G grows as s·r, for any G: not at
all with s = α/r, as r with α = 2r, as √r with s = α/√r. That is a fact about the parametrisation
and no evidence about learning; but it has to hold here before ranks are compared at one learning
rate, so an AdamW step is made and observations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lab.instruments import adapters, full_tuning, lowrank, models, training, trials
from lab.instruments.adapters import LoraSettings
from lab.instruments.trials import SweepContext, Trial

CONVENTIONS = ("alpha_fixed", "alpha_2r", "rslora")


@dataclass(frozen=True)
class FirstStep:
    """What the first steps did, by seed, convention, rank and layer.

    along: [seeds, 3, ranks, L], ⟨ΔW, −G⟩ of each layer; gradient: [seeds, L], ‖G‖_F;
    adapter_gradient: [seeds, 3, ranks], the norm of dL/dB over all layers, before clipping.
    """

    along: np.ndarray
    gradient: np.ndarray
    adapter_gradient: np.ndarray


def convention(name: str, fixed: LoraSettings) -> LoraSettings:
    """The adapter of the same rank under one of CONVENTIONS; `fixed` has the alpha that is kept."""
    if name == "alpha_2r":
        return dataclasses.replace(fixed, lora_alpha=2 * fixed.r)
    return dataclasses.replace(fixed, use_rslora=name == "rslora")


def study(sweep_context: SweepContext, planned: Sequence[Sequence[Trial]]) -> FirstStep:
    """Make the first step of each trial, given as one row of ranks per seed, under all conventions.

    Trials of a row have the seed in common, so the same first batch: one gradient G serves all.
    """
    stage = trials.Stage(sweep_context)
    whole = (
        stage.loaded
        if sweep_context.dtype == "float32"
        else models.load(sweep_context.model, dtype=torch.float32)
    )
    rows = [_of_seed(stage, whole, row) for row in planned]
    return FirstStep(*(np.stack(parts) for parts in zip(*rows, strict=True)))


def _of_seed(
    stage: trials.Stage, whole: models.Loaded, row: Sequence[Trial]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = row[0].training.batch_size
    batch = [example.encoded for example in stage.examples(row[0])[:size]]
    G = {name: grad.cpu() for name, grad in full_tuning.gradient(whole.model, batch).items()}
    along, norms = (
        np.zeros((len(CONVENTIONS), len(row), len(G))),
        np.zeros((len(CONVENTIONS), len(row))),
    )
    for j, trial in enumerate(row):
        A = initial_a(stage.loaded, trial.lora, trial.seed)
        seen = {name: G[name] @ A[name].T for name in G}  # G·Aᵀ, [m, r]
        for i, name in enumerate(CONVENTIONS):
            scale = convention(name, trial.lora).scale
            along[i, j], norms[i, j] = _step(seen, scale, trial.training)
    return along, np.array([float(torch.linalg.norm(grad)) for grad in G.values()]), norms


def _step(
    seen: Mapping[str, torch.Tensor], scale: float, settings: training.Settings
) -> tuple[list[float], float]:
    """One AdamW step of all B from 0: ⟨ΔW, −G⟩ of each layer, and the norm of the gradient.

    ⟨ΔW, −G⟩ = −s·⟨ΔB, G·Aᵀ⟩.
    """
    B = [torch.zeros_like(part, requires_grad=True) for part in seen.values()]
    for factor, part in zip(B, seen.values(), strict=True):
        factor.grad = scale * part
    norm = float(torch.nn.utils.clip_grad_norm_(B, settings.max_grad_norm))
    torch.optim.AdamW(
        B, lr=training.learning_rate(0, settings), betas=settings.betas, weight_decay=0.0
    ).step()
    pairs = zip(B, seen.values(), strict=True)
    return [
        -scale * float((factor.detach() * part).sum(dtype=torch.float64)) for factor, part in pairs
    ], norm


def initial_a(loaded: models.Loaded, lora: LoraSettings, seed: int) -> dict[str, torch.Tensor]:
    """The A [r, n] that a trial of this seed starts from, by the name of its layer.

    The model is left as it was.
    """
    model = adapters.attach(loaded, lora, seed)
    found = {name: A for name, _, A in lowrank.factors(adapters.state(model))}
    model.unload()
    return found


def slopes(found: FirstStep, ranks: Sequence[int]) -> np.ndarray:
    """[seeds, 3]: d log(Σ⟨ΔW, −G⟩ / ‖G‖) / d log r, a straight line fitted over the ranks."""
    # [seeds, 3, ranks]
    total = found.along.sum(-1) / np.sqrt((found.gradient**2).sum(-1))[:, None, None]
    x = np.log(np.asarray(ranks, dtype=np.float64))
    x = x - x.mean()
    return (np.log(total) * x).sum(-1) / (x**2).sum()
