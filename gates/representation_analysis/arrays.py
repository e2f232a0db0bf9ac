"""FEAT-015's measurements recomputed from its stored arrays, by formulas apart from the lab's.

Needs numpy and no torch. Whether the stored arrays themselves are right is checked in model.py and
interventions.py. The probes' measurements are in probes.py.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

from gates.shared import outputs, stored
from gates.shared.statistics import jackknife_stderr
from gates.shared.stored import cached, config

FILES = (
    "sequences",
    "stream",
    "stream_random_weights",
    "writes",
    "lens",
    "similarity",
    "interventions",
)
PAIRS = ("raw", "without_first", "without_outliers", "random_weights", "shuffled")
KINDS = ("word start", "inside a word", "digit", "punctuation", "blank")
ABSOLUTE, RELATIVE = 100, 1000  # Sun et al. 2024: above 100 and above 1000 times the median
HUGE = 10  # times the median norm
MEASUREMENTS = (
    "norm_growth",
    "norm_growth_with_first_token",
    "first_token_norm_ratio",
    "massive_value",
    "massive_onset_jump",
    "massive_at_first_token",
    "write_cosine",
    "embedding_cosine",
    "attention_attribution",
    "mlp_attribution",
    "embedding_attribution",
    "norm_late_positions",
    "norm_word_start",
    "norm_inside_word",
    "norm_digit",
    "norm_punctuation",
    "norm_blank",
    "lens_agreement_depth",
    "lens_agreement_middle",
    "lens_agreement_before_last",
    "perplexity_base",
    "zeroed_ratio",
    "mean_ratio",
    "other_dimension_ratio",
    "attention_rise",
    "mlp_rise",
    "costliest_rise",
    "norm_ablation_correlation",
    "attribution_ablation_correlation",
    "cka_raw",
    "cka_without_first",
    "cka_without_outliers",
    "cka_random_weights",
    "cka_shuffled",
    "cka_outlier_gap",
    "cka_first_token_gap",
    "cka_first_to_last",
    "norm_growing_steps",
    "massive_layers",
    "massive_onset_layer",
    "massive_dimension",
    "massive_dimensions",
    "massive_random_weights",
    "mlp_larger_layers",
    "costliest_layer",
    "lens_kl_rises",
    "lens_kl_highest_depth",
    "lens_kl_last",
    "outlier_tokens",
    "outlier_tokens_behind_first",
)
Data = dict[str, Any]


def files() -> list[str]:
    """Return every file that numbers, tables and figures are recomputed from."""
    return [*(f"artifacts/{name}.safetensors" for name in FILES), "artifacts/target.json"]


def settings_key() -> str:
    """Return config and seed as text: they are in result.json, which is no file of `files`."""
    return json.dumps([config(), seed()], sort_keys=True)


def seed() -> int:
    """Return the seed of the run."""
    return int(outputs.result()["environment"]["seed"])


def target() -> dict[str, Any]:
    """Return the number that was changed: its layer, dimension, mean, and control dimensions."""
    document: dict[str, Any] = outputs.read_json("artifacts/target.json")
    return document


def data() -> Data:
    """Return FILE.ARRAY -> array of all files, numbers in float64."""
    arrays = {}
    for name in FILES:
        for key, array in stored.arrays(name).items():
            arrays[f"{name}.{key}"] = array.astype("float64") if array.dtype.kind == "f" else array
    return arrays


def without(arrays: Data, group: str, index: int) -> Data:
    """Return the arrays without a sequence: of the "text", the "test" or those "ablated"."""
    import numpy as np

    rest = dict(arrays)
    for key, array in arrays.items():
        if _is_of(key, group):
            rest[key] = np.concatenate([array[:index], array[index + 1 :]])
    if group == "text":
        hits = arrays["stream.hits"]
        rest["stream.hits"] = hits[hits[:, 0] != index]
    return rest


def _is_of(key: str, group: str) -> bool:
    """Return whether an array has a row per sequence of the group."""
    file = key.partition(".")[0]
    if group == "text":
        is_listed = key in ("sequences.ids", "sequences.kinds", "similarity.outliers")
        return is_listed or (file in ("stream", "writes", "lens") and key != "stream.hits")
    is_loss = key.startswith("interventions.losses.")
    return is_loss or (group == "ablated" and key == "interventions.ablated")


def others() -> list[str]:
    """Return the names of the interventions on control dimensions."""
    return [f"other_{number}" for number in range(config()["interventions"]["dimensions"])]


def measurements() -> dict[str, Any]:
    """Return measurement -> what it must be."""

    def compute() -> dict[str, Any]:
        arrays = data()
        return {
            **_with_errors(arrays, "text", _of_text),
            **_with_errors(arrays, "test", _of_interventions),
            **_with_errors(arrays, "ablated", _of_ablation),
            **_of_similarity(arrays),
            **_of_counts(arrays),
        }

    return dict(cached(f"representation analysis {settings_key()}", files(), compute))


def values() -> dict[str, Any]:
    """Return measurement -> the value alone that it must have."""
    plain = {}
    for name, expected in measurements().items():
        plain[name] = expected["value"] if isinstance(expected, dict) else expected
    return plain


def _with_errors(
    arrays: Data, group: str, compute: Callable[[Data], dict[str, Any]]
) -> dict[str, Any]:
    """Return numbers with their jackknife errors over the sequences of a group."""
    key = {
        "text": "sequences.ids",
        "test": "interventions.losses.base",
        "ablated": "interventions.ablated",
    }[group]
    count = len(arrays[key])
    numbers = compute(arrays)
    parts = [compute(without(arrays, group, index)) for index in range(count)]
    expected = {}
    for name, value in numbers.items():
        fields = {"value": value, "stderr": None, "n": None}
        left_out = [part[name] for part in parts]
        if value is not None and None not in left_out:
            fields |= {"stderr": jackknife_stderr(left_out), "n": count}
        expected[name] = fields
    return expected


#### what numbers, tables and figures are made of


def norms_of_first(arrays: Data, file: str = "stream") -> Any:
    """Return the mean norm of the first tokens at each depth, [L + 1]."""
    return arrays[f"{file}.norms"][:, :, 0].mean(0)


def norms_behind(arrays: Data, file: str = "stream") -> Any:
    """Return the mean norm of all later tokens at each depth, [L + 1]."""
    norms = arrays[f"{file}.norms"]
    sums = norms.sum((0, 2)) - norms[:, :, 0].sum(0)
    return sums / (norms.shape[0] * (norms.shape[2] - 1))


def largest_and_median(arrays: Data, file: str = "stream") -> tuple[Any, Any]:
    """Return largest and median |x| of each layer's output, means over sequences, [L] each."""
    return arrays[f"{file}.top"].mean(0), arrays[f"{file}.median"].mean(0)


