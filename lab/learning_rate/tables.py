"""The tables: every run, every neighbouring pair of rates, every seed's optimum."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Table
from lab.learning_rate.instability import instability
from lab.learning_rate.numbers import Spikes, optima, stability, winners

if TYPE_CHECKING:
    from lab.learning_rate.experiment import LearningRateObservations, Setting


def tables(observations: LearningRateObservations, spikes: Spikes) -> tuple[Table, ...]:
    """All tables of the report."""
    return (runs(observations, spikes), neighbours(observations), optimum(observations))


def runs(observations: LearningRateObservations, spikes: Spikes) -> Table:
    """Every run, and what its training loss says where it can be compared.

    The control's batches hold other answers, so there is no run to compare its training loss with.
    """
    columns = (
        "rank",
        "rate",
        "answers",
        "seed",
        "held-out loss",
        "instability",
        "instability on the same batches",
    )
    columns += ("gradient spikes", "loss spikes", "taken over")
    plan = observations.plan
    rows: list[tuple[Any, ...]] = []
    for s in plan.true:
        for i, (found, loss) in enumerate(
            zip(stability(observations, s, spikes), observations.losses(s), strict=True)
        ):
            stable = (
                found.instability,
                found.same_batches,
                found.gradient_spikes,
                found.loss_spikes,
            )
            rows.append(
                (
                    s.rank,
                    s.rate,
                    "true",
                    plan.seeds[i],
                    loss,
                    *stable,
                    _taken_over(observations, s, i),
                )
            )
    s = plan.control
    for i, (curve, loss) in enumerate(
        zip(observations.training_losses(s), observations.losses(s), strict=True)
    ):
        stable = (instability(curve), None, None, None)
        rows.append(
            (
                s.rank,
                s.rate,
                "shuffled",
                plan.seeds[i],
                loss,
                *stable,
                _taken_over(observations, s, i),
            )
        )
    return Table("Runs", columns, tuple(rows))


def _taken_over(observations: LearningRateObservations, setting: Setting, seed: int) -> str:
    return "yes" if observations.runs[setting][seed].reused else "no"


def neighbours(observations: LearningRateObservations) -> Table:
    """What one step of the grid changes, by seed and by example."""
    from lab.stats.paired import paired
    from lab.stats.tokens import token_mean

    plan = observations.plan
    seeds = tuple(f"seed {seed}" for seed in plan.seeds)
    columns = ("rank", "from", "to", *seeds, "mean", "low", "high", "p", "by example", "its stderr")
    rows: list[tuple[Any, ...]] = []
    for one, other in (*itertools.pairwise(plan.first), *itertools.pairwise(plan.second)):
        found = paired(observations.losses(other), observations.losses(one))
        by_example = token_mean(
            _tokens(observations, other) - _tokens(observations, one), observations.base.example_ids
        )
        numbers = (
            *found.differences,
            found.mean,
            *found.interval,
            found.p_value,
            by_example.value,
            by_example.stderr,
        )
        rows.append((one.rank, one.rate, other.rate, *numbers))
    return Table("Neighbouring rates: change of the held-out loss", columns, tuple(rows))


def _tokens(observations: LearningRateObservations, setting: Setting) -> np.ndarray:
    """Loss of each held-out token [N], mean over the seeds."""
    return np.mean(
        [run.evaluation.losses.astype(np.float64) for run in observations.runs[setting]], axis=0
    )


def optimum(observations: LearningRateObservations) -> Table:
    """The best of three rates and the vertex of the parabola through them."""
    rows: list[tuple[Any, ...]] = []
    for settings in (observations.plan.shared, observations.plan.second):
        found = zip(
            observations.plan.seeds,
            winners(observations, settings),
            optima(observations, settings),
            strict=True,
        )
        for seed, best, log_rate in found:
            rows.append((settings[0].rank, seed, best, None if log_rate is None else 10**log_rate))
    return Table(
        "Optimum of each seed",
        ("rank", "seed", "best of three rates", "vertex of the parabola"),
        tuple(rows),
    )
