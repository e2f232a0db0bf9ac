"""The measurements of the attention views: pure functions of their observations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lab.attention_views.measured import (
    INDUCTION,
    NATURAL,
    NATURAL_UNTRAINED,
    NOTHING,
    ONE_TOKEN,
    PREVIOUS,
    RANDOM_TOKENS,
    REPEATED,
    REPEATED_UNTRAINED,
    Head,
    SetStatistics,
    ViewObservations,
)
from lab.contract import Measurement
from lab.instruments import head_scores

HIGH_SINK = 0.4  # mean sink share of a layer from which its distance is mostly the sink's
RATES = {
    "sink_rate": NATURAL,
    "sink_rate_random_tokens": RANDOM_TOKENS,
    "sink_rate_one_token": ONE_TOKEN,
    "sink_rate_random_weights": NATURAL_UNTRAINED,
}


def measurements(observations: ViewObservations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _of_the_sink(observations)
        | _of_layers(observations)
        | _of_induction(observations)
        | _of_ablation(observations)
    )


# What numbers, tables, figures and the page are made of


def sink_rates(shares: np.ndarray) -> list[float]:
    """Return the percentage of heads with a sink, per sequence; shares: [B, L, H, Q]."""
    return [float(head_scores.sink_rate(sequence)) for sequence in _tensor(shares)]


def sink_map(statistics: SetStatistics) -> np.ndarray:
    """Return each head's mean share on the first token, of all later queries: [L, H]."""
    return score_map(statistics.sink, 1)


def entropy_map(statistics: SetStatistics) -> np.ndarray:
    """Return each head's entropy as a share of the largest possible one: [L, H]."""
    keys = torch.arange(1, statistics.entropy.shape[-1] + 1)
    entropy = head_scores.normalised_entropy(_tensor(statistics.entropy), keys)  # [B, L, H]
    return np.asarray(entropy.mean(0))


def distance_map(statistics: SetStatistics, *, with_sink: bool) -> np.ndarray:
    """Return each head's mean distance in tokens, [L, H]; or over the keys behind the first."""
    distance = _tensor(statistics.distance)
    if not with_sink:
        distance = head_scores.distance_without_sink(distance, _tensor(statistics.sink))
    return np.asarray(head_scores.mean_from(distance, 1).mean(0))


def score_map(scores: np.ndarray | None, first: int) -> np.ndarray:
    """Return each head's mean of a diagonal [B, L, H, T] over the queries from `first` on."""
    assert scores is not None, "only repeated sequences have this diagonal"
    return np.asarray(head_scores.mean_from(_tensor(scores), first).mean(0))


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).double()


def induction_map(observations: ViewObservations, kind: str = REPEATED) -> np.ndarray:
    """Return each head's induction score, over the queries of the second copy: [L, H]."""
    return score_map(observations.statistics[kind].induction, observations.plan.period + 1)


def duplicate_map(observations: ViewObservations) -> np.ndarray:
    """Return each head's share on the last occurrence of the query's own token: [L, H]."""
    return score_map(observations.statistics[REPEATED].duplicate, observations.plan.period + 1)


def previous_map(observations: ViewObservations, kind: str = REPEATED) -> np.ndarray:
    """Return each head's previous-token score: [L, H]."""
    return score_map(observations.statistics[kind].previous, 1)


