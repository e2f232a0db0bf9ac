"""What the experiment on induction heads plans and observes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.config import Config, ConfigError

if TYPE_CHECKING:
    import numpy as np

CONDITIONS = ("repeats", "no_repeats", "one_layer")
TITLES = {
    "repeats": "two layers",
    "no_repeats": "two layers without repeats",
    "one_layer": "one layer",
}
ABLATED = ("induction_heads", "previous_token_heads", "other_heads")
GROUP_TITLES = {
    "induction_heads": "induction heads",
    "previous_token_heads": "previous-token heads",
    "other_heads": "all other heads",
}

Head = tuple[int, int]  # (layer, head)


@dataclass(frozen=True)
class InductionPlan:
    """The settings of all runs.

    vocabulary V, width d, heads of each layer and their width: of the model; length: tokens of a
    sequence; periods: shortest and longest repeated piece; seeds: draw weights and data; steps,
    batch, learning_rate, warmup, weight_decay: of AdamW; every: steps between evaluations;
    checkpoint_every: steps between stored weights and patterns; evaluation: sequences that losses
    and scores average; film, film_period: sequences and their period that patterns average;
    head_score: the attention from which a head counts as found; loss_share: of ln V, below which
    copying counts as learnt.
    """

    vocabulary: int
    width: int
    heads: int
    head_width: int
    length: int
    periods: tuple[int, int]
    seeds: tuple[int, ...]
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    weight_decay: float
    every: int
    checkpoint_every: int
    evaluation: int
    film: int
    film_period: int
    head_score: float
    loss_share: float

    @classmethod
    def from_config(cls, config: Config) -> InductionPlan:
        """Return the plan that a config describes.

        Raises:
            ConfigError: weights would be stored at steps that are not evaluated, or the last step
                would not be stored.
        """
        values = dict(config["plan"])
        every, stored, steps = (values[name] for name in ("every", "checkpoint_every", "steps"))
        if stored % every or steps % stored:
            msg = (
                f"{config.location}: every {every}, checkpoint_every {stored}, steps {steps}; "
                "expected each to be a multiple of the one before, such as 5, 100, 400"
            )
            raise ConfigError(msg)
        values["periods"] = (values["periods"]["shortest"], values["periods"]["longest"])
        values["seeds"] = tuple(values["seeds"])
        return cls(**values)

    @property
    def steps_evaluated(self) -> list[int]:
        """Return the steps after which the model is evaluated, from 0 to the last."""
        return list(range(0, self.steps + 1, self.every))


@dataclass(frozen=True)
class Run:
    """One training: what was seen of it at each evaluated step, E of them.

    first, second: loss on the first and on the second copy, nats/token [E]; accuracy: on second
    copies [E]; induction, previous: scores of each head [E, layers, heads]; patterns: mean
    attention on the film's sequences [E, layers, heads, T, T]; weights: by parameter, one a
    stored step [stored steps, ...]; seconds: wall time of the training.
    """

    condition: str
    seed: int
    first: np.ndarray
    second: np.ndarray
    accuracy: np.ndarray
    induction: np.ndarray
    previous: np.ndarray
    patterns: np.ndarray
    weights: Mapping[str, np.ndarray]
    seconds: float

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.condition}_seed{self.seed}"


@dataclass(frozen=True)
class Ablation:
    """Losses on second copies of a trained model, one a sequence, in nats/token [N].

    whole: of the model as it is; single: with one head zeroed [layers, heads, N]; groups: with the
    heads of a group zeroed (`ABLATED`), by name; heads: which heads those are.
    """

    whole: np.ndarray
    single: np.ndarray
    groups: Mapping[str, np.ndarray]
    heads: Mapping[str, tuple[Head, ...]]


@dataclass(frozen=True)
class InductionObservations:
    """All that was measured.

    runs: by (condition, seed); ablations: of the two-layer runs, by seed; ids [N, T], periods [N]
    of the evaluation; film [n, 2 · film_period]: the sequences that patterns average; seconds: wall
    time of all trainings together.
    """

    plan: InductionPlan
    runs: Mapping[tuple[str, int], Run]
    ablations: Mapping[int, Ablation]
    ids: np.ndarray
    periods: np.ndarray
    film: np.ndarray
    seconds: float
