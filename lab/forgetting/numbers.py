"""Each adapter against the base: what it learnt and forgot, how far it is, from a run's arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lab.stats import significance as comparing
from lab.stats import tokens as statistics
from lab.stats.paired import paired
from lab.stats.tokens import Mean

if TYPE_CHECKING:
    from lab.forgetting.experiment import ForgettingObservations

BASE = "base"


@dataclass(frozen=True)
class Compared:
    """One adapter. rate: of its training; norm: ‖ΔW‖_F over all linear layers.

    learning: nats/token taken off the held-out functions; forgetting: nats/byte of margin lost, p
    of its paired t test over items and the same adjusted by Holm; lost, won, mcnemar_p: items by
    acc; divergence, text_loss, text_change: nats/token on the base's text; intruders: leading
    directions that the base does not have.
    """

    rate: float
    norm: float
    learning: Mean
    forgetting: Mean
    p: float
    adjusted_p: float
    lost: int
    won: int
    mcnemar_p: float
    divergence: Mean
    text_loss: Mean
    text_change: Mean
    intruders: int


def compare(observations: ForgettingObservations) -> dict[str, Compared]:
    """All adapters by name, in order."""
    margins = {name: scores.margin for name, scores in observations.scores.items()}
    p_values = [paired(margins[BASE], margins[name]).p_value for name in observations.runs]
    adjusted = comparing.holm(p_values)
    pairs = zip(observations.runs, p_values, adjusted, strict=True)
    return {name: _one(observations, name, p, adjusted_p) for name, p, adjusted_p in pairs}


def _one(observations: ForgettingObservations, name: str, p: float, adjusted_p: float) -> Compared:
    run, found, base = observations.runs[name], observations.models[name], observations.models[BASE]
    scores, before = observations.scores[name], observations.scores[BASE]
    lost, won, mcnemar_p = comparing.mcnemar(before.acc, scores.acc)
    gain = observations.base_evaluation.losses.astype(np.float64) - run.evaluation.losses.astype(
        np.float64
    )
    losses = found.losses.astype(np.float64)
    return Compared(
        rate=run.trial.training.learning_rate,
        norm=math.sqrt(float((found.norms**2).sum())),
        learning=statistics.token_mean(gain, run.evaluation.example_ids),
        forgetting=over_items(before.margin - scores.margin),
        p=p,
        adjusted_p=adjusted_p,
        lost=lost,
        won=won,
        mcnemar_p=mcnemar_p,
        divergence=statistics.token_mean(found.divergences.astype(np.float64), found.example_ids),
        text_loss=statistics.token_mean(losses, found.example_ids),
        text_change=statistics.token_mean(
            losses - base.losses.astype(np.float64), found.example_ids
        ),
        intruders=intruders(observations, name),
    )


def over_items(values: np.ndarray) -> Mean:
    """Mean of independent values [N], standard error sd / √N with N − 1 in sd."""
    return Mean(
        float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values)
    )


def intruders(observations: ForgettingObservations, name: str) -> int:
    """Number of leading directions of a model's matrices that are unlike all of the base's."""
    return int((observations.models[name].similarities < observations.threshold).sum())


def suites(observations: ForgettingObservations) -> dict[str, np.ndarray]:
    """Suite → the indices of its items, in order."""
    names = [item.suite for item in observations.items]
    return {
        suite: np.array([i for i, n in enumerate(names) if n == suite])
        for suite in dict.fromkeys(names)
    }


@dataclass(frozen=True)
class Correlation:
    """A rank correlation over models, and its bootstrapped standard error.

    n: the number of units drawn again.
    """

    value: float
    stderr: float
    n: int


def forgetting_with(
    observations: ForgettingObservations, names: list[str], x: list[float]
) -> Correlation:
    """Spearman of forgetting with x over some adapters; items are drawn again."""
    before = observations.scores[BASE].margin
    lost = np.stack([before - observations.scores[name].margin for name in names])  # [M, N]
    value = comparing.spearman(np.array(x), lost.mean(1))
    stderr = comparing.bootstrap(
        lambda drawn: comparing.spearman(np.array(x), lost[:, drawn].mean(2).T), lost.shape[1]
    )
    return Correlation(float(value), stderr, lost.shape[1])


def divergence_with(
    observations: ForgettingObservations, names: list[str], x: list[float]
) -> Correlation:
    """Spearman of KL(base‖adapter) with x over some adapters; texts are drawn again."""
    found = [observations.models[name] for name in names]
    sums = np.stack(
        [np.bincount(f.example_ids, weights=f.divergences.astype(np.float64)) for f in found]
    )  # [M, texts]
    counts = np.bincount(found[0].example_ids)  # [texts]
    value = comparing.spearman(np.array(x), sums.sum(1) / counts.sum())
    stderr = comparing.bootstrap(
        lambda drawn: comparing.spearman(
            np.array(x), (sums[:, drawn].sum(2) / counts[drawn].sum(1)).T
        ),
        len(counts),
    )
    return Correlation(float(value), stderr, len(counts))


def of_one_shape(observations: ForgettingObservations) -> list[str]:
    """The adapters that differ from the standard one in the rate alone."""
    standard = observations.runs[observations.roles["standard"]].trial.lora
    return [name for name, run in observations.runs.items() if run.trial.lora == standard]
