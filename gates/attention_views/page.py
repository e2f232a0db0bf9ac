"""attention.html read back: its data against the stored patterns."""

from __future__ import annotations

from typing import Any

from gates.attention_views import arrays
from gates.shared import attention_page, outputs, stored
from gates.shared.stored import cached

PAGE = "attention.html"
MAX_BYTES = 2_000_000
STATISTICS = {  # key -> label, description, is it a share
    "sink": ("sink share", "mean share of a token's attention on the first token", True),
    "entropy": ("entropy", "0 % looks at one token, 100 % at all tokens before it evenly", True),
    "distance": ("distance", "mean number of tokens that it looks back", False),
    "previous": ("previous token", "mean share on the token just before", True),
    "induction": (
        "induction",
        "mean share on the token after the last occurrence of the same token",
        True,
    ),
}
KEYS = tuple(STATISTICS)


def source() -> str:
    """Return the page's text."""
    return (outputs.out() / PAGE).read_text("utf-8")


def data() -> dict[str, Any]:
    """Return the data that the page carries."""
    return attention_page.data(PAGE)


def statistics() -> list[dict[str, Any]]:
    """Return what the page must call its statistics, in their order."""
    entries = []
    for key, (label, description, is_share) in STATISTICS.items():
        entry = {"key": key, "label": label, "description": description, "is_share": is_share}
        entries.append(entry)
    return entries


def differences() -> dict[str, dict[str, float]]:
    """Return text -> by how much the page's shares (in 255ths) and statistics differ at most.

    They are compared with what follows from the stored patterns; an array of another size differs
    by 255.
    """
    read = [PAGE, "artifacts/patterns.safetensors", "artifacts/texts.json"]

    def compute() -> dict[str, dict[str, float]]:
        shown = {text["label"]: text for text in data()["texts"]}
        compared = {}
        for text in arrays.texts():
            compared[text["key"]] = _difference(text, shown[text["label"]])
        return compared

    return dict(cached("attention page", read, compute))


def _difference(text: dict[str, Any], shown: dict[str, Any]) -> dict[str, float]:
    import numpy as np

    # 1. The shares.
    weights = stored.arrays("patterns")[text["key"]].astype("float64")  # [L, H, T, T]
    (variant,) = shown["variants"]
    difference = {"shares": attention_page.share_gap(variant, weights)}

    # 2. The statistics, rounded to four decimals.
    for key, expected in _statistics(weights, text["period"]).items():
        actual = variant["statistics"][key]
        if expected is None:
            is_empty = all(value is None for row in actual for value in row)
            difference[key] = 0.0 if is_empty else 255.0
        else:
            difference[key] = float(abs(np.array(actual, dtype="float64") - expected).max())
    return difference


def _statistics(weights: Any, period: int | None) -> dict[str, Any]:
    """Return the statistics [L, H] of patterns [L, H, T, T]; None where they are not defined."""
    import numpy as np

    total = weights.shape[-1]
    queries = np.arange(total)
    distance = (weights * (queries[:, None] - queries[None])).sum(-1)  # [L, H, T]
    statistics: dict[str, Any] = dict.fromkeys(KEYS)
    statistics["sink"] = weights[..., 1:, 0].mean(-1)
    statistics["distance"] = distance[..., 1:].mean(-1)
    statistics["previous"] = weights[..., queries[1:], queries[1:] - 1].mean(-1)
    if total > arrays.FIRST_SPREAD:
        nats = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)
        spread = queries[arrays.FIRST_SPREAD :]
        statistics["entropy"] = (nats[..., spread] / np.log(spread + 1)).mean(-1)
    if period is not None:
        copied = queries[period + 1 :]
        statistics["induction"] = weights[..., copied, copied - period + 1].mean(-1)
    return statistics