def longest_run(arrays: Data) -> tuple[int, int]:
    """Return the first layer and the length of the longest run of massive layers, the first one."""
    top, median = largest_and_median(arrays)
    limits = [max(ABSOLUTE, RELATIVE * middle) for middle in median]
    marks = "".join(" x"[int(largest > limit)] for largest, limit in zip(top, limits, strict=True))
    length = max(map(len, marks.split(" ")))
    return (marks.index("x" * length), length) if length else (0, 0)


def lengths(arrays: Data) -> Any:
    """Return the mean length of each write, [2, L], without the first token's."""
    return arrays["writes.norms"][:, :, :, 1:].mean(3).mean(0)


def attributions(arrays: Data) -> Any:
    """Return the mean direct attribution of each write, [2, L], without the first token's."""
    return arrays["writes.attribution"][:, :, :, 1:].mean(3).mean(0)


def rises(arrays: Data) -> Any:
    """Return the mean rise of the loss for each replaced write, [2, L]."""
    ablated = arrays["interventions.ablated"]
    base = arrays["interventions.losses.base"][: len(ablated)]
    return ablated.mean((0, 3)) - base.mean()


def perplexities(arrays: Data) -> dict[str, float]:
    """Return intervention -> perplexity."""
    names = ("base", "zeroed", "mean", *others())
    return {name: math.exp(arrays[f"interventions.losses.{name}"].mean()) for name in names}


def lens_by_depth(arrays: Data) -> tuple[Any, Any]:
    """Return agreement and KL of the lens by depth, [L + 1] each; rounding is 0."""
    kl = arrays["lens.kl"].mean((0, 2))
    kl[abs(kl) < 1e-6] = 0
    return arrays["lens.agrees"].mean((0, 2)), kl


def is_ordinary(arrays: Data) -> Any:
    """Return which tokens [B, T] are neither first nor of huge norm."""
    import numpy as np

    positions = np.arange(arrays["sequences.ids"].shape[1])
    return (arrays["similarity.outliers"] == 0) & (positions > 0)


def relative_length(arrays: Data, chosen: Any) -> float | None:
    """Return the norm of the chosen ordinary tokens over that of all, mean over layers."""
    ordinary = is_ordinary(arrays)
    kept = ordinary & chosen
    if kept.sum() == 0:
        return None
    ratios = []
    for depth in range(1, arrays["stream.norms"].shape[1]):
        norms = arrays["stream.norms"][:, depth]
        ratios.append(norms[kept].mean() / norms[ordinary].mean())
    return float(math.fsum(ratios) / len(ratios))


def of_kind(arrays: Data, kind: str) -> float | None:
    """Return the relative length of the tokens of a kind."""
    return relative_length(arrays, arrays["sequences.kinds"] == KINDS.index(kind))


def rank_correlation(x: Any, y: Any) -> float:
    """Return Pearson's correlation of the ranks; 0 where a side is constant."""
    import numpy as np
    from scipy.stats import rankdata

    if len(set(x)) == 1 or len(set(y)) == 1:
        return 0.0
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


#### measurements


