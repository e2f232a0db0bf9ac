"""What the first step owes to the scale alone: a derivation, checked on the real first gradient.

At the start B = 0, so only B moves, and Adam's first step has the same size whatever the
gradient's: with G = dL/dW,

    dL/dB = s·G·Aᵀ       ΔB = −lr·sign(G·Aᵀ)       ΔW = s·ΔB·A       ⟨ΔW, −G⟩ = s·lr·Σ|G·Aᵀ|

The sum has r terms per row of W, so the part of the step along −G grows as s·r, for any G: not at
all with s = α/r, as r with α = 2r, as √r with s = α/√r. That is a fact about the parametrisation
and no evidence about learning; but it has to hold here before ranks are compared at one learning
rate, so an AdamW step is made and measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lab.instruments import adapters, full_tuning, lowrank, models, training, trials
from lab.instruments.adapters import LoraSettings
from lab.instruments.trials import SweepContext, Trial
from lab.lora_rank.measured import CONVENTIONS, FirstStep


def convention(name: str, fixed: LoraSettings) -> LoraSettings:
    """Return the adapter of the same rank under one of CONVENTIONS.

    `fixed` has the alpha that is the same for all ranks.
    """
    if name == "alpha_2r":
        return dataclasses.replace(fixed, lora_alpha=2 * fixed.r)
    return dataclasses.replace(fixed, use_rslora=name == "rslora")


def study(sweep_context: SweepContext, by_seed: Sequence[Sequence[Trial]]) -> FirstStep:
    """Make the first step of each trial under all conventions.

    by_seed: one row of ranks per seed. Trials of a row have the seed in common, so the same first
    batch: one gradient G serves all.
    """
    stage = trials.Stage(sweep_context)
    # G is computed in float32, also where the adapters start from rounded weights.
    float32 = stage.loaded
    if sweep_context.dtype != "float32":
        float32 = models.load(sweep_context.model, dtype=torch.float32)
    rows = [_study_seed(stage, float32, row) for row in by_seed]
    # fields of one seed -> the same fields with the seeds in front
    return FirstStep(
        descent=np.stack([row.descent for row in rows]),
        gradient_norms=np.stack([row.gradient_norms for row in rows]),
        adapter_gradient_norms=np.stack([row.adapter_gradient_norms for row in rows]),
    )


def _study_seed(stage: trials.Stage, float32: models.Loaded, row: Sequence[Trial]) -> FirstStep:
    """Return the first steps of one seed: the arrays of FirstStep without their first axis."""
    # 1. The gradient of the first batch.
    batch_size = row[0].training.batch_size
    batch = [example.encoded for example in stage.examples(row[0])[:batch_size]]
    G = {}  # layer -> [m, n]
    gradient_norms = []
    for name, gradient in full_tuning.gradient(float32.model, batch).items():
        G[name] = gradient.cpu()
        gradient_norms.append(float(torch.linalg.norm(G[name])))

    # 2. One AdamW step for each rank and convention.
    descent = np.zeros((len(CONVENTIONS), len(row), len(G)))
    adapter_gradient_norms = np.zeros((len(CONVENTIONS), len(row)))
    for j, trial in enumerate(row):
        A = initial_a(stage.loaded, trial.lora, trial.seed)  # layer -> [r, n]
        projections = {name: G[name] @ A[name].T for name in G}  # G·Aᵀ, [m, r]
        for i, name in enumerate(CONVENTIONS):
            scale = convention(name, trial.lora).scale
            by_layer, norm = adamw_step(projections, scale, trial.training)
            descent[i, j] = by_layer
            adapter_gradient_norms[i, j] = norm
    return FirstStep(descent, np.array(gradient_norms), adapter_gradient_norms)


def adamw_step(
    projections: Mapping[str, torch.Tensor], scale: float, settings: training.Settings
) -> tuple[list[float], float]:
    """Make one AdamW step of all B from 0.

    Returns ⟨ΔW, −G⟩ = −s·⟨ΔB, G·Aᵀ⟩ of each layer, and the norm of dL/dB over all layers before
    clipping. projections: layer -> G·Aᵀ [m, r].
    """
    B = []
    for projection in projections.values():
        factor = torch.zeros_like(projection, requires_grad=True)
        factor.grad = scale * projection
        B.append(factor)
    norm = float(torch.nn.utils.clip_grad_norm_(B, settings.max_grad_norm))
    rate = training.learning_rate(0, settings)
    torch.optim.AdamW(B, lr=rate, betas=settings.betas, weight_decay=0.0).step()

    descent = []
    for factor, projection in zip(B, projections.values(), strict=True):
        descent.append(-scale * float((factor.detach() * projection).sum(dtype=torch.float64)))
    return descent, norm


def initial_a(loaded: models.Loaded, lora: LoraSettings, seed: int) -> dict[str, torch.Tensor]:
    """Return layer -> the A [r, n] that a trial of this seed starts from.

    The model is left as it was.
    """
    model = adapters.attach(loaded, lora, seed)
    factors = lowrank.factors_by_layer(adapters.state(model))
    model.unload()
    return {name: A for name, (_, A) in factors.items()}
