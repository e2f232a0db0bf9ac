"""FEAT-011's measurements recomputed from its stored arrays, by formulas apart from the lab's.

Needs numpy and no torch. Whether the stored arrays themselves are right is checked in
gates/attention_views/model.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gates.shared import outputs, stored
from gates.shared.statistics import jackknife_stderr
from gates.shared.stored import cached, config

TRAINED = ("natural", "random_tokens", "one_token", "repeated")
UNTRAINED = ("natural_random_weights", "repeated_random_weights")
SETS = (*TRAINED, *UNTRAINED)
STATISTICS = ("sink", "second", "entropy", "distance", "previous")
OF_REPEATED = ("induction", "duplicate")
RATES = {
    "sink_rate": "natural",
    "sink_rate_random_tokens": "random_tokens",
    "sink_rate_one_token": "one_token",
    "sink_rate_random_weights": "natural_random_weights",
}
THRESHOLD = 0.3  # of Gu et al. 2025
HIGH_SINK = 0.4
FIRST_SPREAD = 16
MEASUREMENTS = (
    *RATES,
    "sink_rate_second_token",
    "sink_share_early",
    "sink_share_late",
    "sink_late_over_early",
    "sink_follows_norm",
    "norm_ratio_highest",
    "entropy_first_layer",
    "entropy_highest_layer",
    "distance_late",
    "distance_late_without_sink",
    "distance_late_ratio",
    "layers_with_sink",
    "layers_nearer_without_sink",
    "induction_score",
    "induction_score_mean",
    "induction_score_random_weights",
    "induction_head",
    "induction_heads",
    "previous_score",
    "previous_score_random_weights",
    "previous_head",
    "previous_head_before_induction",
    "loss_first_copy",
    "loss_second_copy",
    "copy_loss_ratio",
    "loss_without_induction_heads",
    "loss_without_previous_head",
    "loss_without_random_heads",
    "random_sets_with_previous_head",
    "ablation_ratio",
    "ablation_rise_ratio",
)
Head = tuple[int, int]


def files() -> list[str]:
    """Return every file that numbers, tables and figures are recomputed from."""
    names = [f"statistics_{kind}" for kind in SETS]
    names += ["sequences", "norms", "ablation_losses", "patterns"]
    paths = [f"artifacts/{name}.safetensors" for name in names]
    return [*paths, "artifacts/ablation_heads.json", "artifacts/texts.json"]


def settings_key() -> str:
    """Return config and seed as text: they are in result.json, which is no file of `files`."""
    return json.dumps([config(), seed()], sort_keys=True)


def seed() -> int:
    """Return the seed of the run."""
    return int(outputs.result()["environment"]["seed"])


def statistics(kind: str) -> dict[str, Any]:
    """Return the statistics [B, L, H, T] of a set, in float64."""
    arrays = stored.arrays(f"statistics_{kind}")
    return {name: _kept(array.astype("float64")) for name, array in arrays.items()}


_left_out: list[int] = []  # the sequence that a jackknife leaves out, if any


def _kept(array: Any) -> Any:
    """Return an array [B, ...] without the sequence that is left out."""
    return array[[i for i in range(len(array)) if i not in _left_out]]


def _with_errors(count: int, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return numbers with the jackknife error over `count` sequences: value, stderr, n."""
    numbers = compute()
    parts = []
    for i in range(count):
        _left_out.append(i)
        parts.append(compute())
        _left_out.pop()
    expected = {}
    for name, value in numbers.items():
        known = [part[name] for part in parts if part[name] is not None]
        expected[name] = {"value": value, "stderr": None, "n": None}
        if value is not None and len(known) == count:
            expected[name]["stderr"] = jackknife_stderr(known)
            expected[name]["n"] = count
    return expected


def texts() -> list[dict[str, Any]]:
    """Return the texts of the page, with key, label, note, period, ids and tokens."""
    document: list[dict[str, Any]] = outputs.read_json("artifacts/texts.json")
    return document


def heads() -> dict[str, list[list[int]]]:
    """Return ablation -> [layer, head] of what was switched off."""
    document: dict[str, list[list[int]]] = outputs.read_json("artifacts/ablation_heads.json")
    return document


