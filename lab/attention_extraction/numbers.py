"""The numbers of the extraction study, from its arrays alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lab.attention_extraction.measured import (
    OFFSET,
    WRAPPERS,
    ExtractionObservations,
    FamilyArrays,
    ModelArrays,
)
from lab.contract import Measurement

PARITY = 1e-5  # of a weight: what float32 in another order may leave
# Llama's norm rounds to float32, so that differences of float64 can vanish altogether.
EPSILON = float(np.finfo(np.float64).eps)
FIRST_SPREAD = 16  # first query of an entropy's mean: a row of few keys cannot be spread out
FIRST_SINK_LAYER = 2  # the first two layers of small models have no sink yet (Xiao et al. 2024)
LONG = 2048  # tokens for which the bytes are stated
STATISTICS = 4  # sink, entropy, distance, previous token


def measurements(observations: ExtractionObservations) -> dict[str, Measurement]:
    """Return all measurements."""
    model = observations.model
    return {
        **parity(observations),
        **shapes(model),
        **identities(model),
        **heads(model),
        **scale(model),
        **first_token(model),
        **rotation(model),
        **guards(observations),
    }


def parity(observations: ExtractionObservations) -> dict[str, Measurement]:
    """Return the largest differences to eager attention."""
    errors = {name: float(pair.differences().max()) for name, pair in observations.kinds.items()}
    narrow, wide = (max(errors[name], EPSILON) for name in ("float32", "float64"))
    family_errors, family_wide = zip(*map(family_row, observations.families.values()), strict=True)
    numbers = {
        "parity_float32": _error(errors["float32"]),
        "parity_float64": _error(errors["float64"]),
        "parity_orders": Measurement.of_exact(math.log10(narrow / wide), "orders of magnitude"),
        "parity_families": _error(max(family_errors)),
        "parity_families_float64": _error(max(family_wide)),
        "families": Measurement.of_exact(len(family_errors), "families"),
        "families_in_parity": Measurement.of_exact(
            sum(error < PARITY for error in family_errors), "families"
        ),
        "shift_change": _error(errors["shift"]),
        "stretch_change": _error(errors["stretch"]),
    }
    for name in WRAPPERS:
        numbers[f"parity_{name}"] = _error(errors[name])
    return numbers


def shapes(model: ModelArrays) -> dict[str, Measurement]:
    """Return the counts of layers, heads and bytes."""
    layers, _, query_heads, width = model.rot_q.shape
    key_heads = model.rot_k.shape[2]
    exact = Measurement.of_exact
    return {
        "layers": exact(layers, "layers"),
        "query_heads": exact(query_heads, "heads"),
        "key_heads": exact(key_heads, "heads"),
        "group_size": exact(query_heads // key_heads, "query heads"),
        "head_width": exact(width, "numbers"),
        "score_scale": exact(1 / math.sqrt(width)),
        "full_pattern_bytes_2048": exact(4 * layers * query_heads * LONG**2, "bytes"),
        "statistics_bytes_2048": exact(4 * layers * query_heads * LONG * STATISTICS, "bytes"),
    }


def identities(model: ModelArrays) -> dict[str, Measurement]:
    """Return what must be 0, or float noise."""
    # 1. What no weight may do.
    pattern = model.pattern.astype(np.float64)  # [L, H, T, T]
    later = np.triu(np.ones(pattern.shape[-2:]), 1)
    padding = model.padded[:, :, model.padding :, : model.padding]

    # 2. The statistics that were computed without rows, from the rows.
    total = pattern.shape[-1]
    places = np.arange(total)
    logarithms = np.log(np.where(pattern > 0, pattern, 1.0))
    distance = (pattern * (places[:, None] - places)).sum(-1)
    previous = np.zeros(pattern.shape[:3])
    previous[..., OFFSET:] = np.diagonal(pattern, -OFFSET, 2, 3)
    gaps = (
        model.sink - pattern[..., 0],
        model.entropy + (pattern * logarithms).sum(-1),
        model.previous - previous,
        (model.distance - distance) / total,
    )

    # 3. The heads' results, and the rotation.
    values = each_head(model.v, pattern.shape[1])  # [L, T, H, D]
    z = np.einsum("lhqk,lkhd->lqhd", pattern, values)
    return {
        "later_key_share": _error((pattern * later).max()),
        "padded_key_share": _error(padding.max()),
        "row_sum_error": _error(np.abs(pattern.sum(-1) - 1).max()),
        "statistics_error": Measurement.of_exact(
            float(max(np.abs(gap).max() for gap in gaps)), "nats or shares"
        ),
        "z_error": _relative(z, model.z),
        "rotation_error": max(
            _relative(rotated(model.q, model.rope_theta), model.rot_q),
            _relative(rotated(model.k, model.rope_theta), model.rot_k),
            key=lambda measurement: measurement.number,
        ),
        "logits_change": Measurement.of_exact(
            float(np.abs(model.logits_recorded - model.logits_plain).max()), "logits"
        ),
    }


def heads(model: ModelArrays) -> dict[str, Measurement]:
    """Return what the order of shared key heads does, and whether a group's heads are alike."""
    count = model.pattern.shape[1]
    interleaved = patterns(model.rot_q, each_head(model.rot_k, count))
    tiled = patterns(model.rot_q, np.tile(model.rot_k, (1, 1, count // model.rot_k.shape[2], 1)))
    same, other = group_cosines(model)
    return {
        "interleaved_error": _error(np.abs(interleaved - model.pattern).max()),
        "tiled_error": _error(np.abs(tiled - model.pattern).max()),
        "gqa_same_group_cosine": _mean(same),
        "gqa_other_group_cosine": _mean(other),
        "gqa_gap": _mean(same - other),
        "gqa_layers_with_gap": Measurement.of_exact(int((same > other).sum()), "layers"),
    }


def scale(model: ModelArrays) -> dict[str, Measurement]:
    """Return what the scores and their softmax would be without the scale 1/√d."""
    keys = each_head(model.rot_k, model.pattern.shape[1])
    numbers = {}
    for name, factor in (("scaled", 1 / math.sqrt(keys.shape[-1])), ("unscaled", 1.0)):
        scores = factor * np.einsum("lqhd,lkhd->lhqk", *_double(model.rot_q, keys))
        visible = np.tril(np.ones(scores.shape[-2:], dtype=bool))
        deviations = scores[..., visible].std(axis=(1, 2))  # [L]
        numbers[f"score_deviation_{name}"] = _mean(deviations)
        numbers[f"entropy_{name}"] = _mean(spread(softmax(scores)).mean(1))
    return numbers


def first_token(model: ModelArrays) -> dict[str, Measurement]:
    """Return what is fetched at the first token, which gets most of the attention.

    Its value's length as a multiple of the median, and its key's cosine with the mean key, over the
    layers from FIRST_SINK_LAYER on.
    """
    first = FIRST_SINK_LAYER
    if len(model.v) <= first:
        first = 0
    values, keys = _double(model.v[first:], model.rot_k[first:])
    lengths = np.linalg.norm(values, axis=-1)  # [L', T, H']
    ratios = lengths[:, 0] / np.median(lengths[:, 1:], axis=1)  # [L', H']
    mean_key = keys[:, 1:].mean(1)  # [L', H', D]
    products = (keys[:, 0] * mean_key).sum(-1)
    cosines = products / np.linalg.norm(keys[:, 0], axis=-1) / np.linalg.norm(mean_key, axis=-1)
    return {
        "sink_value_ratio": _mean(ratios.mean(1)),
        "sink_key_cosine": _mean(cosines.mean(1)),
    }


def rotation(model: ModelArrays) -> dict[str, Measurement]:
    """Return the best previous-token head's share with RoPE, and without it, over queries."""
    shares = np.diagonal(model.pattern, -1, 2, 3).astype(np.float64)  # [L, H, T - 1]
    scores = shares.mean(-1)
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    count = model.pattern.shape[1]
    keys = each_head(model.k[layer : layer + 1], count)[:, :, head : head + 1]
    queries = model.q[layer : layer + 1, :, head : head + 1]
    without = np.diagonal(patterns(queries, keys)[0, 0], -1)  # [T - 1]
    return {
        "previous_token_head": Measurement.of_exact(f"L{layer}H{head}"),
        "previous_token_share": _mean(shares[layer, head]),
        "previous_token_share_unrotated": _mean(without),
    }


def guards(observations: ExtractionObservations) -> dict[str, Measurement]:
    """Return what the extractor refused and left behind."""
    guards = observations.guards
    return {
        "layers_recorded": Measurement.of_exact(guards.layers_recorded, "layers"),
        "checkpointing_refused": Measurement.of_exact(guards.checkpointing_refused),
        "second_run_refused": Measurement.of_exact(guards.second_run_refused),
        "hooks_left": Measurement.of_exact(guards.hooks_left, "hooks"),
    }


# Attention by its definition


def each_head(keys: np.ndarray, heads: int) -> np.ndarray:
    """Return keys or values for each query head: [L, T, H', D] → [L, T, H, D], in groups."""
    return np.repeat(keys, heads // keys.shape[2], axis=2)


def patterns(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return causal attention's weights [L, H, T, T] of q and k, each [L, T, H, D]."""
    factor = 1 / math.sqrt(queries.shape[-1])
    return softmax(factor * np.einsum("lqhd,lkhd->lhqk", *_double(queries, keys)))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the weights of scores [..., T, T], no query attending to a later key."""
    later = np.triu(np.ones(scores.shape[-2:], dtype=bool), 1)
    hidden = np.where(later, -np.inf, scores)
    weights = np.exp(hidden - hidden.max(-1, keepdims=True))
    normalised: np.ndarray = weights / weights.sum(-1, keepdims=True)
    return normalised


def spread(weights: np.ndarray) -> np.ndarray:
    """Return the entropy as a share of ln(keys), the mean over queries: [..., T, T] → [...]."""
    logarithms = np.log(np.where(weights > 0, weights, 1.0))
    entropies = -(weights * logarithms).sum(-1)[..., FIRST_SPREAD:]
    largest = np.log(np.arange(FIRST_SPREAD, weights.shape[-1]) + 1)
    shares: np.ndarray = (entropies / largest).mean(-1)
    return shares


def rotated(heads: np.ndarray, theta: float) -> np.ndarray:
    """Return q or k [L, T, heads, D] after RoPE (Su et al. 2021, arXiv:2104.09864).

    Coordinates i and i + D/2 are a plane that turns by the angle position · theta^(-2i/D).
    """
    total, width = heads.shape[1], heads.shape[3]
    half = width // 2
    speeds = theta ** (-np.arange(half) / half)
    angles = np.arange(total)[:, None] * speeds  # [T, D/2]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]  # [T, 1, D/2]
    first, second = _double(heads[..., :half], heads[..., half:])
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def group_cosines(model: ModelArrays) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean cosine of two heads' patterns in each layer, [L]: same group, other group.

    The sink column is left out: all heads have it in common.
    """
    flat = model.pattern[..., 1:].astype(np.float64).reshape(*model.pattern.shape[:2], -1)
    flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
    cosines = flat @ flat.transpose(0, 2, 1)  # [L, H, H]
    count = cosines.shape[-1]
    groups = np.arange(count) // (count // model.rot_k.shape[2])
    same = groups[:, None] == groups
    pairs = np.triu(np.ones((count, count), dtype=bool), 1)
    return cosines[:, same & pairs].mean(-1), cosines[:, ~same & pairs].mean(-1)


def family_row(family: FamilyArrays) -> tuple[float, float]:
    """Return a family's largest difference in float32 and in float64."""
    narrow, wide = (float(pair.differences().max()) for pair in (family.float32, family.float64))
    return narrow, wide


def _double(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in arrays]


def _error(value: float) -> Measurement:
    """Return by how much an identity is missed: no draw is in it, so it is exact."""
    return Measurement.of_exact(float(value))


def _relative(actual: np.ndarray, expected: np.ndarray) -> Measurement:
    """Return the largest difference as a share of the largest expected number."""
    difference = np.abs(actual - expected.astype(np.float64)).max()
    return _error(difference / np.abs(expected).max())


def _mean(values: np.ndarray) -> Measurement:
    """Return the mean over layers or queries, its standard error and n; the values are stored."""
    sample = Measurement.of_sample(values.tolist(), "")
    return Measurement.of_estimate(sample.value, "", stderr=sample.stderr, n=sample.n)


def by_layer(observations: ExtractionObservations) -> Mapping[str, np.ndarray]:
    """Return what is shown by layer, each [L]."""
    same, other = group_cosines(observations.model)
    return {"same group": same, "other group": other}
