"""What a run of the forgetting study observed, before any number is computed from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lab.instruments.chat import Encoded
    from lab.instruments.evaluation import Evaluation
    from lab.instruments.multiple_choice import Item, Scores
    from lab.instruments.trials import TrialResult

BASE = "base"  # the name of the model without an adapter


@dataclass(frozen=True)
class ModelScores:
    """What one model did. L: number of linear layers; M: of matrices decomposed.

    log_likelihoods: [items, choices], nats; losses, divergences, example_ids: [N], see
    `base_text.Distance`; norms: [L], ‖ΔW‖_F in the order of the layers, 0 for the base;
    similarities: [M, directions], see `lab.instruments.intruders`.
    """

    log_likelihoods: np.ndarray
    losses: np.ndarray
    divergences: np.ndarray
    example_ids: np.ndarray
    norms: np.ndarray
    similarities: np.ndarray


@dataclass(frozen=True)
class ForgettingObservations:
    """All that a run observed.

    texts: sampled from the base; models: name -> its scores, the base first; runs: adapter -> its
    training; matrices: names of the linear layers that were decomposed; roles: role -> adapter;
    threshold: a direction less similar than this to every one of the base is an intruder.
    """

    sweep_settings: Mapping[str, Any]
    items: Sequence[Item]
    texts: Sequence[Encoded]
    models: Mapping[str, ModelScores]
    runs: Mapping[str, TrialResult]
    base_evaluation: Evaluation
    matrices: Sequence[str]
    roles: Mapping[str, str]
    threshold: float

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Margin, acc and acc_norm of every item, by model."""
        from lab.instruments.multiple_choice import score

        return {
            name: score(self.items, model.log_likelihoods) for name, model in self.models.items()
        }

    @cached_property
    def suites(self) -> dict[str, np.ndarray]:
        """The indices of each suite's items, by suite, in order."""
        indices: dict[str, list[int]] = {}
        for i, item in enumerate(self.items):
            indices.setdefault(item.suite, []).append(i)
        return {suite: np.array(members) for suite, members in indices.items()}

    @cached_property
    def same_shape(self) -> list[str]:
        """The adapters that differ from the standard one in the learning rate alone."""
        standard = self.runs[self.roles["standard"]].trial.lora
        return [name for name, run in self.runs.items() if run.trial.lora == standard]

    def intruders(self, name: str) -> int:
        """Return how many leading directions of a model are unlike all of the base's."""
        return int((self.models[name].similarities < self.threshold).sum())
