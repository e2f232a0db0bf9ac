"""The data of an attention page: texts, their variants, and statistics of heads.

`lab/present/attention_page.py` describes how they fit together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lab.result import ContractError

FULL_TOKENS = 64  # tokens up to which a page has whole maps
MAX_TOKENS = 500
KEPT = 8  # sources of each token of a longer text
LEVELS = 255  # a share is stored as a whole number of 255ths
DECIMALS = 4  # of the statistics


@dataclass(frozen=True)
class Statistic:
    """A number of each head; `is_share`: from 0 to 1 and shown in per cent."""

    key: str
    label: str
    description: str
    is_share: bool = True


SINK = Statistic("sink", "sink share", "mean share of a token's attention on the first token")
ENTROPY = Statistic(
    "entropy", "entropy", "0 % looks at one token, 100 % at all tokens before it evenly"
)
DISTANCE = Statistic(
    "distance", "distance", "mean number of tokens that it looks back", is_share=False
)
PREVIOUS = Statistic("previous", "previous token", "mean share on the token just before")
INDUCTION = Statistic(
    "induction", "induction", "mean share on the token after the last occurrence of the same token"
)


@dataclass(frozen=True)
class Variant:
    """The attention of every head on one text, packed.

    shares: bytes, of a short text [layers, heads, T(T+1)/2] (the lower triangles row by row), of a
    long one [layers, heads, T, KEPT]; sources: 16-bit positions [layers, heads, T, KEPT], empty for
    a short text. statistics: key -> [layers, heads].
    """

    label: str
    layers: int
    heads: int
    tokens: int
    shares: bytes
    sources: bytes
    statistics: Mapping[str, Sequence[Sequence[float | None]]]

    @classmethod
    def of_layers(
        cls,
        label: str,
        layers: Iterable[np.ndarray],
        statistics: Mapping[str, Sequence[Sequence[float | None]]],
    ) -> Variant:
        """Pack attention patterns, one [heads, T, T] per layer.

        Raises:
            ContractError: no layer, patterns of unequal shape, T above MAX_TOKENS, a share outside
                of 0 to 1, or statistics that are not [layers, heads].
        """
        # 1. Pack layer by layer.
        shapes = set()
        shares: list[bytes] = []
        sources: list[bytes] = []
        for pattern in layers:
            shapes.add(_checked_shape(label, pattern))
            levels = np.floor(pattern * LEVELS + 0.5).astype(np.uint8)  # [H, T, T]
            if pattern.shape[-1] <= FULL_TOKENS:
                rows, columns = np.tril_indices(pattern.shape[-1])
                shares.append(levels[:, rows, columns].tobytes())  # [H, T(T+1)/2]
                continue
            strongest = np.argsort(-pattern, axis=-1, kind="stable")[..., :KEPT]  # [H, T, KEPT]
            shares.append(np.take_along_axis(levels, strongest, axis=-1).tobytes())
            sources.append(strongest.astype("<u2").tobytes())

        # 2. Every layer has the same heads and tokens; so have the statistics.
        if len(shapes) != 1:
            msg = (
                f"variant {label!r}: patterns of {sorted(shapes) or 'no layer'}; expected one shape"
            )
            raise ContractError(msg)
        heads, tokens = shapes.pop()
        checked = {}
        for key, values in statistics.items():
            checked[key] = _checked_statistic(label, key, values, shape=(len(shares), heads))
        return cls(
            label=label,
            layers=len(shares),
            heads=heads,
            tokens=tokens,
            shares=b"".join(shares),
            sources=b"".join(sources),
            statistics=checked,
        )


@dataclass(frozen=True)
class PageText:
    """One text: its tokens as texts, its variants, and a sentence about it."""

    label: str
    tokens: Sequence[str]
    variants: Sequence[Variant]
    note: str = ""


@dataclass(frozen=True)
class AttentionPage:
    """A page; `introduction` says in a sentence or two what it shows and of which model.

    first_head: the (layer, head) that is chosen when the page opens; first_variant: the variant.
    """

    title: str
    introduction: str
    statistics: Sequence[Statistic]
    texts: Sequence[PageText]
    first_head: tuple[int, int] = (0, 0)
    first_variant: int = 0


def _checked_shape(label: str, pattern: np.ndarray) -> tuple[int, int]:
    """Return (heads, T) of one layer's pattern [heads, T, T], or refuse it."""
    if pattern.ndim != 3 or pattern.shape[1] != pattern.shape[2] or 0 in pattern.shape:
        msg = f"variant {label!r}: a pattern of shape {pattern.shape}; expected [heads, T, T]"
        raise ContractError(msg)
    heads, tokens, _ = pattern.shape
    if tokens > MAX_TOKENS:
        msg = f"variant {label!r}: {tokens} tokens; expected at most {MAX_TOKENS}: shorten the text"
        raise ContractError(msg)
    if not (np.isfinite(pattern).all() and pattern.min() >= 0 and pattern.max() <= 1 + 1e-4):
        msg = f"variant {label!r}: shares from {pattern.min()} to {pattern.max()}; expected 0 to 1"
        raise ContractError(msg)
    return heads, tokens


def _checked_statistic(
    label: str, key: str, values: Sequence[Sequence[float | None]], *, shape: tuple[int, int]
) -> list[list[float | None]]:
    """Return a statistic as lists of rounded numbers, or refuse another shape than [L, H]."""
    rows: list[list[float | None]] = []
    for row in values:
        rows.append([None if value is None else round(float(value), DECIMALS) for value in row])
    lengths = {len(row) for row in rows}
    if len(rows) != shape[0] or lengths != {shape[1]}:
        msg = (
            f"variant {label!r}: statistic {key!r} has {len(rows)} rows of {sorted(lengths)}; "
            f"expected [layers, heads] = {list(shape)}"
        )
        raise ContractError(msg)
    return rows
