"""The attention page: what is packed can be unpacked, and what does not fit is refused."""

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from gates.shared import attention_page
from lab.contract import ContractError
from lab.present.attention_page import (
    FULL_TOKENS,
    KEPT,
    MAX_TOKENS,
    SINK,
    AttentionPage,
    PageText,
    Variant,
    render,
    visible,
)
from tests.lab.present.pages import data_of, patterns, statistic, words


def variant_of(tokens: int, label: str = "base", *, seed: int = 0) -> Variant:
    return Variant.of_layers(label, patterns(tokens, seed=seed), {"sink": statistic()})


def page_of(*texts: PageText) -> AttentionPage:
    return AttentionPage("A page", "What it shows.", (SINK,), texts)


SHORT = page_of(PageText("short", words(9), (variant_of(9),)))


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=kind)


def test_gates_know_the_frame_of_the_page_and_see_another_program() -> None:
    html = render(SHORT)
    # Whoever changes markup, style or program puts the new digest into the gates.
    assert attention_page.frame_digest(html) == attention_page.FRAME_SHA256
    other = replace(SHORT, title="<Another>", introduction="</script>")
    assert attention_page.frame_digest(render(other)) == attention_page.FRAME_SHA256
    for part in ("sharesOf(kept.variant, now.layer", "accent-color", "default-src 'none'", "<h1"):
        assert part in html
        changed = html.replace(part, f"{part} ", 1)
        assert attention_page.frame_digest(changed) != attention_page.FRAME_SHA256, part


def test_every_share_of_a_short_text_is_in_the_page() -> None:
    tokens = FULL_TOKENS
    page = page_of(PageText("t", words(tokens), (variant_of(tokens),)))
    stored = unpacked(data_of(render(page))["texts"][0]["variants"][0]["shares"], "u1")
    rows, columns = np.tril_indices(tokens)
    expected = np.stack(patterns(tokens))[:, :, rows, columns]  # [L, H, T(T+1)/2]
    assert stored.size == expected.size
    assert abs(stored.reshape(expected.shape) / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_the_strongest_sources_of_a_long_text_are_in_the_page() -> None:
    tokens = FULL_TOKENS + 1
    page = page_of(PageText("t", words(tokens), (variant_of(tokens),)))
    (text,) = data_of(render(page))["texts"]
    assert not text["is_full"]
    shares = unpacked(text["variants"][0]["shares"], "u1").reshape(2, 3, tokens, KEPT)
    sources = unpacked(text["variants"][0]["sources"], "<u2").reshape(2, 3, tokens, KEPT)
    row = patterns(tokens)[1][2, 50]
    assert sources[1, 2, 50].tolist() == np.argsort(-row)[:KEPT].tolist()
    assert abs(shares[1, 2, 50] / 255 - np.sort(row)[::-1][:KEPT]).max() <= 0.5 / 255 + 1e-6


def test_the_policy_allows_this_style_and_this_program_only() -> None:
    html = render(SHORT)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    sources = dict(part.split(" ", 1) for part in policy.split("; "))
    assert sources["default-src"] == "'none'"
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    program = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(program) == 1
    for name, text in (("style-src", style), ("script-src", program[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert sources[name] == f"'sha256-{digest}'"
    assert "http" not in html.replace('http-equiv="Content', "")


def test_hostile_texts_cannot_end_their_element() -> None:
    hostile = "</script><script>alert(1)</script><!--{{data}}"
    tokens = [hostile, "\x00\x1b", "\u202e", "\ud800", "\u2028"]
    text = PageText(hostile, tokens, (variant_of(5, hostile),), note=hostile)
    page = replace(page_of(text), title=hostile, introduction=hostile)
    html = render(page)
    assert html.count("<script") == render(SHORT).count("<script")
    stored = data_of(html)["texts"][0]["tokens"]
    assert stored == [
        hostile.replace(" ", "·"),
        "⟨U+0000⟩⟨U+001B⟩",
        "⟨U+202E⟩",
        "⟨U+D800⟩",
        "⟨U+2028⟩",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [(" a\n", "·a⏎"), ("\t", "⇥"), ("é漢", "é漢"), ("\u200b", "⟨U+200B⟩"), ("a b", "a·b")],
)
def test_what_draws_nothing_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_page_above_the_limit_is_refused() -> None:
    size = len(render(SHORT).encode())
    assert render(SHORT, max_bytes=size)
    with pytest.raises(ContractError, match=f"has {size:,} bytes; expected at most {size - 1:,}"):
        render(SHORT, max_bytes=size - 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variant.of_layers("v", [], {}), "no layer"),
        (lambda: Variant.of_layers("v", [np.ones((2, 3))], {}), r"expected \[heads, T, T\]"),
        (
            lambda: Variant.of_layers("v", [np.eye(MAX_TOKENS + 1)[None]], {}),
            "501 tokens; expected at most 500: shorten",
        ),
        (lambda: Variant.of_layers("v", [2 * np.eye(3)[None]], {}), "expected 0 to 1"),
        (lambda: Variant.of_layers("v", [np.eye(3)[None] * np.nan], {}), "expected 0 to 1"),
        (
            lambda: Variant.of_layers("v", [np.eye(3)[None], np.eye(4)[None]], {}),
            "expected one shape",
        ),
        (
            lambda: Variant.of_layers("v", [np.eye(3)[None]], {"sink": [[1.0, 2.0]]}),
            r"expected \[layers, heads\] = \[1, 1\]",
        ),
        (lambda: render(page_of()), "has no text"),
        (lambda: render(page_of(PageText("t", words(3), ()))), "has no variant"),
        (lambda: render(page_of(PageText("t", words(4), (variant_of(3),)))), "expected"),
        (
            lambda: render(replace(SHORT, statistics=())),
            r"statistics \['sink'\]; expected \[\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make()


def test_the_same_data_gives_the_same_page_and_other_data_another() -> None:
    assert render(SHORT) == render(SHORT)
    other = page_of(PageText("short", words(9), (variant_of(9, seed=1),)))
    assert render(other) != render(SHORT)
    assert json.dumps(data_of(render(other))) != json.dumps(data_of(render(SHORT)))
