"""The figures of the representation analysis. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.contract import Heatmap, Measurement, Panel
from lab.representation_analysis.measured import (
    BASE,
    MEAN,
    RAW,
    WITHOUT_OUTLIERS,
    ZEROED,
    Observations,
)
from lab.representation_analysis.numbers import (
    MASSIVE,
    TIMES_MEDIAN,
    extremes,
    first_norms,
    lens_profile,
    loss_rises,
    mean_norms,
    perplexity_ratios,
    write_norms,
)

Measurements = Mapping[str, Measurement]


def figures(
    observations: Observations, measurements: Measurements
) -> list[present.Figure | Heatmap]:
    """Return all figures of the report."""
    return [
        norm_figure(observations),
        massive_figure(observations),
        intervention_figure(observations),
        position_figure(observations),
        length_figure(observations),
        cost_figure(observations, measurements),
        agreement_figure(observations),
        divergence_figure(observations),
        similarity_figure(observations, measurements),
    ]


def norm_figure(observations: Observations) -> present.Figure:
    """Show the norm of the stream at each depth, the first token apart."""
    first, others = first_norms(observations), mean_norms(observations)
    control = observations.random_stream.norms[:, :, 1:].mean((0, 2), dtype="float64")
    depths = range(len(first))
    depth = int((first / others)[1:].argmax()) + 1
    return present.Figure(
        name="stream_norms",
        title="Length of the residual stream",
        caption=(
            f"Mean over {observations.plan.count} texts. The tokens behind the first go from "
            f"{_short(others[1])} at depth 1 to {_short(others[-1])} at depth {depths[-1]}; the "
            f"first token is at most {_short(first[depth] / others[depth])} times as long (depth "
            f"{depth}). Depth d enters layer d. Logarithmic scale."
        ),
        x_label="depth (layers passed)",
        y_label="norm",
        y_scale="log",
        series=(
            present.Series("first token", depths, first.tolist()),
            present.Series("other tokens", depths, others.tolist()),
            present.Series(
                "other tokens, random weights", depths, control.tolist(), style="dashed"
            ),
        ),
    )


def massive_figure(observations: Observations) -> present.Figure:
    """Show the largest number of each layer's output beside the two limits of the criterion."""
    top, median = extremes(observations.stream)
    control, control_median = extremes(observations.random_stream)
    limit = np.maximum(MASSIVE, TIMES_MEDIAN * median)
    layers = range(len(top))
    largest = int(top.argmax())
    above = int((top > limit).sum())
    return present.Figure(
        name="massive_activations",
        title="The largest number of each layer's output",
        caption=(
            f"Mean over {observations.plan.count} texts of the largest |x|; at most "
            f"{_short(top[largest])}, in layer {largest}. {present.count(above, 'layer')} of "
            f"{len(top)} above the limit, the larger of 100 and 1000 times the median; with random "
            f"weights at most {_short(control.max())}, which is at most "
            f"{_short((control / control_median).max())} times the median. Logarithmic scale."
        ),
        x_label="layer",
        y_label="largest |x|",
        y_scale="log",
        series=(
            present.Series("trained", layers, top.tolist()),
            present.Series("limit of massive activations", layers, limit.tolist(), style="dotted"),
            present.Series("random weights", layers, control.tolist(), style="dashed"),
        ),
    )


def intervention_figure(observations: Observations) -> present.Figure:
    """Show the perplexity under every change of one number."""
    target = observations.interventions.target
    ratios = perplexity_ratios(observations)
    base = float(np.exp(observations.interventions.losses[BASE].mean(dtype="float64")))
    labels = ["nothing", f"{target.dimension} to 0", f"{target.dimension} to mean"]
    labels += [f"{dimension} to 0" for dimension in target.others]
    names = (BASE, ZEROED, MEAN, *observations.plan.others)
    others = [ratios[name] for name in observations.plan.others]
    return present.Figure(
        name="causal_test",
        title=f"One number of the first token changed in the output of layer {target.layer}",
        caption=(
            f"Perplexity of {observations.plan.test_count} texts that the dimension was not chosen "
            f"by: {_short(base)} as it is; times {_short(ratios[ZEROED])} with dimension "
            f"{target.dimension} set to 0, times {present.number(ratios[MEAN], 4)} with its mean "
            f"over other texts. Controls: other dimensions set to 0, times "
            f"{present.number(min(others), 4)} to {present.number(max(others), 4)}. Logarithmic "
            "scale."
        ),
        x_label="dimension set",
        y_label="perplexity",
        y_scale="log",
        series=(
            present.Series(
                "perplexity", labels, [base * ratios[name] for name in names], kind="bar"
            ),
        ),
    )


def position_figure(observations: Observations) -> present.Figure:
    """Show the largest norm over texts at each position, in the outputs of three layers."""
    norms = observations.stream.norms  # [B, L + 1, T]
    positions = range(norms.shape[2])
    last = observations.layers - 1
    series, stated = [], []
    for layer in dict.fromkeys((*observations.plan.pair, last)):
        highest = norms[:, layer + 1].max(0)
        median = float(np.median(norms[:, layer + 1]))
        series.append(present.Series(f"layer {layer}", positions, highest))
        count = int((highest > 10 * median).sum())
        stated.append(f"layer {layer} {present.count(count, 'position')}")
    return present.Figure(
        name="positions",
        title="The longest token at each position",
        caption=(
            f"Largest norm of {observations.plan.count} texts in the output of a layer. Positions "
            f"with a token above 10 times the layer's median: {'; '.join(stated)}. Logarithmic "
            "scale."
        ),
        x_label="position in the text",
        y_label="largest norm",
        y_scale="log",
        series=tuple(series),
    )


