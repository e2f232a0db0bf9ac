"""What a run of the comparison observed, before any number is computed from it.

H: heads of all layers, in order; P: compared prompts (held-out examples, then text); R: repeated
sequences; M: linear layers; N: supervised tokens of the loss examples; S seeds, D draws, K
snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.config import Config

if TYPE_CHECKING:
    from lab.attention_comparison.prompts import Prompt

STATISTICS = {  # name -> unit
    "sink": "",
    "entropy": "",
    "distance": "tokens",
    "distance_without_sink": "tokens",
    "induction": "",
}


@dataclass(frozen=True)
class ComparisonPlan:
    """The settings that numbers, tables, figures and findings need.

    draws: random updates per seed; steps: of the snapshots; moved: how many heads are ablated;
    ablation_draws: random sets of as many heads.
    """

    seeds: tuple[int, ...]
    draws: int
    steps: tuple[int, ...]
    moved: int
    ablation_draws: int
    layers: int
    heads_per_layer: int

    @classmethod
    def from_config(cls, config: Config, *, layers: int, heads_per_layer: int) -> ComparisonPlan:
        """Return the plan that a config describes, for a model of this size."""
        every = config["snapshot_every"]
        return cls(
            seeds=tuple(config["seeds"]),
            draws=config["draws"],
            steps=tuple(range(every, config["training"]["steps"] + 1, every)),
            moved=config["ablation"]["heads"],
            ablation_draws=config["ablation"]["draws"],
            layers=layers,
            heads_per_layer=heads_per_layer,
        )

    @property
    def heads(self) -> int:
        """Return the number of heads of all layers."""
        return self.layers * self.heads_per_layer

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of seeds, as indices."""
        return list(combinations(range(len(self.seeds)), 2))

    def place(self, head: int) -> tuple[int, int]:
        """Return layer and head within it."""
        return divmod(head, self.heads_per_layer)

    def head_name(self, head: int) -> str:
        """Return a head's name, such as L12H3."""
        layer, number = self.place(head)
        return f"L{layer}H{number}"


@dataclass(frozen=True)
class ModelAttention:
    """One model's attention.

    divergence: from the base, [H, P], nats; statistics: by name, [H, P], of induction [H, R];
    norms: ‖ΔW‖_F of its update, [M].
    """

    divergence: np.ndarray
    statistics: Mapping[str, np.ndarray]
    norms: np.ndarray


@dataclass(frozen=True)
class Snapshots:
    """One training, every few steps.

    losses: of the loss examples before the first step and at each snapshot, [1 + K, N], nats;
    trained, random: a model per snapshot, and the same random update at each one's norms;
    training_losses: of every step's batch, [steps]; replay_gap: the largest absolute difference of
    the last snapshot's tensors from the stored adapter.
    """

    losses: np.ndarray
    trained: Sequence[ModelAttention]
    random: Sequence[ModelAttention]
    training_losses: np.ndarray
    replay_gap: float


@dataclass(frozen=True)
class Ablation:
    """Token losses [1 + 1 + draws, N] with all heads, without the moved, without each random set.

    moved: the heads that moved most, first the one that moved furthest; random: sets of others.
    """

    moved: tuple[int, ...]
    random: tuple[tuple[int, ...], ...]
    tuned: np.ndarray
    base: np.ndarray


@dataclass(frozen=True)
class Film:
    """The first prompt for the page: its tokens as texts, and model -> patterns [L, H, T, T].

    The base, then every snapshot; float16.
    """

    tokens: tuple[str, ...]
    patterns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ComparisonObservations:
    """All that a run observed.

    adapter_off: the base against the tuned model with its adapter switched off, [H, P]; tuned: by
    seed; between_seeds: each pair of seeds against one another, [pairs, H, P]; random: draws of the
    first seed, then of the next; token_examples: the loss example of each token, [N].
    """

    plan: ComparisonPlan
    prompts: Sequence[Prompt]
    base: Mapping[str, np.ndarray]
    adapter_off: np.ndarray
    tuned: Sequence[ModelAttention]
    between_seeds: np.ndarray
    random: Sequence[ModelAttention]
    snapshots: Snapshots
    ablation: Ablation
    token_examples: np.ndarray
    film: Film
    trials: Sequence[str]
    reused: int
    sweep_settings: Mapping[str, Any]

    @property
    def kinds(self) -> np.ndarray:
        """Return the kind of each compared prompt, [P]."""
        compared = [prompt.kind for prompt in self.prompts if prompt.kind in ("task", "text")]
        return np.array(compared)
