"""FEAT-015's figures, made again from what it stored: values, titles, captions, axes, labels."""

from __future__ import annotations

from typing import Any

from gates.representation_analysis import arrays, words
from gates.shared.documents import written
from gates.shared.stored import cached, config

ORDER = (  # of the figures in the report
    "stream_norms",
    "massive_activations",
    "causal_test",
    "positions",
    "write_lengths",
    "write_costs",
    "lens_agreement",
    "lens_kl",
    "cka",
)
AXES = ("x_label", "y_label", "value_label", "x_scale", "y_scale", "low", "high")
SERIES = ("label", "kind", "style", "group")


def figures() -> dict[str, dict[str, Any]]:
    """Return figure -> what `described` has of its data, its caption, and its `values`."""

    def compute() -> dict[str, dict[str, Any]]:
        data = arrays.data()
        made = (
            _of_norms(data),
            _of_massive_activations(data),
            _of_interventions(data),
            _of_positions(data),
            _of_lengths(data),
            _of_costs(data),
            _of_agreement(data),
            _of_divergence(data),
            _of_similarity(data),
        )
        return dict(zip(ORDER, made, strict=True))

    key = f"representation analysis pictures {arrays.settings_key()}"
    return dict(cached(key, arrays.files(), compute))


def described(drawn: dict[str, Any]) -> dict[str, Any]:
    """Return title, axes, and labels and styles of the parts of a figure's data file."""
    parts = drawn.get("series") or drawn["panels"]
    names = {name: drawn[name] for name in ("title", *AXES) if name in drawn}
    labels = [[part.get(name) for name in SERIES] for part in parts]
    ends = [drawn.get(name) for name in ("x_names", "y_names") if name in drawn]
    return names | {"parts": labels, "names": ends}


def values_of(drawn: dict[str, Any]) -> list[Any]:
    """Return [x, y, band] of every series, or the cells of every panel."""
    if "panels" in drawn:
        return [panel["values"] for panel in drawn["panels"]]
    return [[one["x"], one["y"], one["band"]] for one in drawn["series"]]


def _chart(
    title: str,
    caption: str,
    axes: tuple[str, str, str],
    series: dict[str, Any],
    *,
    styles: dict[str, str] | None = None,
    first: int = 0,
) -> dict[str, Any]:
    """Return a chart of lines: axes are the labels of x and y and y's scale; x counts from `first`.

    styles: label -> style, where it is not solid.
    """
    x_label, y_label, y_scale = axes
    parts, values = [], []
    for label, column in series.items():
        parts.append([label, "line", (styles or {}).get(label, "solid"), None])
        y = [float(value) for value in column]
        values.append([list(range(first, first + len(y))), y, None])
    return {
        "title": title,
        "x_label": x_label,
        "y_label": y_label,
        "x_scale": "linear",
        "y_scale": y_scale,
        "parts": parts,
        "names": [],
        "caption": caption,
        "values": values,
    }


def _of_norms(data: arrays.Data) -> dict[str, Any]:
    first, others = arrays.norms_of_first(data), arrays.norms_behind(data)
    ratios = (first / others).tolist()
    highest = max(ratios[1:])
    last = len(ratios) - 1
    caption = (
        f"Mean over {config()['sequences']['count']} texts. The tokens behind the first go from "
        f"{_short(others[1])} at depth 1 to {_short(others[last])} at depth {last}; the first "
        f"token is at most {_short(highest)} times as long (depth {ratios.index(highest, 1)}). "
        "Depth d enters layer d. Logarithmic scale."
    )
    control = arrays.norms_behind(data, "stream_random_weights")
    return _chart(
        "Length of the residual stream",
        caption,
        ("depth (layers passed)", "norm", "log"),
        {"first token": first, "other tokens": others, "other tokens, random weights": control},
        styles={"other tokens, random weights": "dashed"},
    )


def _of_massive_activations(data: arrays.Data) -> dict[str, Any]:
    top, median = arrays.largest_and_median(data)
    control, middle = arrays.largest_and_median(data, "stream_random_weights")
    limit = [max(arrays.ABSOLUTE, arrays.RELATIVE * value) for value in median]
    above = sum(largest > low for largest, low in zip(top, limit, strict=True))
    caption = (
        f"Mean over {config()['sequences']['count']} texts of the largest |x|; at most "
        f"{_short(max(top))}, in layer {int(top.argmax())}. {words.counted(above, 'layer')} of "
        f"{len(limit)} above the limit, the larger of 100 and 1000 times the median; with random "
        f"weights at most {_short(max(control))}, which is at most "
        f"{_short(max(control / middle))} times the median. Logarithmic scale."
    )
    return _chart(
        "The largest number of each layer's output",
        caption,
        ("layer", "largest |x|", "log"),
        {"trained": top, "limit of massive activations": limit, "random weights": control},
        styles={"limit of massive activations": "dotted", "random weights": "dashed"},
    )


