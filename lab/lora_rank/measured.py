"""What the experiment hands to its numbers, tables, figures and findings. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.training import Step
    from lab.instruments.trials import TrialResult

# Conventions for the scale s of ΔW = s·B·A: s = α/r with α fixed, s = α/r with α = 2r, s = α/√r.
CONVENTIONS = ("alpha_fixed", "alpha_2r", "rslora")

# What of two updates is compared: the left and the right side of ΔW, A − A_0, random directions.
SIDES = ("left", "right", "learned", "null")


@dataclass(frozen=True)
class FirstStep:
    """What the first optimizer steps did, by seed, convention, rank and layer.

    descent: [seeds, 3, ranks, L], ⟨ΔW, −G⟩ of each layer, the loss that the step saves to first
    order; gradient_norms: [seeds, L], ‖G‖_F; adapter_gradient_norms: [seeds, 3, ranks], the norm
    of dL/dB over all layers, before clipping.
    """

    descent: np.ndarray
    gradient_norms: np.ndarray
    adapter_gradient_norms: np.ndarray


@dataclass(frozen=True)
class UpdateSpectra:
    """Singular values and directions of the trained updates, layer by layer.

    values: trial's name -> singular values of each layer's ΔW [L, r], with zeros where a layer has
    fewer; inside_norms: trial's name -> ‖U_kᵀ·W·V_k‖_F [L] in its k strongest directions, k the
    smallest rank; overlaps: one of SIDES -> φ(i, i) of the smallest and the largest rank
    [seeds, L, i = 1 … k]; weight_norms: ‖W‖_F [L].
    """

    values: Mapping[str, np.ndarray]
    inside_norms: Mapping[str, np.ndarray]
    overlaps: Mapping[str, np.ndarray]
    weight_norms: np.ndarray


@dataclass(frozen=True)
class FullTuningRun:
    """One full fine-tuning: its steps, its update layer by layer, and what parts of it achieve.

    kinds: each layer's kind (q_proj …); shapes: its [m, n], [L, 2]; values: singular values of its
    ΔW [L, most], with zeros where a layer has fewer; evaluations: "full", "rank K" for each cut,
    "random K" for the control.
    """

    steps: tuple[Step, ...]
    kinds: tuple[str, ...]
    shapes: np.ndarray
    values: np.ndarray
    evaluations: Mapping[str, Evaluation]

    @property
    def largest_ranks(self) -> np.ndarray:
        """The largest rank that each layer's ΔW can have: [L]."""
        ranks: np.ndarray = self.shapes.min(1)
        return ranks


@dataclass(frozen=True)
class LoraRankObservations:
    """Everything that a run measured.

    sweep_settings: the description of the sweep's context; base: the model without an adapter;
    settings: name (r8 … r64, alpha_2r, rslora) -> its trials, one per seed in order;
    adapter_parameters: setting -> numbers in its stored adapter.
    """

    sweep_settings: Mapping[str, Any]
    base: Evaluation
    settings: Mapping[str, Sequence[TrialResult]]
    adapter_parameters: Mapping[str, int]
    first_step: FirstStep
    spectra: UpdateSpectra
    full_tuning: FullTuningRun

    @property
    def by_rank(self) -> dict[int, Sequence[TrialResult]]:
        """The trials of the primary comparison, with alpha fixed: rank -> one trial per seed."""
        return {
            results[0].trial.lora.r: results
            for name, results in self.settings.items()
            if name[1:].isdigit()
        }
