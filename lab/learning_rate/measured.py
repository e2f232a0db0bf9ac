"""What the learning-rate exploration plans and observes: the data its other modules share.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import TrialResult


@dataclass(frozen=True)
class Setting:
    """What differs between trials, besides the seed.

    rate: the schedule's peak; ΔW = (alpha / rank)·B·A.
    """

    rank: int
    alpha: float
    rate: float
    shuffled: bool = False


@dataclass(frozen=True)
class SpikeThresholds:
    """What counts as a spike.

    gradient: times the median norm of the trial; loss: nats above the lowest loss so far.
    """

    gradient: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """All settings by their part, and the thresholds of their analysis.

    first_rank, second_rank: one setting per rate, rates rising; control: with shuffled answers;
    seeds: of every setting.
    """

    first_rank: tuple[Setting, ...]
    second_rank: tuple[Setting, ...]
    control: Setting
    seeds: tuple[int, ...]
    spikes: SpikeThresholds

    @property
    def true_answers(self) -> tuple[Setting, ...]:
        """The settings whose answers are not shuffled."""
        return self.first_rank + self.second_rank

    @property
    def reference(self) -> Setting:
        """The smallest rate: its loss per batch is hardly more than the batch's own difficulty."""
        return self.first_rank[0]

    @property
    def counterpart(self) -> Setting:
        """The control's setting with true answers."""
        return next(s for s in self.first_rank if s.rate == self.control.rate)

    @property
    def first_rank_shared(self) -> tuple[Setting, ...]:
        """The first rank's settings at the second one's rates: a parabola goes through them."""
        shared_rates = {s.rate for s in self.second_rank}
        return tuple(s for s in self.first_rank if s.rate in shared_rates)


@dataclass(frozen=True)
class LearningRateObservations:
    """Everything that a run measured.

    base: the model without an adapter; results: setting -> its trials, one per seed in order;
    formula_rate: see optimum.py, None for a family of models that it does not cover;
    sweep_settings: the description of the sweep's context.
    """

    plan: Plan
    base: Evaluation
    results: Mapping[Setting, tuple[TrialResult, ...]]
    formula_rate: float | None
    hidden_size: int
    sweep_settings: Mapping[str, Any]

    @property
    def base_loss(self) -> float:
        """Held-out loss of the base, nats per token."""
        return float(self.base.losses.mean(dtype="float64"))

    def final_losses(self, setting: Setting) -> list[float]:
        """Return the final held-out loss of each seed, nats per token."""
        results = self.results[setting]
        return [float(result.evaluation.losses.mean(dtype="float64")) for result in results]

    def training_losses(self, setting: Setting) -> np.ndarray:
        """Return the training loss [seeds, T], nats per token."""
        rows = []
        for result in self.results[setting]:
            rows.append([step.loss for step in result.steps])
        return np.array(rows)

    def losses_above_reference(self, setting: Setting) -> np.ndarray:
        """Return the training loss less that of the smallest rate on the same batch: [seeds, T].

        Trials of one seed see the same batches.
        """
        difference: np.ndarray = self.training_losses(setting) - self.training_losses(
            self.plan.reference
        )
        return difference