def _of_interventions(data: arrays.Data) -> dict[str, Any]:
    target = arrays.target()
    perplexity = arrays.perplexities(data)
    ratios = {name: value / perplexity["base"] for name, value in perplexity.items()}
    controls = [ratios[name] for name in arrays.others()]
    dimension = target["dimension"]
    caption = (
        f"Perplexity of {config()['test']['count']} texts that the dimension was not chosen by: "
        f"{_short(perplexity['base'])} as it is; times {_short(ratios['zeroed'])} with dimension "
        f"{dimension} set to 0, times {written(ratios['mean'], 4)} with its mean over other "
        f"texts. Controls: other dimensions set to 0, times {written(min(controls), 4)} to "
        f"{written(max(controls), 4)}. Logarithmic scale."
    )
    chart = _chart(
        f"One number of the first token changed in the output of layer {target['layer']}",
        caption,
        ("dimension set", "perplexity", "log"),
        {"perplexity": perplexity.values()},
    )
    labels = ["nothing", f"{dimension} to 0", f"{dimension} to mean"]
    chart["values"][0][0] = labels + [f"{other} to 0" for other in target["others"]]
    chart["parts"][0][1] = "bar"
    return chart


def _of_positions(data: arrays.Data) -> dict[str, Any]:
    import numpy as np

    norms = data["stream.norms"]
    series, stated = {}, []
    layers = [*config()["cka"]["layers"], norms.shape[1] - 2]
    for layer in sorted(set(layers), key=layers.index):
        output = norms[:, layer + 1]
        highest = output.max(axis=0)
        series[f"layer {layer}"] = highest
        count = int((highest > arrays.HUGE * np.median(output)).sum())
        stated.append(f"layer {layer} {words.counted(count, 'position')}")
    caption = (
        f"Largest norm of {config()['sequences']['count']} texts in the output of a layer. "
        f"Positions with a token above 10 times the layer's median: {'; '.join(stated)}. "
        "Logarithmic scale."
    )
    axes = ("position in the text", "largest norm", "log")
    return _chart("The longest token at each position", caption, axes, series)


def _of_lengths(data: arrays.Data) -> dict[str, Any]:
    attention, mlp = arrays.lengths(data)
    caption = (
        "Mean norm without the first token. The MLP's is longer in "
        f"{arrays.values()['mlp_larger_layers']} of {len(mlp)} layers; the longest are the MLP's "
        f"in layer {int(mlp.argmax())} ({_short(max(mlp))}) and attention's in layer "
        f"{int(attention.argmax())} ({_short(max(attention))}). What they are worth: the next "
        "figure."
    )
    return _chart(
        "Length of what a layer adds",
        caption,
        ("layer", "norm", "linear"),
        {"attention": attention, "MLP": mlp},
    )


def _of_costs(data: arrays.Data) -> dict[str, Any]:
    attention, mlp = arrays.rises(data)
    test = config()["test"]
    rho = written(arrays.values()["norm_ablation_correlation"])
    caption = (
        f"Rise over {test['ablated']} other texts of {test['length']} tokens, all but the first "
        f"replaced. Highest: MLP {_short(max(mlp))} nats in layer {int(mlp.argmax())}, attention "
        f"{_short(max(attention))} in layer {int(attention.argmax())}. Rank correlation with the "
        f"length, over all writes: {rho}."
    )
    return _chart(
        "Loss when a write is replaced by its mean",
        caption,
        ("layer", "rise of the loss (nats/token)", "linear"),
        {"attention": attention, "MLP": mlp},
    )


def _of_agreement(data: arrays.Data) -> dict[str, Any]:
    agreement = arrays.lens_by_depth(data)[0].tolist()
    half = next(depth for depth, share in enumerate(agreement) if share >= 0.5)
    batch, _, places = data["lens.agrees"].shape
    caption = (
        f"Share of {batch * places} tokens whose first choice by the lens is the model's. "
        f"{words.percent(agreement[1])} at depth 1; half are reached at depth {half}, all at depth "
        f"{len(agreement) - 1}, which is the model."
    )
    axes = ("depth (layers passed)", "share of tokens", "linear")
    title = "Logit lens: the model's first choice"
    return _chart(title, caption, axes, {"agreement": agreement})


def _of_divergence(data: arrays.Data) -> dict[str, Any]:
    kl = arrays.lens_by_depth(data)[1].tolist()
    values = arrays.values()
    highest = values["lens_kl_highest_depth"]
    caption = (
        f"KL(model || lens). {_short(kl[1])} nats at depth 1, highest {_short(kl[highest])} at "
        f"depth {highest}; it rises in {values['lens_kl_rises']} of {len(kl) - 1} steps. Not "
        f"shown: {_short(kl[0])} of the embedding."
    )
    axes = ("depth (layers passed)", "KL (nats)", "linear")
    return _chart("Logit lens: distance from the model", caption, axes, {"KL": kl[1:]}, first=1)


def _of_similarity(data: arrays.Data) -> dict[str, Any]:
    values = arrays.values()
    first, second = config()["cka"]["layers"]
    matrices = [data[f"similarity.matrix.{name}"] for name in ("raw", "without_outliers")]
    means = [_short(matrix.mean()) for matrix in matrices]
    caption = (
        f"Outputs of layers {first} and {second}: {written(values['cka_raw'])} with all "
        f"tokens, {written(values['cka_without_first'])} without the first ones, "
        f"{written(values['cka_without_outliers'])} without the {values['outlier_tokens']} "
        "tokens whose norm is above 10 times the median in some layer. Mean of all pairs: "
        f"{means[0]} and {means[1]}."
    )
    labels = ("all tokens", "without tokens of huge norm")
    return {
        "title": "Similarity of layers (linear CKA)",
        "x_label": "depth",
        "y_label": "depth",
        "value_label": "CKA",
        "low": 0,
        "high": 1,
        "parts": [[label, None, None, None] for label in labels],
        "names": [[], []],
        "caption": caption,
        "values": [matrix.tolist() for matrix in matrices],
    }


def _short(value: Any) -> str:
    return written(float(value))
