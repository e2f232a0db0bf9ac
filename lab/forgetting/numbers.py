"""The measurements of forgetting: each adapter against the base, from the stored arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.contract import Measurement
from lab.forgetting.measured import BASE, ForgettingObservations
from lab.stats import significance
from lab.stats.paired import paired
from lab.stats.tokens import Mean, token_mean

LEVEL = 0.05  # of the adjusted paired t test, and of McNemar's test
BYTE = "nats/byte"
TOKEN = "nats/token"


@dataclass(frozen=True)
class Comparison:
    """One adapter against the base. rate: of its training; norm: ‖ΔW‖_F over all linear layers.

    learning: nats/token taken off the held-out functions; forgetting: nats/byte of margin lost;
    p: of its paired t test over items; adjusted_p: the same adjusted by Holm; items_lost,
    items_won, mcnemar_p: by acc; divergence, text_loss, text_change: nats/token on the base's text;
    intruders: leading directions that the base does not have.
    """

    rate: float
    norm: float
    learning: Mean
    forgetting: Mean
    p: float
    adjusted_p: float
    items_lost: int
    items_won: int
    mcnemar_p: float
    divergence: Mean
    text_loss: Mean
    text_change: Mean
    intruders: int

    @property
    def forgot(self) -> bool:
        """Whether the adapter lost margin beyond chance."""
        return self.forgetting.value > 0 and self.adjusted_p < LEVEL


@dataclass(frozen=True)
class Correlation:
    """A rank correlation over adapters, and its standard error, bootstrapped over n units."""

    value: float
    stderr: float
    n: int


def compare(observations: ForgettingObservations) -> dict[str, Comparison]:
    """Return adapter -> its comparison with the base, in the order of the config."""
    scores = observations.scores
    base_margin = scores[BASE].margin.tolist()
    names = list(observations.runs)
    p_values = [paired(base_margin, scores[name].margin.tolist()).p_value for name in names]
    adjusted = significance.holm(p_values)
    return {
        name: _compare_one(observations, name, p=p_values[i], adjusted_p=adjusted[i])
        for i, name in enumerate(names)
    }


def _compare_one(
    observations: ForgettingObservations, name: str, *, p: float, adjusted_p: float
) -> Comparison:
    """Compare one adapter with the base."""
    run = observations.runs[name]
    model = observations.models[name]
    base = observations.models[BASE]

    # 1. What it learned: the loss taken off each held-out token [N].
    gain = _double(observations.base_evaluation.losses) - _double(run.evaluation.losses)

    # 2. What it forgot, item by item.
    scores = observations.scores[name]
    base_scores = observations.scores[BASE]
    items_lost, items_won, mcnemar_p = significance.mcnemar(base_scores.acc, scores.acc)

    # 3. How far it is from the base on the base's own text, token by token.
    losses = _double(model.losses)
    rise = losses - _double(base.losses)
    return Comparison(
        rate=run.trial.training.learning_rate,
        norm=math.sqrt(float((model.norms**2).sum())),
        learning=token_mean(gain, run.evaluation.example_ids),
        forgetting=item_mean(base_scores.margin - scores.margin),
        p=p,
        adjusted_p=adjusted_p,
        items_lost=items_lost,
        items_won=items_won,
        mcnemar_p=mcnemar_p,
        divergence=token_mean(_double(model.divergences), model.example_ids),
        text_loss=token_mean(losses, model.example_ids),
        text_change=token_mean(rise, model.example_ids),
        intruders=observations.intruders(name),
    )


def item_mean(values: np.ndarray) -> Mean:
    """Return the mean of independent values [N]; standard error sd / √N with N − 1 in sd."""
    stderr = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Mean(float(values.mean()), stderr, len(values))


def frontier_names(comparisons: Mapping[str, Comparison]) -> list[str]:
    """Return the adapters that no other beats in both learning and forgetting."""
    names = list(comparisons)
    indices = significance.frontier(
        [comparison.learning.value for comparison in comparisons.values()],
        [comparison.forgetting.value for comparison in comparisons.values()],
    )
    return [names[i] for i in indices]


def measurements(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _of_items(observations, comparisons)
        | _of_text(observations, comparisons)
        | _of_correlations(observations, comparisons)
        | _of_intruders(observations, comparisons)
    )


def _of_items(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> dict[str, Measurement]:
    """Return sizes, the base's scores, and what was forgotten by role and by suite."""
    exact = Measurement.of_exact
    scores = observations.scores
    roles = observations.roles
    base = scores[BASE]
    standard = scores[roles["standard"]]

    # 1. Sizes, and the base by itself.
    measurements = {
        "items": exact(len(observations.items), "items"),
        "adapters": exact(len(comparisons), "adapters"),
        "margin_base": _estimate(item_mean(base.margin), BYTE),
        "acc_base": _estimate(item_mean(base.acc), ""),
        "acc_norm_base": _estimate(item_mean(base.acc_norm), ""),
    }

    # 2. Margin lost: by role, between the ends of the rates, and by suite; arrays are [items].
    for role, name in roles.items():
        measurements[f"forgetting_{role}"] = _estimate(comparisons[name].forgetting, BYTE)
    rate_gap = scores[roles["low_rate"]].margin - scores[roles["high_rate"]].margin
    measurements["forgetting_rate_gap"] = _estimate(item_mean(rate_gap), BYTE)
    lost = base.margin - standard.margin
    for suite, indices in observations.suites.items():
        short_name = suite.removeprefix("lab_")
        measurements[f"forgetting_{short_name}"] = _estimate(item_mean(lost[indices]), BYTE)

    # 3. Accuracy, and how many adapters forgot.
    acc_change = item_mean(standard.acc - base.acc)
    forgot = sum(comparison.forgot for comparison in comparisons.values())
    measurements["acc_change_standard"] = _estimate(acc_change, "")
    measurements["mcnemar_p_standard"] = exact(comparisons[roles["standard"]].mcnemar_p)
    measurements["adapters_that_forgot"] = exact(forgot, "adapters")
    return measurements


