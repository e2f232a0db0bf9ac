"""The page on which a reader looks at the attention of every head, made of the shown texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.attention_views.measured import Head, ShownText
from lab.attention_views.numbers import page_statistics
from lab.present.attention_page import (
    DISTANCE,
    ENTROPY,
    INDUCTION,
    PREVIOUS,
    SINK,
    AttentionPage,
    PageText,
    Variant,
)

STATISTICS = (SINK, ENTROPY, DISTANCE, PREVIOUS, INDUCTION)


def page_of(
    texts: Sequence[ShownText], *, model: str, first_head: Head, facts: str
) -> AttentionPage:
    """Return the page of some texts.

    first_head: the one that is open at first; facts: the numbers that belong to the pictures.
    """
    layers, heads = texts[0].patterns.shape[:2]
    shown = [
        PageText(text.label, text.tokens, (variant("", text.patterns, text.period),), text.note)
        for text in texts
    ]
    return AttentionPage(
        title="Where the heads look",
        introduction=(
            f"All {layers * heads} attention heads of {model} on {len(texts)} texts. Choose a head "
            f"in the grid, then point at a token to see which earlier tokens it reads. {facts}"
        ),
        statistics=STATISTICS,
        texts=shown,
        first_head=first_head,
    )


def variant(label: str, patterns: np.ndarray, period: int | None = None) -> Variant:
    """Return one model's attention on a text, from its patterns [L, H, T, T]."""
    statistics: dict[str, list[list[float | None]]] = {one.key: [] for one in STATISTICS}
    for layer in patterns:  # one after the other: a long text's patterns are large
        for key, values in page_statistics(layer, period).items():
            undefined: list[float | None] = [None] * len(layer)
            statistics[key].append(undefined if values is None else values.tolist())
    return Variant.of_layers(label, patterns, statistics)
