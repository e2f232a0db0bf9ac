"""The measurements of the representation analysis: pure functions of its observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lab.contract import Measurement
from lab.representation_analysis.measured import (
    BASE,
    KINDS,
    MEAN,
    RANDOM_WEIGHTS,
    RAW,
    SHUFFLED,
    WITHOUT_FIRST,
    WITHOUT_OUTLIERS,
    ZEROED,
    Lens,
    Observations,
    Stream,
    Writes,
)
from lab.stats.jackknife import jackknife_stderr

# The criterion of Sun et al. 2024, arXiv:2402.17762.
MASSIVE, TIMES_MEDIAN = 100.0, 1000.0
TINY = 1e-6  # a divergence below this is rounding

TEXT_UNITS = {
    "norm_growth": "times a layer",
    "norm_growth_with_first_token": "times a layer",
    "first_token_norm_ratio": "times",
    "massive_value": "",
    "massive_onset_jump": "times",
    "massive_at_first_token": "share",
    "write_cosine": "cosine",
    "embedding_cosine": "cosine",
    "attention_attribution": "logits",
    "mlp_attribution": "logits",
    "embedding_attribution": "logits",
    "norm_late_positions": "times",
    "norm_word_start": "times",
    "norm_inside_word": "times",
    "norm_digit": "times",
    "norm_punctuation": "times",
    "norm_blank": "times",
    "lens_agreement_depth": "rank correlation",
    "lens_agreement_middle": "share",
    "lens_agreement_before_last": "share",
}
TEST_UNITS = {
    "perplexity_base": "",
    "zeroed_ratio": "times",
    "mean_ratio": "times",
    "other_dimension_ratio": "times",
}
ABLATION_UNITS = {
    "attention_rise": "nats/token",
    "mlp_rise": "nats/token",
    "costliest_rise": "nats/token",
    "norm_ablation_correlation": "rank correlation",
    "attribution_ablation_correlation": "rank correlation",
}
CKA_NAMES = {
    "cka_raw": RAW,
    "cka_without_first": WITHOUT_FIRST,
    "cka_without_outliers": WITHOUT_OUTLIERS,
    "cka_random_weights": RANDOM_WEIGHTS,
    "cka_shuffled": SHUFFLED,
}
KIND_NAMES = dict(
    zip(
        KINDS,
        ("norm_word_start", "norm_inside_word", "norm_digit", "norm_punctuation", "norm_blank"),
        strict=True,
    )
)


def measurements(observations: Observations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    texts, tests = len(observations.ids), len(observations.test_ids)
    ablated = len(observations.interventions.ablated)
    return (
        estimates(observations, TEXT_UNITS, texts, text_numbers, without_text)
        | estimates(observations, TEST_UNITS, tests, test_numbers, without_test)
        | estimates(observations, ABLATION_UNITS, ablated, ablation_numbers, without_ablated)
        | _of_similarity(observations)
        | _of_counts(observations)
    )


# What numbers, tables and figures are made of


def mean_norms(observations: Observations) -> np.ndarray:
    """Return the mean norm at each depth of the tokens behind the first: [L + 1]."""
    return np.asarray(observations.stream.norms[:, :, 1:].mean((0, 2), dtype="float64"))


def first_norms(observations: Observations) -> np.ndarray:
    """Return the first tokens' mean norm at each depth: [L + 1]."""
    return np.asarray(observations.stream.norms[:, :, 0].mean(0, dtype="float64"))


def growth(norms: np.ndarray) -> float:
    """Return the factor by which norms [L + 1] grow per layer, from the first layer's output on.

    The geometric mean, (n_L / n_1)^(1 / (L − 1)).
    """
    return float((norms[-1] / norms[1]) ** (1 / (len(norms) - 2)))


