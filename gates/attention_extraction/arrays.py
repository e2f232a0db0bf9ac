"""FEAT-010's numbers, tables and figures, recomputed from the stored arrays.

Code of its own: attention by its definition in numpy, in float64.
"""

from __future__ import annotations

import math
from typing import Any

from gates.shared import outputs, stored
from gates.shared.stored import cached

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "phi3",
    "gpt2",
    "gpt_neox",
)
KINDS = ("float32", "float64", "bfloat16", "nf4", "adapter", "shift", "stretch")
FILES = (
    "artifacts/model.safetensors",
    "artifacts/parity.safetensors",
    "artifacts/guards.json",
    *(f"artifacts/families/{name}.safetensors" for name in FAMILIES),
)
PARITY = 1e-5
EPSILON = 2.0**-52  # of float64: a smaller difference counts as that
FIRST = 16  # first query of an entropy's mean
SHOWN = 24  # tokens of the pattern in the figure


def recomputed() -> dict[str, Any]:
    """Return {"numbers", "tables", "figures", "peaks"} as the gate computes them.

    peaks: family -> the largest weight of the last token, in the mean, as a multiple of an even
    one.
    """
    document: dict[str, Any] = cached(f"attention extraction {SHOWN}", FILES, _recompute)
    return document


def guards() -> dict[str, Any]:
    """Return what the run says that the extractor refused and left behind."""
    document: dict[str, Any] = outputs.read_json("artifacts/guards.json")
    return document


def _recompute() -> dict[str, Any]:
    model = {name: array.astype("float64") for name, array in stored.arrays("model").items()}
    pairs = stored.arrays("parity")
    by_layer = {kind: stored.pair_differences(pairs, kind) for kind in KINDS}
    errors = {kind: max(differences) for kind, differences in by_layer.items()}
    worst, peaks = {}, {}
    for family in FAMILIES:
        arrays = stored.arrays(f"families/{family}")
        last = arrays["float32.recorded"][:, :, :, -1]  # [layers, B, heads, T]
        peaks[family] = float(last.max(-1).mean() * last.shape[-1])
        worst[family] = [
            max(stored.pair_differences(arrays, dtype)) for dtype in ("float32", "float64")
        ]
    own = _weights(model["rot_q"], _grouped(model["rot_k"], model["rot_q"].shape[2]))
    shared = model["rot_k"].shape[2]
    tiled_keys = model["rot_k"][:, :, [h % shared for h in range(model["rot_q"].shape[2])]]
    tiled = _weights(model["rot_q"], tiled_keys)
    cosines = _cosines(model["pattern"], shared)
    numbers = {
        **_parity(errors, worst),
        **_shapes(model),
        **_identities(model),
        **_groups(model, own, tiled, cosines),
        **_scale(model, own),
        **_first_token(model),
        **_rotation(model),
        **{
            name: guards()[name]
            for name in (
                "layers_recorded",
                "checkpointing_refused",
                "second_run_refused",
                "hooks_left",
            )
        },
    }
    kinds = []
    for kind in KINDS:
        kinds.append([errors[kind], by_layer[kind].index(errors[kind])])
    return {
        "numbers": numbers,
        "peaks": peaks,
        "tables": {"families": list(worst.items()), "kinds": kinds},
        "figures": {
            "parity": {"float32": [pair[0] for pair in worst.values()]},
            "groups": {"same group": cosines[0], "other group": cosines[1]},
            "orders": _orders(model, own, tiled),
        },
    }


#### numbers


def _parity(errors: dict[str, Any], worst: dict[str, list[float]]) -> dict[str, Any]:
    orders = math.log10(max(errors["float32"], EPSILON) / max(errors["float64"], EPSILON))
    narrow = [pair[0] for pair in worst.values()]
    return {
        "parity_float32": errors["float32"],
        "parity_float64": errors["float64"],
        "parity_orders": orders,
        "parity_families": max(narrow),
        "parity_families_float64": max(pair[1] for pair in worst.values()),
        "families": len(narrow),
        "families_in_parity": sum(error < PARITY for error in narrow),
        "shift_change": errors["shift"],
        "stretch_change": errors["stretch"],
        "parity_bfloat16": errors["bfloat16"],
        "parity_nf4": errors["nf4"],
        "parity_adapter": errors["adapter"],
    }


