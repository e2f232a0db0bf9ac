"""The words around FEAT-011's figures and tables: titles, captions, axes, labels of their data."""

from __future__ import annotations

from typing import Any

from gates.attention_views import arrays, report, words
from gates.shared.documents import written
from gates.shared.stored import cached, config

TITLES = {
    "natural": "running text",
    "random_tokens": "random tokens",
    "one_token": "one token repeated",
    "natural_random_weights": "random weights",
}
SCORES = {
    ("induction", "repeated"): "induction",
    ("induction", "repeated_random_weights"): "induction: random weights",
    ("previous", "repeated"): "previous token",
    ("previous", "repeated_random_weights"): "previous token: random weights",
}
TABLES = (
    (
        "Layers on running text, means over heads",
        [
            "layer",
            "sink share",
            "first residual / median",
            "entropy (share of the largest)",
            "distance (tokens)",
            "without the first token",
            "previous token",
        ],
    ),
    (
        "Heads of the highest induction scores",
        [
            "head",
            "induction",
            "the same head with random weights",
            "same token",
            "previous token",
            "sink share on running text",
        ],
    ),
    (
        "Causal test: heads switched off",
        ["switched off", "heads", "first copy (nats/token)", "second copy (nats/token)"],
    ),
)
ORDER = (  # of the figures in the report
    "sink_map",
    "sink_profile",
    "norm_profile",
    "entropy_profile",
    "distance_profile",
    "score_map",
    "patterns",
    "ablation",
)


def figures() -> dict[str, dict[str, Any]]:
    """Return figure -> title, caption, axes, scale of y, labels and kind of its series or panels.

    kind: None of a heatmap, whose third axis is "value_label".
    """

    def compute() -> dict[str, dict[str, Any]]:
        described = _maps() | _lines()
        captions = _captions()
        return {name: described[name] | {"caption": captions[name]} for name in ORDER}

    key = f"attention views pictures {arrays.settings_key()}"
    return dict(cached(key, arrays.files(), compute))


def of_file(drawn: dict[str, Any]) -> dict[str, Any]:
    """Return what `figures` has of a figure's data file."""
    names = ("title", "caption", "x_label", "y_label", "value_label", "y_scale")
    described = {name: drawn[name] for name in names if name in drawn}
    parts = drawn.get("series") or drawn["panels"]
    kinds = {part.get("kind") for part in parts}
    return described | {"labels": [part["label"] for part in parts], "kind": kinds.pop()}


def _maps() -> dict[str, dict[str, Any]]:
    heads = {"x_label": "head", "y_label": "layer", "kind": None}
    return {
        "sink_map": heads
        | {
            "title": "Share on the first token, every head",
            "value_label": "share on the first token",
            "labels": [TITLES[kind] for kind in report.KINDS],
        },
        "score_map": heads
        | {
            "title": "Induction and previous-token heads",
            "value_label": "mean share",
            "labels": list(SCORES.values()),
        },
        "patterns": {
            "title": "Four heads on a random sequence that occurs twice",
            "x_label": "token looked at",
            "y_label": "token that looks",
            "value_label": "attention",
            "labels": [f"{one['head']}: {one['title']}" for one in report.shown_heads()],
            "kind": None,
        },
    }


def _lines() -> dict[str, dict[str, Any]]:
    by_layer = {"x_label": "layer", "y_scale": "linear", "kind": "line"}
    return {
        "sink_profile": by_layer
        | {
            "title": "Sink by layer",
            "y_label": "share on the first token",
            "labels": [TITLES[kind] for kind in report.KINDS],
        },
        "norm_profile": by_layer
        | {
            "title": "Residual entering each layer",
            "y_label": "norm of the residual",
            "y_scale": "log",
            "labels": ["first token", "median token"],
        },
        "entropy_profile": by_layer
        | {
            "title": "Entropy of attention by layer",
            "y_label": "entropy / ln(tokens that can be seen)",
            "labels": ["trained", "random weights"],
        },
        "distance_profile": by_layer
        | {
            "title": "Attention distance by layer",
            "y_label": "mean distance (tokens)",
            "labels": ["all tokens", "without the first token"],
        },
        "ablation": {
            "title": "Loss on the second copy with heads switched off",
            "x_label": "switched off",
            "y_label": "loss (nats/token)",
            "y_scale": "linear",
            "labels": ["second copy"],
            "kind": "bar",
        },
    }


