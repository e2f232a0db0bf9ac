"""The tables of the attention views."""

from __future__ import annotations

import numpy as np

from lab.attention_views.measured import NATURAL, REPEATED_UNTRAINED, ViewObservations
from lab.attention_views.numbers import (
    copy_losses,
    distance_map,
    duplicate_map,
    entropy_map,
    head_name,
    induction_map,
    norm_ratios,
    previous_map,
    ranked,
    sink_map,
)
from lab.contract import Table

LISTED = 8  # heads of the table of heads


def tables(observations: ViewObservations) -> list[Table]:
    """Return the layers, the heads, and what was switched off."""
    return [layer_table(observations), head_table(observations), ablation_table(observations)]


def layer_table(observations: ViewObservations) -> Table:
    """Return one row per layer: means over its heads, on running text."""
    natural = observations.statistics[NATURAL]
    columns = {
        "sink share": sink_map(natural).mean(1),
        "first residual / median": norm_ratios(observations),
        "entropy (share of the largest)": entropy_map(natural).mean(1),
        "distance (tokens)": distance_map(natural, with_sink=True).mean(1),
        "without the first token": distance_map(natural, with_sink=False).mean(1),
        "previous token": previous_map(observations, NATURAL).mean(1),
    }
    rows = []
    for layer in range(observations.shape[0]):
        rows.append((layer, *(float(values[layer]) for values in columns.values())))
    return Table("Layers on running text, means over heads", ("layer", *columns), tuple(rows))


def head_table(observations: ViewObservations) -> Table:
    """Return the heads of the highest induction scores, with their other scores."""
    induction = induction_map(observations)
    control = induction_map(observations, REPEATED_UNTRAINED)
    others = (
        duplicate_map(observations),
        previous_map(observations),
        sink_map(observations.statistics[NATURAL]),
    )
    rows: list[tuple[str | float, ...]] = []
    for layer, head in ranked(induction)[:LISTED]:
        scores = [float(scores[layer, head]) for scores in (induction, control, *others)]
        rows.append((head_name((layer, head)), *scores))
    columns = (
        "head",
        "induction",
        "the same head with random weights",
        "same token",
        "previous token",
        "sink share on running text",
    )
    return Table("Heads of the highest induction scores", columns, tuple(rows))


def ablation_table(observations: ViewObservations) -> Table:
    """Return the mean losses of both copies for everything that was switched off."""
    rows: list[tuple[str | float, ...]] = []
    for ablation in observations.plan.ablations:
        heads = " ".join(head_name(head) for head in observations.heads[ablation]) or "none"
        first, second = copy_losses(observations, ablation)
        rows.append((ablation, heads, float(np.mean(first)), float(np.mean(second))))
    columns = ("switched off", "heads", "first copy (nats/token)", "second copy (nats/token)")
    return Table("Causal test: heads switched off", columns, tuple(rows))