def random_sets() -> list[str]:
    """Return the names of the random sets that the config plans."""
    return [f"random_{draw}" for draw in range(config()["ablation"]["draws"])]


def measurements() -> dict[str, Any]:
    """Return measurement -> what it must be."""

    def compute() -> dict[str, Any]:
        return _of_the_sink() | _of_layers() | _of_induction() | _of_ablation()

    return dict(cached(f"attention views {settings_key()}", files(), compute))


def values() -> dict[str, Any]:
    """Return measurement -> the value alone that it must have."""
    plain = {}
    for name, expected in measurements().items():
        plain[name] = expected["value"] if isinstance(expected, dict) else expected
    return plain


#### maps [L, H]


def sink_map(kind: str) -> Any:
    """Return the mean share on the first token of all later queries."""
    sink = statistics(kind)["sink"]
    return sink[..., 1:].sum((0, 3)) / (sink.shape[0] * (sink.shape[3] - 1))


def entropy_map(kind: str) -> Any:
    """Return the entropy over ln(q + 1), mean over queries from FIRST_SPREAD on."""
    import numpy as np

    entropy = statistics(kind)["entropy"]
    largest = np.log(np.arange(entropy.shape[3]) + 1.0)
    return (entropy[..., FIRST_SPREAD:] / largest[FIRST_SPREAD:]).mean((0, 3))


def distance_map(kind: str, *, with_sink: bool) -> Any:
    """Return the mean distance; without the sink Σ_{k≥1} A·(q - k) / Σ_{k≥1} A."""
    import numpy as np

    arrays = statistics(kind)
    distance, sink = arrays["distance"], arrays["sink"]
    if not with_sink:
        queries = np.arange(distance.shape[3])
        rest = 1 - sink
        numerator = distance - sink * queries
        distance = np.zeros_like(numerator)
        np.divide(numerator, rest, out=distance, where=rest > 1e-6)
        distance = distance.clip(min=0)
    return distance[..., 1:].mean((0, 3))


def score_map(kind: str, name: str) -> Any:
    """Return the mean of a diagonal: over the second copy, "previous" over all queries but one."""
    first = 1 if name == "previous" else config()["repeated"]["period"] + 1
    return statistics(kind)[name][..., first:].mean((0, 3))


def norm_ratios() -> Any:
    """Return the first token's norm over the median token's per layer, mean over sequences."""
    import numpy as np

    norms = _kept(stored.arrays("norms")["norms"].astype("float64"))  # [B, L, T]
    return np.mean(norms[:, :, 0] / np.median(norms, axis=2), axis=0)


def order(scores: Any) -> list[Head]:
    """Return all heads, the highest score first."""
    layers, count = scores.shape
    pairs = []
    for layer in range(layers):
        pairs += [(layer, head) for head in range(count)]
    return sorted(pairs, key=lambda pair: (-scores[pair], pair))


def name_of(head: Head) -> str:
    """Return L18H6 for (18, 6)."""
    return f"L{head[0]}H{head[1]}"


def previous_before(head: Head) -> Head:
    """Return the strongest previous-token head of the layers before a head's."""
    scores = score_map("repeated", "previous")
    return order(scores[: head[0] or len(scores)])[0]


def means_of_copies(ablation: str) -> tuple[list[float], list[float]]:
    """Return the mean losses of the first and of the second copy, per sequence."""
    period = config()["repeated"]["period"]
    losses = _kept(stored.arrays("ablation_losses")[ablation].astype("float64"))  # [B, 2·S]
    return losses[:, :period].mean(1).tolist(), losses[:, period:].mean(1).tolist()


#### measurements


def _rates(shares: Any) -> dict[str, Any]:
    per_sequence = []
    for sequence in shares:  # [L, H, Q]
        per_sequence.append(100.0 * float((sequence.mean(2) > THRESHOLD).mean()))
    return outputs.sample(per_sequence)


def _of_the_sink() -> dict[str, Any]:
    expected = {name: _rates(statistics(kind)["sink"]) for name, kind in RATES.items()}
    expected["sink_rate_second_token"] = _rates(statistics("natural")["second"][..., 1:])
    return expected


