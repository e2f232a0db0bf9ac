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
    """Show the largest difference of every family in float32."""
    rows = [family_row(family) for family in observations.families.values()]
    narrow = [row[0] for row in rows]
    wide = max(row[1] for row in rows)
    return present.Figure(
        name="parity",
        title="Recorded against eager attention, ten random models",
        caption=(
            f"Largest difference of a weight in float32, at most {number(max(narrow), 3)}. In "
            f"float64 it is at most {number(wide, 3)} in every family: what a wider number makes "
            "vanish is rounding. A family with 0 has eager attention of its own."
        ),
        x_label="family",
        y_label="largest difference",
        series=(present.Series("float32", list(observations.families), narrow, kind="bar"),),
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
    # 1. The best previous-token head whose key head the tiled order exchanges.
    count = model.pattern.shape[1]
    tiled_keys = np.tile(model.rot_k, (1, 1, count // model.rot_k.shape[2], 1))
    layer, head = shown_head(model)

    # 2. Its pattern three times.
    own = patterns(model.rot_q, each_head(model.rot_k, count))
    tiled = patterns(model.rot_q, tiled_keys)
    panels = (
        ("recorded", model.pattern),
        ("from q and k, repeat-interleave", own),
        ("from q and k, tiled", tiled),
    )
    return Heatmap(
        name="orders",
        title=f"Layer {layer}, head {head}: which keys does it read?",
        caption=(
            f"A head that looks one token back, on the first {SHOWN} tokens of the text. "
            f"Repeat-interleave gives every head what was recorded, to "
            f"{number(measurements['interleaved_error'].value, 3)}; the tiled order is wrong by up "
            f"to {number(measurements['tiled_error'].value, 3)}: it reads another head's keys."
        ),
        x_label="key (position)",
        y_label="query (position)",
        value_label="weight",
        panels=tuple(Panel(label, _shown(array[layer, head])) for label, array in panels),
        low=0.0,
        high=1.0,
    )


def shown_head(model: ModelArrays) -> tuple[int, int]:
    """Return the head of the figure: (layer, head).

    Of the heads whose key head is another one in the tiled order, the one that gives most to the
    previous token.
    """
    shares = np.diagonal(model.pattern, -1, 2, 3).mean(-1).copy()  # [L, H]
    heads = np.arange(shares.shape[1])
    shared = model.rot_k.shape[2]
    same_key = heads // (len(heads) // shared) == heads % shared
    shares[:, same_key] = -1
    layer, head = np.unravel_index(shares.argmax(), shares.shape)
    return int(layer), int(head)


def _shown(pattern: np.ndarray) -> list[list[float | None]]:
    """Return the first rows of a pattern [T, T]; what a query may not see is None."""
    rows: list[list[float | None]] = []
    for query, weights in enumerate(pattern[:SHOWN, :SHOWN].tolist()):
        rows.append([*weights[: query + 1], *[None] * (len(weights) - query - 1)])
    return rows
