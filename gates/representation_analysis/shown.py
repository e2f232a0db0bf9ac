"""The tables of FEAT-015's report, recomputed from what it stored, and the sizes of its arrays."""

from __future__ import annotations

import json
from typing import Any

from gates.representation_analysis import arrays, drawn
from gates.shared import stored
from gates.shared.stored import cached, config

TABLES = ("stream", "writes", "interventions", "lens", "similarity", "kinds")
CASES = {
    "cka_raw": "all tokens",
    "cka_without_first": "without the first tokens",
    "cka_without_outliers": "without the tokens of huge norm",
    "cka_random_weights": "random weights, all tokens",
    "cka_shuffled": "one layer's tokens in another order, without those of huge norm",
}


def sizes() -> dict[str, list[int]]:
    """Return FILE.ARRAY -> its shape, of all but the hits, whose number is measured."""
    shapes = {}
    for file in arrays.FILES:
        for name, array in stored.arrays(file).items():
            if name != "hits":
                shapes[f"{file}.{name}"] = list(array.shape)
    return shapes


def planned_sizes() -> dict[str, list[int]]:
    """Return what `sizes` must be, by the settings and the model."""
    count, length = config()["sequences"]["count"], config()["sequences"]["length"]
    test = config()["test"]
    layers = json.loads((drawn.folder() / "config.json").read_text("utf-8"))["num_hidden_layers"]
    batch, losses = [count], [test["count"], test["length"] - 1]
    expected = {
        "sequences.ids": [count, length],
        "sequences.kinds": [count, length],
        "sequences.test_ids": [test["count"], test["length"]],
        "writes.norms": [count, 2, layers, length],
        "writes.cosine": [count, layers, length],
        "writes.stream_cosine": [count, layers, length],
        "writes.attribution": [count, 2, layers, length - 1],
        "writes.embedding": [count, length - 1],
        "writes.target": [count, length - 1],
        "similarity.outliers": [count, length],
        "similarity.ends": [1 + count],
        "interventions.ablated": [test["ablated"], 2, layers, test["length"] - 1],
    }
    for file in ("stream", "stream_random_weights"):
        expected[f"{file}.norms"] = [count, layers + 1, length]
        for name in ("top", "top_position", "top_dimension", "median"):
            expected[f"{file}.{name}"] = [*batch, layers]
    for name in ("agrees", "kl"):
        expected[f"lens.{name}"] = [count, layers + 1, len(drawn.lens_positions())]
    for name in ("raw", "without_outliers"):
        expected[f"similarity.matrix.{name}"] = [layers + 1, layers + 1]
    for name in arrays.PAIRS:
        expected[f"similarity.pair.{name}"] = [1 + count]
    for name in ("base", "zeroed", "mean", *arrays.others()):
        expected[f"interventions.losses.{name}"] = losses
    return expected


def tables() -> list[dict[str, Any]]:
    """Return title, columns and rows of the report's tables, in their order."""

    def compute() -> list[dict[str, Any]]:
        data = arrays.data()
        return [
            _of_stream(data),
            _of_writes(data),
            _of_interventions(data),
            _of_lens(data),
            _of_similarity(),
            _of_kinds(data),
        ]

    key = f"representation analysis tables {arrays.settings_key()}"
    return list(cached(key, arrays.files(), compute))


def _by_layer(title: str, columns: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for layer in range(len(next(iter(columns.values())))):
        rows.append([layer, *(float(column[layer]) for column in columns.values())])
    return {"title": title, "columns": ["layer", *columns], "rows": rows}


def _of_stream(data: arrays.Data) -> dict[str, Any]:
    top, median = arrays.largest_and_median(data)
    return _by_layer(
        "Stream: the output of each layer",
        {
            "norm, first token": arrays.norms_of_first(data)[1:],
            "norm, others": arrays.norms_behind(data)[1:],
            "largest number": top,
            "median": median,
            "largest / median": top / median,
            "largest, random weights": arrays.largest_and_median(data, "stream_random_weights")[0],
        },
    )


def _of_writes(data: arrays.Data) -> dict[str, Any]:
    lengths, attributions, rises = (
        arrays.lengths(data),
        arrays.attributions(data),
        arrays.rises(data),
    )
    return _by_layer(
        "Writes: without the first token (logits, nats/token)",
        {
            "attention: length": lengths[0],
            "MLP: length": lengths[1],
            "attention: direct attribution": attributions[0],
            "MLP: direct attribution": attributions[1],
            "attention: cost of the mean": rises[0],
            "MLP: cost of the mean": rises[1],
            "cosine of the two": data["writes.cosine"][:, :, 1:].mean((0, 2)),
        },
    )


def _of_interventions(data: arrays.Data) -> dict[str, Any]:
    target, perplexity = arrays.target(), arrays.perplexities(data)
    changes = ["nothing", f"dimension {target['dimension']} to 0"]
    changes.append(f"dimension {target['dimension']} to its mean {target['mean']:.6g}")
    changes += [f"dimension {other} to 0 (control)" for other in target["others"]]
    rows = []
    for change, value in zip(changes, perplexity.values(), strict=True):
        rows.append([change, value, value / perplexity["base"]])
    return {
        "title": f"Causal test: the first token in the output of layer {target['layer']}",
        "columns": ["set", "perplexity", "times"],
        "rows": rows,
    }


def _of_lens(data: arrays.Data) -> dict[str, Any]:
    agreement, kl = arrays.lens_by_depth(data)
    rows = [[depth, float(agreement[depth]), float(kl[depth])] for depth in range(len(kl))]
    columns = ["depth", "share with the model's first choice", "KL(model || lens) in nats"]
    return {"title": "Logit lens", "columns": columns, "rows": rows}


def _of_similarity() -> dict[str, Any]:
    rows = []
    for name, title in CASES.items():
        expected = arrays.measurements()[name]
        rows.append([title, expected["value"], expected["stderr"]])
    columns = ["of", "CKA", "standard error"]
    return {"title": "CKA of the planned pair of layers", "columns": columns, "rows": rows}


def _of_kinds(data: arrays.Data) -> dict[str, Any]:
    ordinary = arrays.is_ordinary(data)
    rows = []
    for code, kind in enumerate(arrays.KINDS):
        is_kind = data["sequences.kinds"] == code
        huge = int(data["similarity.outliers"][is_kind].sum())
        rows.append([kind, int(ordinary[is_kind].sum()), huge, arrays.of_kind(data, kind)])
    columns = ["kind", "ordinary tokens", "of huge norm", "length against all ordinary tokens"]
    return {"title": "Kinds of tokens", "columns": columns, "rows": rows}
