"""The tables and figures of FEAT-011's report, recomputed from what it stored."""

from __future__ import annotations

from typing import Any

from gates.attention_views import arrays
from gates.shared import stored
from gates.shared.stored import cached

LISTED = 8  # heads of the table of heads
KINDS = ("natural", "random_tokens", "one_token", "natural_random_weights")


def tables() -> list[list[list[Any]]]:
    """Return the rows of the report's tables, in their order."""

    def compute() -> list[list[list[Any]]]:
        return [_layer_rows(), _head_rows(), _ablation_rows()]

    key = f"attention views tables {arrays.settings_key()}"
    return list(cached(key, arrays.files(), compute))


def _layer_rows() -> list[list[Any]]:
    columns = [
        arrays.sink_map("natural").mean(1),
        arrays.norm_ratios(),
        arrays.entropy_map("natural").mean(1),
        arrays.distance_map("natural", with_sink=True).mean(1),
        arrays.distance_map("natural", with_sink=False).mean(1),
        arrays.score_map("natural", "previous").mean(1),
    ]
    rows = []
    for layer in range(len(columns[0])):
        rows.append([layer, *(float(column[layer]) for column in columns)])
    return rows


def _head_rows() -> list[list[Any]]:
    maps = [
        arrays.score_map("repeated", "induction"),
        arrays.score_map("repeated_random_weights", "induction"),
        arrays.score_map("repeated", "duplicate"),
        arrays.score_map("repeated", "previous"),
        arrays.sink_map("natural"),
    ]
    rows = []
    for head in arrays.order(maps[0])[:LISTED]:
        rows.append([arrays.name_of(head), *(float(scores[head]) for scores in maps)])
    return rows


def _ablation_rows() -> list[list[Any]]:
    rows = []
    for ablation in ("nothing", "induction", "previous", *arrays.random_sets()):
        names = [arrays.name_of((layer, head)) for layer, head in arrays.heads()[ablation]]
        first, second = (sum(m) / len(m) for m in arrays.means_of_copies(ablation))
        rows.append([ablation, " ".join(names) or "none", first, second])
    return rows


def lines() -> dict[str, list[list[Any]]]:
    """Return figure -> [x, y, band or None] of each of its series, in their order."""
    key = f"attention views lines {arrays.settings_key()}"
    return dict(cached(key, arrays.files(), _lines))


def _lines() -> dict[str, list[list[Any]]]:
    import numpy as np

    norms = stored.arrays("norms")["norms"].astype("float64")  # [B, L, T]
    entropy = arrays.entropy_map("natural")
    control = arrays.entropy_map("natural_random_weights").mean(1)
    bars = [float(row[3]) for row in _ablation_rows()]
    top = len(arrays.heads()["induction"])
    ((layer, head),) = arrays.heads()["previous"]
    alone = arrays.name_of((layer, head))
    names = ["nothing", f"{top} induction heads", f"{alone} alone"]
    names += [name.replace("_", " ") for name in arrays.random_sets()]
    return {
        "sink_profile": [_by_layer(arrays.sink_map(kind).mean(1)) for kind in KINDS],
        "norm_profile": [
            _by_layer(norms[..., 0].mean(0)),
            _by_layer(np.median(norms, axis=2).mean(0)),
        ],
        "entropy_profile": [
            _by_layer(entropy.mean(1), band=[entropy.min(1).tolist(), entropy.max(1).tolist()]),
            _by_layer(control),
        ],
        "distance_profile": [
            _by_layer(arrays.distance_map("natural", with_sink=with_sink).mean(1))
            for with_sink in (True, False)
        ],
        "ablation": [[names, bars, None]],
    }


def _by_layer(values: Any, band: list[list[float]] | None = None) -> list[Any]:
    return [list(range(len(values))), [float(value) for value in values], band]


def maps() -> dict[str, list[list[list[float | None]]]]:
    """Return heatmap -> the values of each of its panels, in their order."""
    key = f"attention views maps {arrays.settings_key()}"
    return dict(cached(key, arrays.files(), _maps))


def _maps() -> dict[str, list[list[list[float | None]]]]:
    scores = []
    for name in ("induction", "previous"):
        for kind in ("repeated", "repeated_random_weights"):
            scores.append(arrays.score_map(kind, name).tolist())
    return {
        "sink_map": [arrays.sink_map(kind).tolist() for kind in KINDS],
        "score_map": scores,
        "patterns": [one["pattern"] for one in shown_heads()],
    }


def shown_heads() -> list[dict[str, Any]]:
    """Return title, head, score and pattern of each head of the figure `patterns`.

    They are those of the highest scores on the shown sequence that occurs twice.
    """
    import numpy as np

    (text,) = (text for text in arrays.texts() if text["key"] == "repeated")
    weights = stored.arrays("patterns")["repeated"].astype("float64")  # [L, H, T, T]
    total, period = weights.shape[-1], text["period"]
    queries = np.arange(total)
    copied = queries[period + 1 :]
    scores = {
        "induction": weights[..., copied, copied - period + 1].mean(-1),
        "previous token": weights[..., queries[1:], queries[1:] - 1].mean(-1),
        "first token": weights[..., 1:, 0].mean(-1),
    }
    if total > arrays.FIRST_SPREAD:
        nats = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)
        shares = nats[..., arrays.FIRST_SPREAD :] / np.log(queries[arrays.FIRST_SPREAD :] + 1)
        scores["entropy"] = shares.mean(-1)
    shown = []
    for title, values in scores.items():
        head = arrays.order(values)[0]
        one = {"title": title, "head": arrays.name_of(head), "score": float(values[head])}
        shown.append(one | {"pattern": _causal(weights[head])})
    return shown


def _causal(pattern: Any) -> list[list[float | None]]:
    rows: list[list[float | None]] = []
    for query, row in enumerate(pattern.tolist()):
        rows.append([*row[: query + 1], *[None] * (len(row) - query - 1)])
    return rows
