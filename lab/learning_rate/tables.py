"""The tables: every trial, every pair of neighbouring rates, every seed's optimum."""

from __future__ import annotations

import itertools

import numpy as np

from lab.contract import Table
from lab.learning_rate import numbers
from lab.learning_rate.instability import instability
from lab.learning_rate.measured import LearningRateObservations, Setting
from lab.stats.paired import paired
from lab.stats.tokens import token_mean

Row = tuple[str | float | None, ...]


def tables(observations: LearningRateObservations) -> tuple[Table, ...]:
    """Return all tables of the report."""
    return (
        runs_table(observations),
        neighbours_table(observations),
        optimum_table(observations),
    )


def runs_table(observations: LearningRateObservations) -> Table:
    """Return every trial, and what its training loss says where it can be compared.

    The control's batches have other answers, so there is no trial to compare its training loss
    with.
    """
    plan = observations.plan
    rows: list[Row] = []

    # 1. The trials with true answers.
    for setting in plan.true_answers:
        for i, stability in enumerate(numbers.stability_by_seed(observations, setting)):
            metrics = (
                stability.instability,
                stability.instability_same_batches,
                stability.gradient_spikes,
                stability.loss_spikes,
            )
            rows.append(_run_row(observations, setting, i, metrics))

    # 2. The control.
    for i, losses in enumerate(observations.training_losses(plan.control)):
        metrics_of_control = (instability(losses), None, None, None)
        rows.append(_run_row(observations, plan.control, i, metrics_of_control))
    return Table(
        title="Runs",
        columns=(
            "rank",
            "rate",
            "answers",
            "seed",
            "held-out loss",
            "instability",
            "instability on the same batches",
            "gradient spikes",
            "loss spikes",
            "reused",
        ),
        rows=tuple(rows),
    )


def _run_row(
    observations: LearningRateObservations, setting: Setting, index: int, metrics: Row
) -> Row:
    """Return the row of the setting's trial with the seed of this index."""
    answers = "shuffled" if setting.shuffled else "true"
    reused = "yes" if observations.results[setting][index].reused else "no"
    seed = observations.plan.seeds[index]
    loss = observations.final_losses(setting)[index]
    return (setting.rank, setting.rate, answers, seed, loss, *metrics, reused)


def neighbours_table(observations: LearningRateObservations) -> Table:
    """Return what one step of the grid changes, by seed and by example."""
    plan = observations.plan
    pairs = (*itertools.pairwise(plan.first_rank), *itertools.pairwise(plan.second_rank))
    rows: list[Row] = []
    for one, other in pairs:
        test = paired(observations.final_losses(other), observations.final_losses(one))
        changes = _token_losses(observations, other) - _token_losses(observations, one)  # [N]
        by_example = token_mean(changes, observations.base.example_ids)
        by_seed = (*test.differences, test.mean, *test.interval, test.p_value)
        rates = (one.rank, one.rate, other.rate)
        rows.append((*rates, *by_seed, by_example.value, by_example.stderr))

    seeds = tuple(f"seed {seed}" for seed in plan.seeds)
    return Table(
        title="Neighbouring rates: change of the held-out loss",
        columns=(
            "rank",
            "from",
            "to",
            *seeds,
            "mean",
            "low",
            "high",
            "p",
            "by example",
            "its stderr",
        ),
        rows=tuple(rows),
    )


def _token_losses(observations: LearningRateObservations, setting: Setting) -> np.ndarray:
    """Return the loss of each held-out token [N], mean over the seeds."""
    losses = [r.evaluation.losses.astype(np.float64) for r in observations.results[setting]]
    mean: np.ndarray = np.mean(losses, axis=0)  # [seeds, N] -> [N]
    return mean


def optimum_table(observations: LearningRateObservations) -> Table:
    """Return the best of three rates and the vertex of the parabola through them, by seed."""
    plan = observations.plan
    rows: list[Row] = []
    for settings in (plan.first_rank_shared, plan.second_rank):
        by_seed = zip(
            plan.seeds,
            numbers.best_rates(observations, settings),
            numbers.optima(observations, settings),
            strict=True,
        )
        for seed, best_rate, log_rate in by_seed:
            vertex_rate = None if log_rate is None else 10**log_rate
            rows.append((settings[0].rank, seed, best_rate, vertex_rate))
    return Table(
        title="Optimum of each seed",
        columns=("rank", "seed", "best of three rates", "vertex of the parabola"),
        rows=tuple(rows),
    )
