"""One HTML page in which a reader points at a token and sees where each head looks.

The page works from a file without a network: style, program and data are in it, and its
content-security policy allows nothing else. It is made of data alone; torch is not needed.

Data model, from the outside in:

    AttentionPage   title, introduction, statistics, texts
      Statistic     key, label, description, is_share: what heads are coloured, sorted and filtered by
      PageText      label, tokens, variants, note: one text, tokenised once
        Variant     label ("base", "tuned", "step 4"), the attention of every head on this text, and
                    statistic key -> [layers, heads] (None where it is not defined)

    page = AttentionPage(title, introduction, (SINK, ENTROPY), (PageText("a text", tokens, variants),))
    html = render(page, max_bytes=COMMITTED_BYTES)

`Variant.of_layers(label, layers, statistics)` packs attention patterns, given layer by layer as
[heads, T, T] so that a long text never has all its patterns in memory. All variants of a page have
the same layers and heads. One variant needs no switch, two are switched between, of three or more
a slider chooses (adapter snapshots of a training, say).

Up to FULL_TOKENS tokens a page has every share; of longer texts it has the KEPT strongest sources of
each token, and texts above MAX_TOKENS are refused. Shares are stored in steps of 1 / LEVELS.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from lab.result import ContractError

FULL_TOKENS = 64  # tokens up to which a page has whole maps
MAX_TOKENS = 500
KEPT = 8  # sources of each token of a longer text
LEVELS = 255  # a share is stored as a whole number of 255ths
COMMITTED_BYTES = 2_000_000  # the largest page that goes into git
DECIMALS = 4  # of the statistics
NAMED_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Unicode categories that draw nothing


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
            msg = f"variant {label!r}: patterns of {sorted(shapes) or 'no layer'}; expected one shape"
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
    """A page; `introduction` says in a sentence or two what it shows and of which model."""

    title: str
    introduction: str
    statistics: Sequence[Statistic]
    texts: Sequence[PageText]


def render(page: AttentionPage, *, max_bytes: int | None = None) -> str:
    """Return the HTML text.

    Raises:
        ContractError: parts of the page do not fit together, or it has more than `max_bytes`.
    """
    # 1. The data, in which no "<" can end the element that contains it.
    data = json.dumps(_document(page), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")

    # 2. Style and program, allowed by their digests and nothing else.
    files = resources.files("lab.present")
    style = files.joinpath("attention_page.css").read_text("utf-8")
    program = files.joinpath("attention_page.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; style-src '{_source_hash(style)}'; "
        f"script-src '{_source_hash(program)}'; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy, quote=False),  # in a quoted attribute; it has no quote
        "title": html.escape(visible(page.title, keep_spaces=True)),
        "style": style,
        "data": data,
        "program": program,
    }

    # 3. The template; every part is put in once, so that a part cannot name another.
    text = files.joinpath("attention_page.html").read_text("utf-8")
    pieces = text.split("{{")
    rendered = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        rendered += parts[name] + rest
    size = len(rendered.encode())
    if max_bytes is not None and size > max_bytes:
        msg = (
            f"the page {page.title!r} has {size:,} bytes; expected at most {max_bytes:,}: give it "
            "fewer texts, variants or tokens, or write it to artifacts/"
        )
        raise ContractError(msg)
    return rendered


def visible(text: str, *, keep_spaces: bool = False) -> str:
    """Return a text in which blanks, line ends and characters that draw nothing can be seen.

    " a\\n" becomes "·a⏎"; other unseen characters become "⟨U+202E⟩".
    """
    characters = []
    for character in text:
        if keep_spaces and character == " ":
            characters.append(character)
        elif character in NAMED_MARKS:
            characters.append(NAMED_MARKS[character])
        elif unicodedata.category(character) in UNSEEN:
            characters.append(f"⟨U+{ord(character):04X}⟩")
        else:
            characters.append(character)
    return "".join(characters)


def _document(page: AttentionPage) -> dict[str, Any]:
    """Return the data of the page as its program reads it."""
    if not page.texts:
        msg = f"the page {page.title!r} has no text; expected at least one"
        raise ContractError(msg)
    first = _first_variant(page)
    return {
        "title": visible(page.title, keep_spaces=True),
        "introduction": visible(page.introduction, keep_spaces=True),
        "levels": LEVELS,
        "kept": KEPT,
        "layers": first.layers,
        "heads": first.heads,
        "statistics": [
            {
                "key": statistic.key,
                "label": statistic.label,
                "description": statistic.description,
                "is_share": statistic.is_share,
            }
            for statistic in page.statistics
        ],
        "texts": [_text_document(page, text, first) for text in page.texts],
    }


def _first_variant(page: AttentionPage) -> Variant:
    for text in page.texts:
        if not text.variants:
            msg = f"text {text.label!r} has no variant; expected at least one"
            raise ContractError(msg)
    return page.texts[0].variants[0]


def _text_document(page: AttentionPage, text: PageText, first: Variant) -> dict[str, Any]:
    expected = (first.layers, first.heads, len(text.tokens))
    keys = {statistic.key for statistic in page.statistics}
    variants = []
    for variant in text.variants:
        shape = (variant.layers, variant.heads, variant.tokens)
        if shape != expected:
            msg = (
                f"text {text.label!r}, variant {variant.label!r}: {shape} layers, heads and tokens; "
                f"expected {expected}"
            )
            raise ContractError(msg)
        if set(variant.statistics) != keys:
            msg = (
                f"text {text.label!r}, variant {variant.label!r}: statistics "
                f"{sorted(variant.statistics)}; expected {sorted(keys)}"
            )
            raise ContractError(msg)
        variants.append(
            {
                "label": visible(variant.label, keep_spaces=True),
                "shares": _packed(variant.shares),
                "sources": _packed(variant.sources),
                "statistics": variant.statistics,
            }
        )
    return {
        "label": visible(text.label, keep_spaces=True),
        "note": visible(text.note, keep_spaces=True),
        "tokens": [visible(token) for token in text.tokens],
        "is_full": len(text.tokens) <= FULL_TOKENS,
        "variants": variants,
    }


def _packed(data: bytes) -> str:
    """Return bytes compressed (zlib) in base64; nothing for nothing."""
    if not data:
        return ""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _source_hash(text: str) -> str:
    """Return the CSP source expression that allows exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _checked_shape(label: str, pattern: np.ndarray) -> tuple[int, int]:
    """Return (heads, T) of one layer's pattern [heads, T, T], or refuse it."""
    if pattern.ndim != 3 or pattern.shape[1] != pattern.shape[2] or 0 in pattern.shape:
        msg = f"variant {label!r}: a pattern of shape {pattern.shape}; expected [heads, T, T]"
        raise ContractError(msg)
    heads, tokens, _ = pattern.shape
    if tokens > MAX_TOKENS:
        msg = (
            f"variant {label!r}: {tokens} tokens; expected at most {MAX_TOKENS}: shorten the text"
        )
        raise ContractError(msg)
    if not (np.isfinite(pattern).all() and pattern.min() >= 0 and pattern.max() <= 1 + 1e-4):
        msg = (
            f"variant {label!r}: shares from {pattern.min()} to {pattern.max()}; expected 0 to 1"
        )
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
