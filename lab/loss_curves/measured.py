"""What the loss-curve analysis plans and observes: the data that its other modules share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.config import Config
from lab.instruments.curves import Thresholds

if TYPE_CHECKING:
    import numpy as np

    from lab.instruments.evaluation import Evaluation
    from lab.instruments.trials import TrialResult

SHAPES = ("healthy", "overfitting", "diverging", "flat")
RATES = ("low", "high")
RUNS_ALONG_UPDATE = ("healthy", "overfitting")  # runs whose loss is measured along their update
# where gradients are measured: before training, after little of it, after more of it
POINTS = ("start", "low", "healthy")


@dataclass(frozen=True)
class LossCurvePlan:
    """The settings that numbers, tables, figures and findings need.

    batch_sizes, rates (name -> peak learning rate), seeds: of the comparison of batch sizes;
    examples: training examples of each of its trials; curve_examples: held-out examples that a
    curve averages; thresholds: of the detectors; alphas: the values of t at which the loss of
    base + t·ΔW is measured.
    """

    batch_sizes: tuple[int, ...]
    rates: Mapping[str, float]
    seeds: tuple[int, ...]
    examples: int
    curve_examples: int
    thresholds: Thresholds
    alphas: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Config) -> LossCurvePlan:
        """Return the plan that a config describes."""
        return cls(
            batch_sizes=tuple(config["batches"]),
            rates=config["rates"],
            seeds=tuple(config["seeds"]),
            examples=config["examples"],
            curve_examples=config["data"]["curve"],
            thresholds=Thresholds(**config["detectors"]),
            alphas=_evenly_spaced(**config["line"]),
        )


def _evenly_spaced(*, first: float, last: float, points: int) -> tuple[float, ...]:
    """Return values evenly from the first to the last."""
    return tuple(first + (last - first) * i / (points - 1) for i in range(points))


@dataclass(frozen=True)
class LossCurveObservations:
    """All that a run measured.

    base: the base on the evaluation examples; shapes: by name; grid: by (rate's name, batch size,
    seed); repeated_base: the base on the overfitting run's examples; losses_along_update: run ->
    nats of the curve examples' tokens [len(alphas), N]; gradient_products: point -> inner products
    of the gradients [n, n]; sweep_settings: what all trials have in common.
    """

    plan: LossCurvePlan
    base: Evaluation
    shapes: Mapping[str, TrialResult]
    grid: Mapping[tuple[str, int, int], TrialResult]
    repeated_base: Evaluation
    losses_along_update: Mapping[str, np.ndarray]
    gradient_products: Mapping[str, np.ndarray]
    sweep_settings: Mapping[str, object]