def _of_text(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> dict[str, Measurement]:
    """Return losses and divergences on the base's own text."""
    base = observations.models[BASE]
    standard = comparisons[observations.roles["standard"]]
    high_rate = comparisons[observations.roles["high_rate"]]
    base_loss = token_mean(_double(base.losses), base.example_ids)
    return {
        "kl_standard": _estimate(standard.divergence, TOKEN),
        "kl_high_rate": _estimate(high_rate.divergence, TOKEN),
        "text_loss_base": _estimate(base_loss, TOKEN),
        "text_loss_change_standard": _estimate(standard.text_change, TOKEN),
    }


def _of_correlations(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> dict[str, Measurement]:
    """Return rank correlations of forgetting and divergence with rate and norm."""
    names = list(comparisons)
    norms = [comparison.norm for comparison in comparisons.values()]
    same_shape = observations.same_shape
    rates = [comparisons[name].rate for name in same_shape]
    return {
        "spearman_rate": _estimate(_forgetting_with(observations, same_shape, rates), ""),
        "spearman_norm": _estimate(_forgetting_with(observations, names, norms), ""),
        "spearman_kl_norm": _estimate(_divergence_with(observations, names, norms), ""),
    }


def _forgetting_with(
    observations: ForgettingObservations, names: Sequence[str], x: Sequence[float]
) -> Correlation:
    """Correlate the forgetting of some adapters with x; the bootstrap resamples items."""
    base = observations.scores[BASE].margin
    lost = np.stack([base - observations.scores[name].margin for name in names])  # [M, N]

    def of_resamples(indices: np.ndarray) -> np.ndarray:
        # indices [R, N] -> lost [M, R, N] -> means [M, R] -> [R, M]
        means: np.ndarray = lost[:, indices].mean(2)
        return means.T

    return _correlation(x, lost.mean(1), of_resamples, units=lost.shape[1])


def _divergence_with(
    observations: ForgettingObservations, names: Sequence[str], x: Sequence[float]
) -> Correlation:
    """Correlate the KL(base‖adapter) of some adapters with x; the bootstrap resamples texts."""
    rows = []
    for name in names:
        model = observations.models[name]
        rows.append(np.bincount(model.example_ids, weights=_double(model.divergences)))
    sums = np.stack(rows)  # [M, texts]
    counts = np.bincount(observations.models[names[0]].example_ids)  # [texts]

    def of_resamples(indices: np.ndarray) -> np.ndarray:
        # indices [R, texts]; sums over the resampled texts [M, R], tokens in them [R]
        means: np.ndarray = sums[:, indices].sum(2) / counts[indices].sum(1)
        return means.T  # [R, M]

    return _correlation(x, sums.sum(1) / counts.sum(), of_resamples, units=len(counts))


def _correlation(
    x: Sequence[float],
    y: np.ndarray,
    of_resamples: Callable[[np.ndarray], np.ndarray],
    *,
    units: int,
) -> Correlation:
    """Return Spearman's correlation of x with y, both [M].

    of_resamples: from unit indices [R, units] to the y of each resample, [R, M].
    """
    ranked = np.array(x)
    value = float(significance.spearman(ranked, y))
    stderr = significance.bootstrap(
        lambda indices: significance.spearman(ranked, of_resamples(indices)), units
    )
    return Correlation(value, stderr, units)


def _of_intruders(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> dict[str, Measurement]:
    """Return the number of intruder directions by role."""
    return {
        f"intruders_{role}": Measurement.of_exact(comparisons[name].intruders, "directions")
        for role, name in observations.roles.items()
    }


def _estimate(mean: Mean | Correlation, unit: str) -> Measurement:
    return Measurement.of_estimate(mean.value, unit, stderr=mean.stderr, n=mean.n)


def _double(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)