def extremes(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest |x| and the median |x| of each layer's output, means over sequences."""
    return stream.top.mean(0, dtype="float64"), stream.median.mean(0, dtype="float64")


def massive_run(stream: Stream) -> tuple[int, int]:
    """Return first layer and length of the longest run of layers with a massive activation.

    Of equal runs the first; (0, 0) without one.
    """
    top, median = extremes(stream)
    best, start = (0, 0), 0
    for layer, is_massive in enumerate((top > MASSIVE) & (top > TIMES_MEDIAN * median)):
        if not is_massive:
            start = layer + 1
        elif layer + 1 - start > best[1]:
            best = (start, layer + 1 - start)
    return best


def target_layer(stream: Stream) -> int:
    """Return the layer whose output is intervened on: the first of the longest massive run.

    Without one, that of the largest |x| against the median.
    """
    start, length = massive_run(stream)
    if length:
        return start
    top, median = extremes(stream)
    return int((top / median).argmax())


def write_norms(observations: Observations) -> np.ndarray:
    """Return the mean length of each write, without the first token's: [2, L]."""
    return np.asarray(observations.writes.norms[..., 1:].mean((0, 3), dtype="float64"))


def attributions(observations: Observations) -> np.ndarray:
    """Return the mean direct attribution of each write, without the first token's: [2, L]."""
    return np.asarray(observations.writes.attribution[..., 1:].mean((0, 3), dtype="float64"))


def loss_rises(observations: Observations) -> np.ndarray:
    """Return what replacing each write by its mean costs, in nats per token: [2, L]."""
    ablated = observations.interventions.ablated.astype("float64")  # [A, 2, L, T' - 1]
    base = observations.interventions.losses[BASE].astype("float64")[: len(ablated)]
    return np.asarray((ablated - base[:, None, None]).mean((0, 3)))


def perplexity_ratios(observations: Observations) -> dict[str, float]:
    """Return intervention -> perplexity over that without one."""
    losses = {
        name: float(array.mean(dtype="float64"))
        for name, array in observations.interventions.losses.items()
    }
    return {name: float(np.exp(loss - losses[BASE])) for name, loss in losses.items()}


def lens_profile(observations: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Return agreement and KL (nats) of the lens at each depth: [L + 1] each."""
    agreement = observations.lens.agrees.mean((0, 2), dtype="float64")
    kl = observations.lens.kl.mean((0, 2), dtype="float64")
    return agreement, np.where(abs(kl) < TINY, 0.0, kl)


def ordinary(observations: Observations) -> np.ndarray:
    """Return which tokens are neither the first nor an outlier: bool [B, T]."""
    kept = observations.similarity.outliers == 0
    kept[:, 0] = False
    return np.asarray(kept)


def relative_norm(observations: Observations, chosen: np.ndarray) -> float | None:
    """Return the norm of chosen ordinary tokens [B, T] over that of all, mean over layers."""
    every = ordinary(observations)
    chosen = chosen & every
    if not chosen.any():
        return None
    norms = np.moveaxis(observations.stream.norms[:, 1:], 1, 0).astype("float64")  # [L, B, T]
    return float((norms[:, chosen].mean(1) / norms[:, every].mean(1)).mean())


def kind_norms(observations: Observations) -> dict[str, float | None]:
    """Return kind -> norm of its tokens over that of all, see `relative_norm`."""
    return {
        kind: relative_norm(observations, observations.kinds == code)
        for code, kind in enumerate(KINDS)
    }


def spearman(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Return the rank correlation of two columns; 0 where one of them is constant."""
    from lab.stats.significance import spearman as rank_correlation

    return float(rank_correlation(np.asarray(first), np.asarray(second)))


# Numbers of which each sequence left out gives the error


def text_numbers(observations: Observations) -> dict[str, float | None]:
    """Return the numbers of TEXT_UNITS."""
    norms, first = mean_norms(observations), first_norms(observations)
    writes = observations.writes
    every = observations.stream.norms.mean((0, 2), dtype="float64")
    agreement, _ = lens_profile(observations)
    layers = observations.layers
    length = observations.plan.length
    late = np.broadcast_to(np.arange(length) >= length // 2, observations.ids.shape)
    late_norm, early_norm = (relative_norm(observations, half) for half in (late, ~late))
    by_kind = kind_norms(observations)
    return {
        "norm_growth": growth(norms),
        "norm_growth_with_first_token": growth(every),
        "first_token_norm_ratio": float((first / norms)[1:].max()),
        **_massive_numbers(observations.stream),
        "write_cosine": float(writes.cosine[..., 1:].mean(dtype="float64")),
        "embedding_cosine": float(writes.stream_cosine[:, 0, 1:].mean(dtype="float64")),
        "attention_attribution": float(attributions(observations)[0].sum()),
        "mlp_attribution": float(attributions(observations)[1].sum()),
        "embedding_attribution": float(writes.embedding[:, 1:].mean(dtype="float64")),
        "norm_late_positions": _ratio(late_norm, early_norm),
        **{KIND_NAMES[kind]: value for kind, value in by_kind.items()},
        "lens_agreement_depth": spearman(agreement[1:], range(layers)),
        "lens_agreement_middle": float(agreement[layers // 2]),
        "lens_agreement_before_last": float(agreement[-2]),
    }


def _massive_numbers(stream: Stream) -> dict[str, float | None]:
    start, length = massive_run(stream)
    top, _ = extremes(stream)
    share = None
    if stream.hits.size:
        share = float((stream.hits[:, 2] == 0).mean())
    return {
        "massive_value": float(top[start : start + length].max()) if length else None,
        "massive_onset_jump": float(top[start] / top[start - 1]) if length and start else None,
        "massive_at_first_token": share,
    }


def _ratio(above: float | None, below: float | None) -> float | None:
    if above is None or below is None:
        return None
    return above / below


def test_numbers(observations: Observations) -> dict[str, float | None]:
    """Return the numbers of TEST_UNITS."""
    ratios = perplexity_ratios(observations)
    others = [ratios[name] for name in observations.plan.others]
    base = observations.interventions.losses[BASE].mean(dtype="float64")
    return {
        "perplexity_base": float(np.exp(base)),
        "zeroed_ratio": ratios[ZEROED],
        "mean_ratio": ratios[MEAN],
        "other_dimension_ratio": max(others, key=lambda ratio: abs(np.log(ratio))),
    }


def ablation_numbers(observations: Observations) -> dict[str, float | None]:
    """Return the numbers of ABLATION_UNITS."""
    rises = loss_rises(observations)
    return {
        "attention_rise": float(rises[0].mean()),
        "mlp_rise": float(rises[1].mean()),
        "costliest_rise": float(rises.sum(0).max()),
        "norm_ablation_correlation": spearman(write_norms(observations).ravel(), rises.ravel()),
        "attribution_ablation_correlation": spearman(
            attributions(observations).ravel(), rises.ravel()
        ),
    }


def estimates(
    observations: Observations,
    units: Mapping[str, str],
    count: int,
    compute: Callable[[Observations], dict[str, float | None]],
    without: Callable[[Observations, int], Observations],
) -> dict[str, Measurement]:
    """Return the numbers that `compute` makes, with a jackknife error over `count` sequences."""
    numbers = compute(observations)
    parts = [compute(without(observations, index)) for index in range(count)]
    measured = {}
    for name, unit in units.items():
        left_out = [part[name] for part in parts]
        known = [value for value in left_out if value is not None]
        stderr, n = None, None
        if numbers[name] is not None and len(known) == count:
            stderr, n = jackknife_stderr(known), count
        measured[name] = Measurement.of_estimate(numbers[name], unit, stderr=stderr, n=n)
    return measured


def without_text(observations: Observations, index: int) -> Observations:
    """Return the observations without one sequence of the text."""

    def rest(array: np.ndarray) -> np.ndarray:
        return np.delete(array, index, axis=0)

    stream = observations.stream
    arrays = {
        "norms": rest(stream.norms),
        "top": rest(stream.top),
        "top_position": rest(stream.top_position),
        "top_dimension": rest(stream.top_dimension),
        "median": rest(stream.median),
        "hits": stream.hits[stream.hits[:, 0] != index],
    }
    return replace(
        observations,
        ids=rest(observations.ids),
        kinds=rest(observations.kinds),
        stream=Stream(**arrays),
        writes=Writes(**{name: rest(array) for name, array in vars(observations.writes).items()}),
        lens=Lens(**{name: rest(array) for name, array in vars(observations.lens).items()}),
        similarity=replace(
            observations.similarity, outliers=rest(observations.similarity.outliers)
        ),
    )


def without_test(observations: Observations, index: int) -> Observations:
    """Return the observations without one sequence of those that are intervened on."""
    interventions = observations.interventions
    losses = {name: np.delete(array, index, axis=0) for name, array in interventions.losses.items()}
    return replace(observations, interventions=replace(interventions, losses=losses))


def without_ablated(observations: Observations, index: int) -> Observations:
    """Return the observations without one sequence of those whose writes are replaced."""
    without = without_test(observations, index)
    ablated = np.delete(observations.interventions.ablated, index, axis=0)
    return replace(without, interventions=replace(without.interventions, ablated=ablated))


# Numbers with their own error, and counts


def _of_similarity(observations: Observations) -> dict[str, Measurement]:
    similarity = observations.similarity
    n = len(observations.ids)

    def estimate(value: float, left_out: np.ndarray) -> Measurement:
        stderr = jackknife_stderr(left_out.tolist())
        return Measurement.of_estimate(value, "CKA", stderr=stderr, n=n)

    pair, left_out = similarity.pair, similarity.left_out
    measured = {name: estimate(pair[kind], left_out[kind]) for name, kind in CKA_NAMES.items()}
    for name, kind in (
        ("cka_outlier_gap", WITHOUT_OUTLIERS),
        ("cka_first_token_gap", WITHOUT_FIRST),
    ):
        measured[name] = estimate(pair[RAW] - pair[kind], left_out[RAW] - left_out[kind])
    measured["cka_first_to_last"] = estimate(float(similarity.ends[0]), similarity.ends[1:])
    return measured


def _of_counts(observations: Observations) -> dict[str, Measurement]:
    exact = Measurement.of_exact
    stream, outliers = observations.stream, observations.similarity.outliers
    start, length = massive_run(stream)
    norms = mean_norms(observations)
    attention, mlp = write_norms(observations)
    costs = loss_rises(observations).sum(0)
    _, kl = lens_profile(observations)
    return {
        "norm_growing_steps": exact(int((np.diff(norms) > 0).sum()), "layers"),
        "massive_layers": exact(length, "layers"),
        "massive_onset_layer": exact(start if length else None, "layer"),
        "massive_dimension": exact(observations.interventions.target.dimension, "dimension"),
        "massive_dimensions": exact(len(set(stream.hits[:, 3].tolist())), "dimensions"),
        "massive_random_weights": exact(len(observations.random_stream.hits), "numbers"),
        "mlp_larger_layers": exact(int((mlp > attention).sum()), "layers"),
        "costliest_layer": exact(int(costs.argmax()), "layer"),
        "lens_kl_rises": exact(int((np.diff(kl) > 0).sum()), "steps"),
        "lens_kl_highest_depth": exact(int(kl[1:].argmax()) + 1, "depth"),
        "lens_kl_last": Measurement.of_estimate(float(kl[-1]), "nats"),
        "outlier_tokens": exact(int(outliers.sum()), "tokens"),
        "outlier_tokens_behind_first": exact(int(outliers[:, 1:].sum()), "tokens"),
    }