def _of_layers() -> dict[str, Any]:
    import numpy as np

    count = len(stored.arrays("norms")["norms"])
    sink = sink_map("natural").mean(1)
    distance = distance_map("natural", with_sink=True).mean(1)
    without = distance_map("natural", with_sink=False).mean(1)
    has_sink = [layer for layer in range(len(sink)) if sink[layer] > HIGH_SINK]
    return _with_errors(count, _layer_numbers) | {
        "entropy_highest_layer": int(np.argmax(entropy_map("natural").mean(1))),
        "layers_with_sink": len(has_sink),
        "layers_nearer_without_sink": sum(bool(without[i] <= distance[i]) for i in has_sink),
    }


def _layer_numbers() -> dict[str, Any]:
    import numpy as np
    from scipy.stats import rankdata

    early, late = config()["layers"]["early"], config()["layers"]["late"]
    sink = sink_map("natural").mean(1)
    distance = float(distance_map("natural", with_sink=True).mean(1)[late:].mean())
    without = float(distance_map("natural", with_sink=False).mean(1)[late:].mean())
    ratios = norm_ratios()
    rho = None
    if len(set(sink)) > 1 and len(set(ratios)) > 1:
        # Spearman's ρ: Pearson's of the ranks
        rho = float(np.corrcoef(rankdata(sink), rankdata(ratios))[0, 1])
    return {
        "sink_share_early": float(sink[:early].mean()),
        "sink_share_late": float(sink[late:].mean()),
        "sink_late_over_early": float(sink[late:].mean() / sink[:early].mean()),
        "sink_follows_norm": rho,
        "norm_ratio_highest": float(max(ratios)),
        "entropy_first_layer": float(entropy_map("natural").mean(1)[0]),
        "distance_late": distance,
        "distance_late_without_sink": without,
        "distance_late_ratio": distance / without,
    }


def _of_induction() -> dict[str, Any]:
    thresholds = config()["thresholds"]
    induction, previous = score_map("repeated", "induction"), score_map("repeated", "previous")
    top = order(induction)[0]
    is_fed = any(max(row) > thresholds["previous"] for row in previous[: top[0]])
    count = len(stored.arrays("statistics_repeated")["sink"])
    return _with_errors(count, _induction_numbers) | {
        "induction_head": name_of(top),
        "induction_heads": int((induction > thresholds["induction"]).sum()),
        "previous_head": name_of(order(previous)[0]),
        "previous_head_before_induction": is_fed,
    }


def _induction_numbers() -> dict[str, Any]:
    control = "repeated_random_weights"
    induction = score_map("repeated", "induction")
    return {
        "induction_score": float(induction.max()),
        "induction_score_mean": float(induction.mean()),
        "induction_score_random_weights": float(score_map(control, "induction").max()),
        "previous_score": float(score_map("repeated", "previous").max()),
        "previous_score_random_weights": float(score_map(control, "previous").max()),
    }


def _of_ablation() -> dict[str, Any]:
    first, second = means_of_copies("nothing")
    (previous,) = heads()["previous"]
    return _with_errors(len(first), _ablation_numbers) | {
        "loss_first_copy": outputs.sample(first),
        "loss_second_copy": outputs.sample(second),
        "loss_without_induction_heads": outputs.sample(means_of_copies("induction")[1]),
        "loss_without_previous_head": outputs.sample(means_of_copies("previous")[1]),
        "loss_without_random_heads": outputs.sample(_random_means()),
        "random_sets_with_previous_head": sum(previous in heads()[n] for n in random_sets()),
    }


def _ablation_numbers() -> dict[str, Any]:
    first, second = (sum(copy) / len(copy) for copy in means_of_copies("nothing"))
    losses = means_of_copies("induction")[1]
    without = sum(losses) / len(losses)
    random = _random_means()
    rise = sum(random) / len(random) - second
    return {
        "copy_loss_ratio": second / first,
        "ablation_ratio": without / max(random),
        "ablation_rise_ratio": (without - second) / rise if rise > 0 else None,
    }


def _random_means() -> list[float]:
    means = []
    for name in random_sets():
        losses = means_of_copies(name)[1]
        means.append(sum(losses) / len(losses))
    return means