def _shapes(model: dict[str, Any]) -> dict[str, Any]:
    layers, _, heads, width = model["rot_q"].shape
    shared = model["rot_k"].shape[2]
    rows = layers * heads * 2048
    return {
        "layers": layers,
        "query_heads": heads,
        "key_heads": shared,
        "group_size": heads // shared,
        "head_width": width,
        "score_scale": 1 / math.sqrt(width),
        "full_pattern_bytes_2048": rows * 2048 * 4,
        "statistics_bytes_2048": rows * 4 * 4,
    }


def _identities(model: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    # 1. The statistics, row by row of the recorded pattern.
    pattern = model["pattern"]
    total = pattern.shape[-1]
    gaps = [abs(model["sink"] - pattern[:, :, :, 0]).max()]
    for query in range(total):
        row = pattern[:, :, query, : query + 1]
        entropy = -np.where(row > 0, row * np.log(np.maximum(row, 1e-300)), 0).sum(-1)
        distance = row @ (query - np.arange(query + 1.0))
        gaps.append(abs(model["entropy"][:, :, query] - entropy).max())
        gaps.append(abs(model["distance"][:, :, query] - distance).max() / total)
        if query:
            gaps.append(abs(model["previous"][:, :, query] - row[:, :, -2]).max())

    # 2. The results of the heads, and the rotation.
    values = _grouped(model["v"], pattern.shape[1]).transpose(0, 2, 1, 3)  # [L, H, T, D]
    z = (pattern @ values).transpose(0, 2, 1, 3)
    theta = guards()["rope_theta"]
    rotations = [
        abs(_turned(model[name], theta) - model[f"rot_{name}"]).max()
        / abs(model[f"rot_{name}"]).max()
        for name in ("q", "k")
    ]
    padding = guards()["padding"]
    return {
        "later_key_share": float(np.triu(pattern, 1).max()),
        "padded_key_share": float(model["padded"][:, :, padding:, :padding].max()),
        "row_sum_error": float(abs(pattern.sum(-1) - 1).max()),
        "statistics_error": float(max(gaps)),
        "z_error": float(abs(z - model["z"]).max() / abs(model["z"]).max()),
        "rotation_error": float(max(rotations)),
        "logits_change": float(abs(model["logits_recorded"] - model["logits_plain"]).max()),
    }


def _groups(
    model: dict[str, Any], own: Any, tiled: Any, cosines: list[list[float]]
) -> dict[str, Any]:
    same, other = cosines
    gaps = [a - b for a, b in zip(same, other, strict=True)]
    return {
        "interleaved_error": float(abs(own - model["pattern"]).max()),
        "tiled_error": float(abs(tiled - model["pattern"]).max()),
        "gqa_same_group_cosine": _mean(same),
        "gqa_other_group_cosine": _mean(other),
        "gqa_gap": _mean(gaps),
        "gqa_layers_with_gap": sum(gap > 0 for gap in gaps),
    }


def _scale(model: dict[str, Any], own: Any) -> dict[str, Any]:
    import numpy as np

    heads = model["rot_q"].shape[2]
    queries = model["rot_q"].transpose(0, 2, 1, 3)  # [L, H, T, D]
    keys = _grouped(model["rot_k"], heads).transpose(0, 2, 3, 1)  # [L, H, D, T]
    scores = queries @ keys
    visible = np.tril(np.ones(scores.shape[-2:], dtype=bool))
    deviations = [float(layer[:, visible].std()) for layer in scores]
    width = queries.shape[-1]
    return {
        "score_deviation_scaled": _mean([value / math.sqrt(width) for value in deviations]),
        "score_deviation_unscaled": _mean(deviations),
        "entropy_scaled": _mean(_spreads(own)),
        "entropy_unscaled": _mean(_spreads(_softmax(scores))),
    }


def _first_token(model: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    ratios, cosines = [], []
    first = 2 if len(model["v"]) > 2 else 0
    for values, keys in zip(model["v"][first:], model["rot_k"][first:], strict=True):
        by_head = []
        similar = []
        for head in range(values.shape[1]):
            lengths = np.sqrt((values[:, head] ** 2).sum(-1))
            by_head.append(lengths[0] / np.median(lengths[1:]))
            middle = keys[1:, head].mean(0)
            product = keys[0, head] @ middle
            similar.append(product / math.sqrt((keys[0, head] ** 2).sum() * (middle**2).sum()))
        ratios.append(float(np.mean(by_head)))
        cosines.append(float(np.mean(similar)))
    return {"sink_value_ratio": _mean(ratios), "sink_key_cosine": _mean(cosines)}


def _rotation(model: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    # 1. The head that looks most at the token before.
    total = model["pattern"].shape[-1]
    later = np.arange(1, total)
    shares = model["pattern"][:, :, later, later - 1].mean(-1)  # [L, H]
    layer, head = divmod(int(shares.argmax()), shares.shape[1])

    # 2. Its weights from q and k as they are before the rotation.
    size = shares.shape[1] // model["k"].shape[2]
    queries = model["q"][layer, :, head]
    keys = model["k"][layer, :, head // size]
    weights = _softmax(queries @ keys.T / math.sqrt(queries.shape[-1]))
    return {
        "previous_token_head": f"L{layer}H{head}",
        "previous_token_share": _mean(model["pattern"][layer, head, later, later - 1].tolist()),
        "previous_token_share_unrotated": _mean(weights[later, later - 1].tolist()),
    }


#### attention by its definition


def _grouped(keys: Any, heads: int) -> Any:
    """Return [L, T, heads, D]: query head h reads key head h // (heads / key heads)."""
    size = heads // keys.shape[2]
    return keys[:, :, [head // size for head in range(heads)]]


def _weights(queries: Any, keys: Any) -> Any:
    """Return weights [L, H, T, T] of q and k, both [L, T, H, D]."""
    scores = queries.transpose(0, 2, 1, 3) @ keys.transpose(0, 2, 3, 1)
    return _softmax(scores / math.sqrt(queries.shape[-1]))


def _softmax(scores: Any) -> Any:
    import numpy as np

    allowed = np.tril(np.ones(scores.shape[-2:]))
    highest = np.where(allowed > 0, scores, -np.inf).max(-1, keepdims=True)
    powers = np.exp(np.minimum(scores - highest, 0)) * allowed
    return powers / powers.sum(-1, keepdims=True)


def _turned(heads: Any, theta: float) -> Any:
    """Return q or k [L, T, heads, D] after RoPE, as products of complex numbers."""
    import numpy as np

    half = heads.shape[-1] // 2
    angles = np.arange(heads.shape[1])[:, None] / theta ** (np.arange(half) / half)
    turned = (heads[..., :half] + 1j * heads[..., half:]) * np.exp(1j * angles)[:, None]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _spreads(weights: Any) -> list[float]:
    """Return the mean normalised entropy of each layer: [L, H, T, T] → L numbers."""
    import numpy as np

    shares = []
    for query in range(FIRST, weights.shape[-1]):
        row = weights[:, :, query, : query + 1]
        entropy = -np.where(row > 0, row * np.log(np.maximum(row, 1e-300)), 0).sum(-1)
        shares.append(entropy / math.log(query + 1))
    means = np.mean(shares, axis=(0, 2))
    return [float(value) for value in means]


def _cosines(pattern: Any, shared: int) -> list[list[float]]:
    """Return per layer the mean cosine of two heads in one group, and in two."""
    import numpy as np

    heads = pattern.shape[1]
    size = heads // shared
    same, other = [], []
    for layer in pattern:
        flat = [layer[head][:, 1:].ravel() for head in range(heads)]
        lengths = [math.sqrt(row @ row) for row in flat]
        inside: list[float] = []
        outside: list[float] = []
        for a in range(heads):
            for b in range(a):
                cosine = flat[a] @ flat[b] / (lengths[a] * lengths[b])
                group = outside
                if a // size == b // size:
                    group = inside
                group.append(cosine)
        same.append(float(np.mean(inside)))
        other.append(float(np.mean(outside)))
    return [same, other]


def _orders(model: dict[str, Any], own: Any, tiled: Any) -> dict[str, Any]:
    """Return head and panels of the figure: the best previous-token head that tiling changes."""
    import numpy as np

    pattern = model["pattern"]
    count, shared = pattern.shape[1], model["rot_k"].shape[2]
    later = np.arange(1, pattern.shape[-1])
    shares = pattern[:, :, later, later - 1].mean(-1)  # [L, H]
    best = (-1.0, 0, 0)
    for head in range(count):
        if head // (count // shared) != head % shared:
            layer = int(shares[:, head].argmax())
            best = max(best, (float(shares[layer, head]), -layer, -head))
    layer, head = -best[1], -best[2]
    panels = []
    for weights in (pattern, own, tiled):
        rows = weights[layer, head, :SHOWN, :SHOWN].tolist()
        panels.append([row[: q + 1] + [None] * (len(row) - q - 1) for q, row in enumerate(rows)])
    return {"head": [layer, head], "panels": panels}


def _mean(values: list[float]) -> dict[str, Any]:
    """Return the mean over layers with its standard error, as result.json states it."""
    sample = outputs.sample(values)
    return {"value": sample["value"], "stderr": sample["stderr"], "n": sample["n"]}