def length_figure(observations: Observations) -> present.Figure:
    """Show how long the writes of attention and MLP are, by layer."""
    attention, mlp = write_norms(observations)
    layers = range(len(mlp))
    more = int((mlp > attention).sum())
    return present.Figure(
        name="write_lengths",
        title="Length of what a layer adds",
        caption=(
            f"Mean norm without the first token. The MLP's is longer in {more} of {len(mlp)} "
            f"layers; the longest are the MLP's in layer {int(mlp.argmax())} "
            f"({_short(mlp.max())}) and attention's in layer {int(attention.argmax())} "
            f"({_short(attention.max())}). What they are worth: the next figure."
        ),
        x_label="layer",
        y_label="norm",
        series=(
            present.Series("attention", layers, attention),
            present.Series("MLP", layers, mlp),
        ),
    )


def cost_figure(observations: Observations, measurements: Measurements) -> present.Figure:
    """Show what it costs to replace a write by its mean, by layer."""
    attention, mlp = loss_rises(observations)
    layers = range(len(mlp))
    rho = present.number(measurements["norm_ablation_correlation"].value, 3)
    return present.Figure(
        name="write_costs",
        title="Loss when a write is replaced by its mean",
        caption=(
            f"Rise over {observations.plan.ablated} other texts of {observations.plan.test_length} "
            f"tokens, all but the first replaced. Highest: MLP {_short(mlp.max())} nats in layer "
            f"{int(mlp.argmax())}, attention {_short(attention.max())} in layer "
            f"{int(attention.argmax())}. Rank correlation with the length, over all writes: {rho}."
        ),
        x_label="layer",
        y_label="rise of the loss (nats/token)",
        series=(
            present.Series("attention", layers, attention),
            present.Series("MLP", layers, mlp),
        ),
    )


def agreement_figure(observations: Observations) -> present.Figure:
    """Show how often the lens has the model's first choice, by depth."""
    agreement, _ = lens_profile(observations)
    half = int((agreement >= 0.5).argmax())
    return present.Figure(
        name="lens_agreement",
        title="Logit lens: the model's first choice",
        caption=(
            f"Share of {observations.lens.agrees[:, 0].size} tokens whose first choice by the lens "
            f"is the model's. {_percent(agreement[1])} at depth 1; half are reached at depth "
            f"{half}, all at depth {len(agreement) - 1}, which is the model."
        ),
        x_label="depth (layers passed)",
        y_label="share of tokens",
        series=(present.Series("agreement", range(len(agreement)), agreement.tolist()),),
    )


def divergence_figure(observations: Observations) -> present.Figure:
    """Show the KL of the lens by depth, the embedding left out."""
    _, kl = lens_profile(observations)
    depths = range(1, len(kl))
    highest = int(kl[1:].argmax()) + 1
    rises = int((np.diff(kl) > 0).sum())
    return present.Figure(
        name="lens_kl",
        title="Logit lens: distance from the model",
        caption=(
            f"KL(model || lens). {_short(kl[1])} nats at depth 1, highest {_short(kl[highest])} at "
            f"depth {highest}; it rises in {rises} of {len(kl) - 1} steps. Not shown: "
            f"{_short(kl[0])} of the embedding."
        ),
        x_label="depth (layers passed)",
        y_label="KL (nats)",
        series=(present.Series("KL", depths, kl[1:].tolist()),),
    )


def similarity_figure(observations: Observations, measurements: Measurements) -> Heatmap:
    """Show CKA of all pairs of depths, with all tokens and without outliers."""
    matrices = observations.similarity.matrices
    titles = {RAW: "all tokens", WITHOUT_OUTLIERS: "without tokens of huge norm"}
    first, second = observations.plan.pair
    stated = {
        name: present.number(measurements[name].value, 3)
        for name in ("cka_raw", "cka_without_first", "cka_without_outliers")
    }
    return Heatmap(
        name="cka",
        title="Similarity of layers (linear CKA)",
        caption=(
            f"Outputs of layers {first} and {second}: {stated['cka_raw']} with all tokens, "
            f"{stated['cka_without_first']} without the first ones, "
            f"{stated['cka_without_outliers']} without the "
            f"{measurements['outlier_tokens'].value} tokens whose norm is above 10 times the "
            f"median in some layer. Mean of all pairs: {_short(matrices[RAW].mean())} and "
            f"{_short(matrices[WITHOUT_OUTLIERS].mean())}."
        ),
        x_label="depth",
        y_label="depth",
        value_label="CKA",
        panels=tuple(Panel(titles[name], matrices[name].tolist()) for name in titles),
        low=0,
        high=1,
    )


def _short(value: float | np.floating) -> str:
    return present.number(float(value), 3)


def _percent(share: float | np.floating) -> str:
    return f"{_short(100 * float(share))} %"