#### captions


def _captions() -> dict[str, str]:
    return {
        "sink_map": _of_sink_map(),
        "sink_profile": _of_sink_profile(),
        "norm_profile": _of_norms(),
        "entropy_profile": _of_entropy(),
        "distance_profile": _of_distance(),
        "score_map": _of_scores(),
        "patterns": _of_patterns(),
        "ablation": _of_ablation(),
    }


def _of_sink_map() -> str:
    means = []
    for kind, title in TITLES.items():
        means.append(f"{title} {words.percent(arrays.sink_map(kind).mean())}")
    return f"Mean share of the later tokens' attention on the first one: {'; '.join(means)}."


def _of_sink_profile() -> str:
    highest = []
    for kind, title in TITLES.items():
        by_layer = arrays.sink_map(kind).mean(1)
        layer = int(by_layer.argmax())
        highest.append(f"{title} {words.percent(by_layer[layer])} in layer {layer}")
    return f"Mean over heads of the share on the first token; at most: {'; '.join(highest)}."


def _of_norms() -> str:
    ratios = arrays.norm_ratios()
    rho = written(arrays.values()["sink_follows_norm"])
    return (
        f"Euclidean norm, mean over {config()['sequences']['count']} texts. The first token's is "
        f"up to {written(float(ratios.max()))} times the median (layer "
        f"{int(ratios.argmax())}); its rank correlation with the sink share over layers is {rho}. "
        "Logarithmic scale."
    )


def _of_entropy() -> str:
    by_layer = arrays.entropy_map("natural").mean(1)
    control = arrays.entropy_map("natural_random_weights").mean()
    return (
        "Entropy as a share of the largest possible one, on running text; the band is the range "
        f"over heads. Highest in layer {int(by_layer.argmax())} "
        f"({words.percent(by_layer.max())}), lowest in layer {int(by_layer.argmin())} "
        f"({words.percent(by_layer.min())}); with random weights {words.percent(control)} in the "
        "mean."
    )


def _of_distance() -> str:
    distance = arrays.distance_map("natural", with_sink=True).mean(1)
    without = arrays.distance_map("natural", with_sink=False).mean(1)
    layer = int((distance - without).argmax())
    return (
        f"Mean over heads and tokens of running text ({config()['sequences']['length']} tokens). "
        f"The first token makes the largest difference in layer {layer}: "
        f"{written(float(distance[layer]))} tokens with it, "
        f"{written(float(without[layer]))} without."
    )


def _of_scores() -> str:
    highest = []
    for (name, kind), title in SCORES.items():
        scores = arrays.score_map(kind, name)
        head = arrays.order(scores)[0]
        highest.append(f"{title} {words.percent(scores[head])} ({arrays.name_of(head)})")
    settings = config()["repeated"]
    return (
        f"Scores on {settings['count']} random sequences of {settings['period']} tokens that occur "
        f"twice. Highest: {'; '.join(highest)}."
    )


def _of_patterns() -> str:
    stated = []
    for one in report.shown_heads():
        stated.append(f"{one['head']} {one['title']} {words.percent(one['score'])}")
    return (
        f"One first token, {config()['repeated']['shown_period']} random tokens, and the same "
        f"again. The heads with the highest scores: {'; '.join(stated)}. Grey: a later token, "
        "which cannot be seen."
    )


def _of_ablation() -> str:
    settings = config()["ablation"]
    (_, means, _), *_ = report.lines()["ablation"]
    whole, induction, previous, *random = means
    ((layer, head),) = arrays.heads()["previous"]
    return (
        f"Mean over {settings['count']} sequences that the heads were not chosen by: "
        f"{written(whole)} nats/token with all heads, {written(induction)} without the "
        f"{settings['heads']} induction heads, {written(previous)} without "
        f"{arrays.name_of((layer, head))} alone, the strongest previous-token head before them, "
        f"{written(min(random))} to {written(max(random))} without "
        f"{settings['heads']} random others."
    )
