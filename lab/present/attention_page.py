"""One HTML page in which a reader points at a token and sees where each head looks.

The page works from a file without a network: style, program and data are in it, and nothing else is
allowed (`lab/present/page.py`). It is made of data alone; torch is not needed.

Data model, from the outside in:

    AttentionPage   title, introduction, statistics, texts, first_head, first_variant
      Statistic     key, label, description, is_share: heads are coloured and sorted by it
      PageText      label, tokens, variants, note: one text, tokenised once
        Variant     label ("base", "tuned", "step 4"), the attention of every head on this text, and
                    statistic key -> [layers, heads] (None where it is not defined)

    text = PageText("a text", tokens, variants)
    page = AttentionPage(title, introduction, (SINK, ENTROPY), (text,))
    html = render(page, max_bytes=COMMITTED_BYTES)

`Variant.of_layers(label, layers, statistics)` packs attention patterns, given layer by layer as
[heads, T, T] so that a long text never has all its patterns in memory. All variants of a page have
the same layers and heads. One variant needs no switch, two are switched between, of three or more
a slider chooses (adapter snapshots of a training, say).

Up to FULL_TOKENS tokens a page has every share; of longer texts it has the KEPT strongest sources
of each token, and texts above MAX_TOKENS are refused. Shares are stored in steps of 1 / LEVELS.
"""

from __future__ import annotations

import base64
import unicodedata
import zlib
from typing import Any

from lab.present import page as page_frame
from lab.present.attention_data import (
    DISTANCE,
    ENTROPY,
    FULL_TOKENS,
    INDUCTION,
    KEPT,
    LEVELS,
    MAX_TOKENS,
    PREVIOUS,
    SINK,
    AttentionPage,
    PageText,
    Statistic,
    Variant,
)
from lab.result import ContractError

__all__ = [
    "COMMITTED_BYTES",
    "DISTANCE",
    "ENTROPY",
    "FULL_TOKENS",
    "INDUCTION",
    "KEPT",
    "LEVELS",
    "MAX_TOKENS",
    "PREVIOUS",
    "SINK",
    "AttentionPage",
    "PageText",
    "Statistic",
    "Variant",
    "render",
    "visible",
]

COMMITTED_BYTES = 2_000_000  # the largest page that goes into git
NAMED_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # Unicode categories that draw nothing


def render(page: AttentionPage, *, max_bytes: int | None = None) -> str:
    """Return the HTML text.

    Raises:
        ContractError: parts of the page do not fit together, or it has more than `max_bytes`.
    """
    rendered = page_frame.render(
        title=visible(page.title, keep_spaces=True),
        style=page_frame.read_file("attention_page.css"),
        body=page_frame.fill(
            page_frame.read_file("attention_page.html"),
            {"data": page_frame.script_data(_document(page))},
        ),
        program=page_frame.read_file("attention_page.js"),
    )
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
        "first_head": [int(number) for number in page.first_head],
        "first_variant": page.first_variant,
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
                f"text {text.label!r}, variant {variant.label!r}: {shape} layers, heads and "
                f"tokens; expected {expected}"
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