def ranked(scores: np.ndarray) -> list[Head]:
    """Return all heads (layer, head), the highest score first; equal ones by layer and head."""
    order = np.argsort(-scores.ravel(), kind="stable")
    heads = scores.shape[1]
    return [(int(place) // heads, int(place) % heads) for place in order]


def head_before(previous: np.ndarray, head: Head) -> Head:
    """Return the head with the highest previous-token score of the layers before `head`'s.

    Induction needs such a head there. Of a head in layer 0, the highest of all.
    """
    layers = head[0] or len(previous)
    return ranked(previous[:layers])[0]


def head_name(head: Head) -> str:
    """Return a head's short name: L18H6."""
    return f"L{head[0]}H{head[1]}"


def norm_ratios(observations: ViewObservations) -> np.ndarray:
    """Return per layer the first token's residual norm over the median of all, mean over B: [L]."""
    norms = observations.norms.astype("float64")  # [B, L, T]
    return np.asarray((norms[..., 0] / np.median(norms, axis=-1)).mean(0))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the rank correlation of two columns; None where one of them is constant."""
    from scipy.stats import spearmanr

    if min(len(set(first)), len(set(second))) == 1:
        return None
    return float(spearmanr(first, second).statistic)


def copy_losses(observations: ViewObservations, ablation: str) -> tuple[list[float], list[float]]:
    """Return the mean loss of the first and of the second copy, per sequence, in nats/token."""
    period = observations.plan.period
    losses = observations.losses[ablation]  # [B, 2·S]: of positions 1 to 2·S
    first = losses[:, :period].mean(1, dtype="float64")
    second = losses[:, period:].mean(1, dtype="float64")
    return first.tolist(), second.tolist()


# Measurements


def _of_the_sink(observations: ViewObservations) -> dict[str, Measurement]:
    """Return the sink rates of the sets, and of the second token as a control."""
    statistics = observations.statistics
    measurements = {}
    for name, kind in RATES.items():
        measurements[name] = Measurement.of_sample(sink_rates(statistics[kind].sink), "%")
    second = statistics[NATURAL].second[..., 1:]  # of the queries that can see key 1
    measurements["sink_rate_second_token"] = Measurement.of_sample(sink_rates(second), "%")
    return measurements


def _of_layers(observations: ViewObservations) -> dict[str, Measurement]:
    """Return the profile by layer: sink, its massive activation, entropy, distance."""
    plan = observations.plan
    natural = observations.statistics[NATURAL]
    sink = sink_map(natural).mean(1)  # [L]
    entropy = entropy_map(natural).mean(1)
    distance = distance_map(natural, with_sink=True).mean(1)
    without = distance_map(natural, with_sink=False).mean(1)
    early, late = sink[: plan.early].mean(), sink[plan.late :].mean()
    has_sink = sink > HIGH_SINK
    shrinks = has_sink & (without <= distance)
    estimate = Measurement.of_estimate
    return {
        "sink_share_early": estimate(early, "share"),
        "sink_share_late": estimate(late, "share"),
        "sink_late_over_early": estimate(late / early, "times"),
        "sink_follows_norm": estimate(
            spearman(sink.tolist(), np.log(norm_ratios(observations)).tolist()), "rank correlation"
        ),
        "norm_ratio_highest": estimate(norm_ratios(observations).max(), "times"),
        "entropy_first_layer": estimate(entropy[0], "share"),
        "entropy_highest_layer": Measurement.of_exact(int(entropy.argmax()), "layer"),
        "distance_late": estimate(distance[plan.late :].mean(), "tokens"),
        "distance_late_without_sink": estimate(without[plan.late :].mean(), "tokens"),
        "distance_late_ratio": estimate(
            distance[plan.late :].mean() / without[plan.late :].mean(), "times"
        ),
        "layers_with_sink": Measurement.of_exact(int(has_sink.sum()), "layers"),
        "layers_nearer_without_sink": Measurement.of_exact(int(shrinks.sum()), "layers"),
    }


def _of_induction(observations: ViewObservations) -> dict[str, Measurement]:
    """Return the induction and previous-token heads, and those of random weights."""
    plan = observations.plan
    induction, previous = induction_map(observations), previous_map(observations)
    top = ranked(induction)[0]
    earlier = previous[: top[0]]  # of the layers before the top induction head's
    is_fed = bool(earlier.size) and bool(earlier.max() > plan.previous_threshold)
    estimate, exact = Measurement.of_estimate, Measurement.of_exact
    return {
        "induction_score": estimate(induction.max(), "share"),
        "induction_score_mean": estimate(induction.mean(), "share"),
        "induction_score_random_weights": estimate(
            induction_map(observations, REPEATED_UNTRAINED).max(), "share"
        ),
        "induction_head": exact(head_name(top)),
        "induction_heads": exact(int((induction > plan.induction_threshold).sum()), "heads"),
        "previous_score": estimate(previous.max(), "share"),
        "previous_score_random_weights": estimate(
            previous_map(observations, REPEATED_UNTRAINED).max(), "share"
        ),
        "previous_head": exact(head_name(ranked(previous)[0])),
        "previous_head_before_induction": exact(is_fed),
    }


def _of_ablation(observations: ViewObservations) -> dict[str, Measurement]:
    """Return the loss on both copies, and on the second one with heads switched off."""
    first, second = copy_losses(observations, NOTHING)
    without_induction = copy_losses(observations, INDUCTION)[1]
    without_previous = copy_losses(observations, PREVIOUS)[1]
    (previous_head,) = observations.heads[PREVIOUS]
    random_means = []
    containing = 0
    for name in observations.plan.random_sets:
        random_means.append(float(np.mean(copy_losses(observations, name)[1])))
        containing += previous_head in observations.heads[name]
    unit = "nats/token"
    before, after = float(np.mean(second)), float(np.mean(without_induction))
    rise_of_random = float(np.mean(random_means)) - before
    rise_ratio = None
    if rise_of_random > 0:
        rise_ratio = (after - before) / rise_of_random
    estimate, sample = Measurement.of_estimate, Measurement.of_sample
    return {
        "loss_first_copy": sample(first, unit),
        "loss_second_copy": sample(second, unit),
        "copy_loss_ratio": estimate(before / float(np.mean(first)), "times"),
        "loss_without_induction_heads": sample(without_induction, unit),
        "loss_without_previous_head": sample(without_previous, unit),
        "loss_without_random_heads": sample(random_means, unit),
        "random_sets_with_previous_head": Measurement.of_exact(containing, "sets"),
        "ablation_ratio": estimate(after / max(random_means), "times"),
        "ablation_rise_ratio": estimate(rise_ratio, "times"),
    }


def page_statistics(patterns: np.ndarray, period: int | None) -> dict[str, np.ndarray | None]:
    """Return the statistics of the page's heads from patterns [..., H, T, T]: key -> [..., H].

    None where a text has none: induction needs the `period` of a repeated sequence, the entropy
    more than FIRST_SPREAD tokens.
    """
    weights = _tensor(patterns)
    total = weights.shape[-1]
    queries = torch.arange(total).double()
    distance = queries - weights @ queries  # [..., H, T]
    entropy = None
    if total > head_scores.FIRST_SPREAD:
        nats = torch.special.entr(weights).sum(-1)  # [..., H, T]
        entropy = np.asarray(head_scores.normalised_entropy(nats, queries + 1))
    induction = None
    if period is not None:
        diagonal = weights.diagonal(1 - period, -2, -1)  # of the queries from S - 1 on
        induction = np.asarray(head_scores.mean_from(diagonal, 2))  # the second copy: from S + 1 on
    return {
        "sink": np.asarray(head_scores.mean_from(weights[..., 0], 1)),
        "entropy": entropy,
        "distance": np.asarray(head_scores.mean_from(distance, 1)),
        "previous": np.asarray(weights.diagonal(-1, -2, -1).mean(-1)),
        "induction": induction,
    }