def _of_text(arrays: Data) -> dict[str, Any]:
    import numpy as np

    behind = norms_behind(arrays)
    every = arrays["stream.norms"].mean((0, 2))
    steps = len(behind) - 2
    start, length = longest_run(arrays)
    top, _ = largest_and_median(arrays)
    hits = arrays["stream.hits"]
    agreement, _ = lens_by_depth(arrays)
    half = np.arange(arrays["sequences.ids"].shape[1]) >= config()["sequences"]["length"] // 2
    late, early = relative_length(arrays, half[None]), relative_length(arrays, ~half[None])
    attention, mlp = attributions(arrays)
    return {
        "norm_growth": math.exp(math.log(behind[-1] / behind[1]) / steps),
        "norm_growth_with_first_token": math.exp(math.log(every[-1] / every[1]) / steps),
        "first_token_norm_ratio": float((norms_of_first(arrays)[1:] / behind[1:]).max()),
        "massive_value": float(max(top[start : start + length])) if length else None,
        "massive_onset_jump": float(top[start] / top[start - 1]) if length and start else None,
        "massive_at_first_token": float(np.mean(hits[:, 2] == 0)) if len(hits) else None,
        "write_cosine": float(arrays["writes.cosine"][:, :, 1:].mean()),
        "embedding_cosine": float(arrays["writes.stream_cosine"][:, 0, 1:].mean()),
        "attention_attribution": float(attention.sum()),
        "mlp_attribution": float(mlp.sum()),
        "embedding_attribution": float(arrays["writes.embedding"][:, 1:].mean()),
        "norm_late_positions": None if late is None or early is None else late / early,
        "norm_word_start": of_kind(arrays, "word start"),
        "norm_inside_word": of_kind(arrays, "inside a word"),
        "norm_digit": of_kind(arrays, "digit"),
        "norm_punctuation": of_kind(arrays, "punctuation"),
        "norm_blank": of_kind(arrays, "blank"),
        "lens_agreement_depth": rank_correlation(agreement[1:], np.arange(len(agreement) - 1)),
        "lens_agreement_middle": float(agreement[(len(agreement) - 1) // 2]),
        "lens_agreement_before_last": float(agreement[len(agreement) - 2]),
    }


def _of_interventions(arrays: Data) -> dict[str, Any]:
    perplexity = perplexities(arrays)
    ratios = {name: perplexity[name] / perplexity["base"] for name in perplexity}
    farthest = max(others(), key=lambda name: abs(math.log(ratios[name])))
    return {
        "perplexity_base": perplexity["base"],
        "zeroed_ratio": ratios["zeroed"],
        "mean_ratio": ratios["mean"],
        "other_dimension_ratio": ratios[farthest],
    }


def _of_ablation(arrays: Data) -> dict[str, Any]:
    costs = rises(arrays)
    return {
        "attention_rise": float(costs[0].mean()),
        "mlp_rise": float(costs[1].mean()),
        "costliest_rise": float((costs[0] + costs[1]).max()),
        "norm_ablation_correlation": rank_correlation(lengths(arrays).ravel(), costs.ravel()),
        "attribution_ablation_correlation": rank_correlation(
            attributions(arrays).ravel(), costs.ravel()
        ),
    }


def _of_similarity(arrays: Data) -> dict[str, Any]:
    """Return CKA and its errors: the first value of each array is of all sequences."""
    count = len(arrays["sequences.ids"])

    def estimate(stored_values: Any) -> dict[str, Any]:
        value, *left_out = stored_values.tolist()
        return {"value": value, "stderr": jackknife_stderr(left_out), "n": count}

    pairs = {name: arrays[f"similarity.pair.{name}"] for name in PAIRS}
    return {
        **{f"cka_{name}": estimate(pair) for name, pair in pairs.items()},
        "cka_outlier_gap": estimate(pairs["raw"] - pairs["without_outliers"]),
        "cka_first_token_gap": estimate(pairs["raw"] - pairs["without_first"]),
        "cka_first_to_last": estimate(arrays["similarity.ends"]),
    }


def _of_counts(arrays: Data) -> dict[str, Any]:
    behind = norms_behind(arrays).tolist()
    start, length = longest_run(arrays)
    attention, mlp = lengths(arrays)
    costs = rises(arrays).sum(0).tolist()
    kl = lens_by_depth(arrays)[1].tolist()
    outliers = arrays["similarity.outliers"]
    return {
        "norm_growing_steps": _ups(behind),
        "massive_layers": length,
        "massive_onset_layer": start if length else None,
        "massive_dimension": int(target()["dimension"]),
        "massive_dimensions": len(set(arrays["stream.hits"][:, 3].tolist())),
        "massive_random_weights": len(arrays["stream_random_weights.hits"]),
        "mlp_larger_layers": int((mlp > attention).sum()),
        "costliest_layer": costs.index(max(costs)),
        "lens_kl_rises": _ups(kl),
        "lens_kl_highest_depth": kl.index(max(kl[1:]), 1),
        "lens_kl_last": {"value": kl[-1], "stderr": None, "n": None},
        "outlier_tokens": int(outliers.sum()),
        "outlier_tokens_behind_first": int(outliers.sum() - outliers[:, 0].sum()),
    }


def _ups(column: list[float]) -> int:
    return sum(later > earlier for earlier, later in itertools.pairwise(column))
