"""The figures of the attention views. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lab import present
from lab.attention_views.measured import (
    INDUCTION,
    NATURAL,
    NATURAL_UNTRAINED,
    NOTHING,
    ONE_TOKEN,
    PREVIOUS,
    RANDOM_TOKENS,
    REPEATED_UNTRAINED,
    ShownText,
    ViewObservations,
)
from lab.attention_views.numbers import (
    copy_losses,
    distance_map,
    entropy_map,
    head_name,
    induction_map,
    norm_ratios,
    page_statistics,
    previous_map,
    ranked,
    sink_map,
)
from lab.contract import Heatmap, Measurement, Panel

TITLES = {
    NATURAL: "running text",
    RANDOM_TOKENS: "random tokens",
    ONE_TOKEN: "one token repeated",
    NATURAL_UNTRAINED: "random weights",
}


def figures(
    observations: ViewObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure | Heatmap]:
    """Return all figures of the report."""
    return [
        sink_figure(observations),
        profile_figure(observations),
        norm_figure(observations, measurements),
        entropy_figure(observations),
        distance_figure(observations),
        score_figure(observations),
        pattern_figure(observations),
        ablation_figure(observations),
    ]


def sink_figure(observations: ViewObservations) -> Heatmap:
    """Show every head's sink share on each set, the controls included."""
    panels = []
    means = []
    for kind, title in TITLES.items():
        shares = sink_map(observations.statistics[kind])
        panels.append(Panel(title, shares.tolist()))
        means.append(f"{title} {_percent(shares.mean())}")
    return Heatmap(
        name="sink_map",
        title="Share on the first token, every head",
        caption=f"Mean share of the later tokens' attention on the first one: {'; '.join(means)}.",
        x_label="head",
        y_label="layer",
        value_label="share on the first token",
        panels=tuple(panels),
        low=0,
        high=1,
    )


def profile_figure(observations: ViewObservations) -> present.Figure:
    """Show the sink share by layer, on text and on the controls."""
    series = []
    highest = []
    for kind, title in TITLES.items():
        shares = sink_map(observations.statistics[kind]).mean(1)  # [L]
        series.append(present.Series(title, range(len(shares)), shares))
        layer = int(shares.argmax())
        highest.append(f"{title} {_percent(shares[layer])} in layer {layer}")
    return present.Figure(
        name="sink_profile",
        title="Sink by layer",
        caption=f"Mean over heads of the share on the first token; at most: {'; '.join(highest)}.",
        x_label="layer",
        y_label="share on the first token",
        series=tuple(series),
    )


