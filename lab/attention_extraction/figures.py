"""The figures of the extraction study. Their captions are made from the numbers shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab import present
from lab.attention_extraction.measured import ExtractionObservations, ModelArrays
from lab.attention_extraction.numbers import by_layer, each_head, family_row, patterns
from lab.contract import Measurement
from lab.present import Heatmap, Panel, number

SHOWN = 24  # tokens of the pattern that is shown


def figures(
    observations: ExtractionObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure | Heatmap]:
    """Return all figures of the report."""
    return [
        parity_figure(observations),
        groups_figure(observations, measurements),
        orders_figure(observations.model, measurements),
    ]


def parity_figure(observations: ExtractionObservations) -> present.Figure:
    """Show the largest difference of every family in both precisions."""
    names = list(observations.families)
    rows = [family_row(family) for family in observations.families.values()]
    narrow, wide = ([max(row[column], 1e-18) for row in rows] for column in (0, 1))
    return present.Figure(
        name="parity",
        title="Recorded against eager attention, ten random models",
        caption=(
            f"Largest difference of a weight. In float32 at most {number(max(narrow), 2)}, in "
            f"float64 at most {number(max(wide), 2)}: what a wider number makes smaller is "
            "rounding. Logarithmic scale; 0 is drawn as 1e-18."
        ),
        x_label="family",
        y_label="largest difference",
        y_scale="log",
        series=(
            present.Series("float32", names, narrow, kind="bar"),
            present.Series("float64", names, wide, kind="bar"),
        ),
    )


def groups_figure(
    observations: ExtractionObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show by layer whether heads that share keys look alike."""
    lines = by_layer(observations)
    layers = list(range(len(lines["same group"])))
    return present.Figure(
        name="groups",
        title="Do heads that share a key head look alike?",
        caption=(
            "Mean cosine of two heads' patterns, sink column left out: "
            f"{number(measurements['gqa_same_group_cosine'].value, 3)} in a group, "
            f"{number(measurements['gqa_other_group_cosine'].value, 3)} across groups; in "
            f"{number(measurements['gqa_layers_with_gap'].value)} of {len(layers)} layers the "
            "first is larger."
        ),
        x_label="layer",
        y_label="cosine",
        series=tuple(
            present.Series(name, layers, values.tolist()) for name, values in lines.items()
        ),
    )


def orders_figure(model: ModelArrays, measurements: Mapping[str, Measurement]) -> Heatmap:
    """Show one head with its own key head, and with the one that the tiled order would give it."""
    # 1. The head for which the wrong order changes most.
    count = model.pattern.shape[1]
    tiled = patterns(model.rot_q, np.tile(model.rot_k, (1, 1, count // model.rot_k.shape[2], 1)))
    changes = np.abs(tiled - model.pattern).mean((2, 3))  # [L, H]
    layer, head = (int(i) for i in np.unravel_index(changes.argmax(), changes.shape))

    # 2. Its pattern three times.
    own = patterns(model.rot_q, each_head(model.rot_k, count))
    panels = (
        ("recorded", model.pattern),
        ("from q and k, repeat-interleave", own),
        ("from q and k, tiled", tiled),
    )
    return Heatmap(
        name="orders",
        title=f"Layer {layer}, head {head}: which keys does it read?",
        caption=(
            f"First {SHOWN} tokens of the text; the first tokens get most in every layer but the "
            f"first two. Repeat-interleave gives what was recorded, to "
            f"{number(measurements['interleaved_error'].value, 2)}; the tiled order is wrong by up "
            f"to {number(measurements['tiled_error'].value, 2)}."
        ),
        x_label="key (position)",
        y_label="query (position)",
        value_label="weight",
        panels=tuple(Panel(label, _shown(array[layer, head])) for label, array in panels),
        low=0.0,
        high=1.0,
    )


def _shown(pattern: np.ndarray) -> list[list[float | None]]:
    """Return the first rows of a pattern [T, T]; what a query may not see is None."""
    rows: list[list[float | None]] = []
    for query, weights in enumerate(pattern[:SHOWN, :SHOWN].tolist()):
        rows.append([*weights[: query + 1], *[None] * (len(weights) - query - 1)])
    return rows