def norm_figure(
    observations: ViewObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show the first token's residual beside the median token's, by layer."""
    norms = observations.norms.astype("float64")  # [B, L, T]
    first = norms[..., 0].mean(0)
    median = np.median(norms, axis=-1).mean(0)
    layer = int(norm_ratios(observations).argmax())
    rho = present.number(measurements["sink_follows_norm"].value, 3)
    return present.Figure(
        name="norm_profile",
        title="Residual entering each layer",
        caption=(
            f"Euclidean norm, mean over {len(norms)} texts. The first token's is up to "
            f"{present.number(float(norm_ratios(observations)[layer]), 3)} times the median "
            f"(layer {layer}); its rank correlation with the sink share over layers is {rho}. "
            "Logarithmic scale."
        ),
        x_label="layer",
        y_label="norm of the residual",
        y_scale="log",
        series=(
            present.Series("first token", range(len(first)), first),
            present.Series("median token", range(len(median)), median, style="dashed"),
        ),
    )


def entropy_figure(observations: ViewObservations) -> present.Figure:
    """Show how evenly heads look, by layer: the mean and the range over heads."""
    entropy = entropy_map(observations.statistics[NATURAL])  # [L, H]
    control = entropy_map(observations.statistics[NATURAL_UNTRAINED]).mean(1)
    mean = entropy.mean(1)
    layers = range(len(mean))
    highest, lowest = int(mean.argmax()), int(mean.argmin())
    return present.Figure(
        name="entropy_profile",
        title="Entropy of attention by layer",
        caption=(
            "Entropy as a share of the largest possible one, on running text; the band is the "
            f"range over heads. Highest in layer {highest} ({_percent(mean[highest])}), lowest in "
            f"layer {lowest} ({_percent(mean[lowest])}); with random weights "
            f"{_percent(control.mean())} in the mean."
        ),
        x_label="layer",
        y_label="entropy / ln(tokens that can be seen)",
        series=(
            present.Series("trained", layers, mean, band=(entropy.min(1), entropy.max(1))),
            present.Series("random weights", layers, control, style="dashed"),
        ),
    )


def distance_figure(observations: ViewObservations) -> present.Figure:
    """Show how far heads look, by layer, with and without the first token."""
    natural = observations.statistics[NATURAL]
    distance = distance_map(natural, with_sink=True).mean(1)
    without = distance_map(natural, with_sink=False).mean(1)
    layers = range(len(distance))
    layer = int((distance - without).argmax())
    return present.Figure(
        name="distance_profile",
        title="Attention distance by layer",
        caption=(
            f"Mean over heads and tokens of running text ({observations.plan.length} tokens). The "
            f"first token makes the largest difference in layer {layer}: "
            f"{present.number(float(distance[layer]), 3)} tokens with it, "
            f"{present.number(float(without[layer]), 3)} without."
        ),
        x_label="layer",
        y_label="mean distance (tokens)",
        series=(
            present.Series("all tokens", layers, distance),
            present.Series("without the first token", layers, without, style="dashed"),
        ),
    )


def score_figure(observations: ViewObservations) -> Heatmap:
    """Show induction and previous-token scores of every head, and those of random weights."""
    scores = {
        "induction": induction_map(observations),
        "induction: random weights": induction_map(observations, REPEATED_UNTRAINED),
        "previous token": previous_map(observations),
        "previous token: random weights": previous_map(observations, REPEATED_UNTRAINED),
    }
    highest = []
    for title, values in scores.items():
        head = ranked(values)[0]
        highest.append(f"{title} {_percent(values[head])} ({head_name(head)})")
    return Heatmap(
        name="score_map",
        title="Induction and previous-token heads",
        caption=(
            f"Scores on {observations.plan.repeats} random sequences of "
            f"{observations.plan.period} tokens that occur twice. Highest: {'; '.join(highest)}."
        ),
        x_label="head",
        y_label="layer",
        value_label="mean share",
        panels=tuple(Panel(title, values.tolist()) for title, values in scores.items()),
        low=0,
        high=1,
    )


def pattern_figure(observations: ViewObservations) -> Heatmap:
    """Show the patterns of four heads on a random sequence that occurs twice."""
    (text,) = (text for text in observations.texts if text.key == "repeated")
    panels = []
    stated = []
    for title, (layer, head), score in shown_heads(text):
        weights = text.patterns[layer, head].tolist()
        rows = []
        for query, row in enumerate(weights):
            rows.append([*row[: query + 1], *[None] * (len(row) - query - 1)])
        panels.append(Panel(f"{head_name((layer, head))}: {title}", rows))
        stated.append(f"{head_name((layer, head))} {title} {_percent(score)}")
    return Heatmap(
        name="patterns",
        title="Four heads on a random sequence that occurs twice",
        caption=(
            f"One first token, {observations.plan.shown_period} random tokens, and the same again. "
            f"The heads with the highest scores: {'; '.join(stated)}. Grey: a later token, which "
            "cannot be seen."
        ),
        x_label="token looked at",
        y_label="token that looks",
        value_label="attention",
        panels=tuple(panels),
        low=0,
        high=1,
    )


def shown_heads(text: ShownText) -> list[tuple[str, tuple[int, int], float]]:
    """Return (title, head, score) of the heads with the highest score of each kind."""
    statistics = page_statistics(text.patterns, text.period)
    titles = {"induction": "induction", "previous": "previous token", "sink": "first token"}
    if statistics["entropy"] is not None:
        titles["entropy"] = "entropy"
    chosen = []
    for key, title in titles.items():
        values = np.asarray(statistics[key])
        head = ranked(values)[0]
        chosen.append((title, head, float(values[head])))
    return chosen


def ablation_figure(observations: ViewObservations) -> present.Figure:
    """Show the loss on the second copy, with nothing and with each set of heads switched off."""
    (previous_head,) = observations.heads[PREVIOUS]
    names = {
        NOTHING: "nothing",
        INDUCTION: f"{observations.plan.top} induction heads",
        PREVIOUS: f"{head_name(previous_head)} alone",
    }
    labels: list[str] = []
    means: list[float] = []
    for ablation in observations.plan.ablations:
        labels.append(names.get(ablation, ablation.replace("_", " ")))
        means.append(float(np.mean(copy_losses(observations, ablation)[1])))
    return present.Figure(
        name="ablation",
        title="Loss on the second copy with heads switched off",
        caption=(
            f"Mean over {len(observations.ids['ablation'])} sequences that the heads were not "
            f"chosen by: {present.number(means[0], 3)} nats/token with all heads, "
            f"{present.number(means[1], 3)} without the {observations.plan.top} induction heads, "
            f"{present.number(means[2], 3)} without {head_name(previous_head)} alone, the "
            "strongest previous-token head before them, "
            f"{present.number(min(means[3:]), 3)} to {present.number(max(means[3:]), 3)} without "
            f"{observations.plan.top} random others."
        ),
        x_label="switched off",
        y_label="loss (nats/token)",
        series=(present.Series("second copy", labels, means, kind="bar"),),
    )


def _percent(share: float | Sequence[float]) -> str:
    """Return a share as percent: `35.2 %`."""
    return f"{present.number(100 * float(np.asarray(share)), 3)} %"
