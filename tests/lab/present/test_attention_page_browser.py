"""The attention page in a browser: pointer, finger and keys show the numbers of the data."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from lab.present.attention_page import (
    SINK,
    AttentionPage,
    PageText,
    Statistic,
    Variant,
    render,
)
from tests.browser import Visit, serious_violations
from tests.lab.present.pages import patterns, statistic, words

HOSTILE = ["</script>", "<b>x</b>", "\n", "\u202e", "&amp;", "'\""]
READY = "#resolution:not(:empty)"
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
DRIFT = Statistic("drift", "drift", "change against the first", is_share=False)


def variant(label: str, tokens: int, seed: int = 0) -> Variant:
    drift = (np.array(statistic()) - 0.3).tolist()
    drift[1][2] = None
    values = {"sink": statistic(first=0.05 + 0.01 * seed), "drift": drift}
    return Variant.of_layers(label, patterns(tokens, seed=seed), values)


def write(path: Path, *texts: PageText, first_variant: int = 0) -> Path:
    page = AttentionPage(
        "Test",
        "Of a random model.",
        (SINK, DRIFT),
        texts,
        first_head=(1, 0),
        first_variant=first_variant,
    )
    path.write_text(render(page), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    base = PageText("plain", words(12), (variant("base", 12), variant("tuned", 12, 1)), note="N.")
    hostile = PageText("hostile", HOSTILE, (variant("base", 6),))
    long = PageText("long", words(80), (variant("base", 80),))
    steps = PageText("film", words(5), [variant(f"step {2 * n}", 5, n) for n in range(4)])
    return {
        "all": write(folder / "all.html", base, hostile, long),
        "film": write(folder / "film.html", steps),
        "film at its end": write(folder / "end.html", steps, first_variant=3),
    }


@pytest.fixture
def open_page(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Visit]]:
    """Return what opens a page; at the end it must have logged and requested nothing."""
    visits = []

    def open_one(name: str = "all", **options: Any) -> Visit:
        settings = {"viewport": WIDE, "offline": True} | options
        visit = Visit(browser, pages[name].as_uri(), ready=READY, **settings)
        visits.append(visit)
        return visit

    yield open_one
    for visit in visits:
        visit.close()


def listed(page: Any, kind: str = "share") -> list[tuple[int, float]]:
    """Return (position, share) of each row of the list of sources."""
    rows = []
    for row in page.query_selector_all("#sources tbody tr"):
        position = int(row.query_selector("td.source span").inner_text())
        text = row.query_selector(f"td.{kind}").inner_text()
        rows.append((position, float(text.removesuffix(" %")) / 100))
    return rows


def assert_lists(page: Any, pattern: np.ndarray, kind: str = "share") -> None:
    """Check the listed shares against a row of a pattern [T], and that they are its largest."""
    rows = listed(page, kind)
    assert rows
    for position, share in rows:
        assert abs(share - pattern[position]) <= 0.5 / 255 + 0.0006
    if kind == "share":
        largest = np.sort(pattern)[::-1][: len(rows)]
        assert abs(np.array([share for _, share in rows]) - largest).max() <= 0.5 / 255 + 0.0006


def token(page: Any, position: int) -> Any:
    return page.locator(".token").nth(position)


def show_text(page: Any, label: str, tokens: int) -> None:
    """Choose a text and wait until its tokens are there."""
    page.select_option("#text", label=label)
    expect(page.locator(".token")).to_have_count(tokens)


def gridcell(page: Any, layer: int, head: int) -> Any:
    return page.locator("#grid [role=gridcell]").nth(layer * 3 + head)


def chosen(page: Any) -> tuple[str, str, str]:
    return (
        page.input_value("#layer"),
        page.input_value("#head"),
        page.locator(".token[aria-selected=true]").get_attribute("data-position"),
    )


def test_it_opens_with_the_last_token_of_the_first_text(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    assert chosen(page) == ("1", "0", "11")
    assert_lists(page, patterns(12)[1][0, 11])
    assert page.inner_text("#focus-title") == "Token 11 “·w11”, layer 1, head 0, looks at"
    assert page.inner_text("#note") == "N."
    assert "0.4 %" in page.inner_text("#resolution")


def test_pointing_shows_a_token_and_leaving_goes_back(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    token(page, 4).hover()
    assert chosen(page)[2] == "4"
    assert_lists(page, patterns(12)[1][0, 4])
    page.locator("h1").hover()
    assert chosen(page)[2] == "11"
    token(page, 4).click()
    page.locator("h1").hover()
    assert chosen(page)[2] == "4", "a click keeps it"


def test_pointing_at_the_grid_shows_a_head_and_a_click_keeps_it(
    open_page: Callable[..., Visit],
) -> None:
    page = open_page().page
    gridcell(page, 0, 2).hover()
    assert chosen(page)[:2] == ("0", "2")
    assert_lists(page, patterns(12)[0][2, 11])
    assert page.inner_text("#map-title") == "Map of layer 0, head 2"
    page.locator("h1").hover()
    assert chosen(page)[:2] == ("1", "0")
    gridcell(page, 0, 2).click()
    page.locator("h1").hover()
    assert chosen(page)[:2] == ("0", "2")
    assert gridcell(page, 0, 2).get_attribute("aria-selected") == "true"
    assert gridcell(page, 0, 2).get_attribute("aria-label") == "layer 0, head 2: sink share 35.0 %"


def test_the_keyboard_reaches_tokens_heads_and_map(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    token(page, 11).focus()
    page.keyboard.press("Home")
    assert chosen(page)[2] == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert chosen(page)[2] == "1"
    page.keyboard.press("End")
    assert chosen(page)[2] == "11"
    gridcell(page, 1, 0).focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")  # the first layer is the end
    assert chosen(page)[:2] == ("0", "1")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "layer 0, head 1"
    )
    page.locator("#map-frame").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert chosen(page)[2] == "10"
    share = patterns(12)[0][1, 10, 9]
    shown = re.search(r"looks at 9 “·w9”: ([\d.]+) %", page.inner_text("#readout"))
    assert abs(float(shown[1]) / 100 - share) <= 0.5 / 255 + 0.0006
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus can be seen"


def test_arrows_move_between_lines_of_tokens(open_page: Callable[..., Visit]) -> None:
    page = open_page(viewport={"width": 320, "height": 800}).page
    boxes = [token(page, position).bounding_box() for position in range(12)]
    second_line = next(i for i, box in enumerate(boxes) if box["y"] > boxes[0]["y"])
    token(page, 0).focus()
    page.keyboard.press("ArrowDown")
    assert chosen(page)[2] == str(second_line)
    page.keyboard.press("ArrowUp")
    assert chosen(page)[2] == "0"


def test_a_finger_chooses_token_head_and_cell(open_page: Callable[..., Visit]) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True).page
    token(page, 3).tap()
    assert chosen(page)[2] == "3"
    assert_lists(page, patterns(12)[1][0, 3])
    gridcell(page, 0, 1).tap()
    assert chosen(page) == ("0", "1", "3")
    assert "layer 0, head 1, sink share 20.0 %" in page.inner_text("#head-line")
    box = page.locator("#map").bounding_box()
    unit = box["width"] / 12
    page.locator("#map").tap(position={"x": 2.5 * unit, "y": 7.5 * unit})
    assert chosen(page)[2] == "7"
    assert "looks at 2 “·w2”" in page.inner_text("#readout")


def test_pointing_at_the_map_names_the_cell(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    unit = page.locator("#map").bounding_box()["width"] / 12
    page.locator("#map").hover(position={"x": 5.5 * unit, "y": 8.5 * unit})
    share = patterns(12)[1][0, 8, 5]
    shown = re.search(r"Token 8 .* looks at 5 .*: ([\d.]+) %", page.inner_text("#readout"))
    assert abs(float(shown[1]) / 100 - share) <= 0.5 / 255 + 0.0006


def test_the_map_is_the_pattern(open_page: Callable[..., Visit]) -> None:
    """Darker cells have larger shares: the order of the colours is that of the shares."""
    page = open_page().page
    pixels = page.evaluate(
        """() => { const map = document.getElementById("map");
        return [map.width, [...map.getContext("2d").getImageData(0, 0, map.width, map.height).data]]
        }"""
    )
    assert pixels[0] == 12
    red = np.array(pixels[1]).reshape(12, 12, 4)[..., 0]
    rows, columns = np.tril_indices(12)
    shares = patterns(12)[1][0][rows, columns]
    order = np.argsort(shares)
    assert (np.diff(red[rows, columns][order].astype(int)) <= 1).all()
    assert red[rows, columns].max() - red[rows, columns].min() > 100


def test_both_models_are_listed_side_by_side(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    assert_lists(page, patterns(12, seed=1)[1][0, 11], "compared")
    page.get_by_text("tuned", exact=True).first.click()
    assert_lists(page, patterns(12, seed=1)[1][0, 11])
    assert_lists(page, patterns(12)[1][0, 11], "compared")
    assert "51.0 %" in page.inner_text("#head-statistics")  # 0.06 + 3 · 0.15
    assert "50.0 %" in page.inner_text("#head-statistics")


def test_the_first_token_can_be_left_out(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    page.check("#without-first")
    row = patterns(12)[1][0, 11].copy()
    level = np.floor(row * 255 + 0.5) / 255
    expected = level / (1 - level[0])
    rows = dict(listed(page))
    assert 0 not in rows
    for position, share in rows.items():
        assert abs(share - expected[position]) < 0.0006
    assert "without the first token" in page.inner_text("#rest")


def test_heads_are_sorted_and_filtered_by_a_statistic(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    names = page.locator("#ranking button > span:first-child")
    assert names.all_inner_texts() == ["L1 H2", "L1 H1", "L1 H0", "L0 H2", "L0 H1", "L0 H0"]
    page.locator("#threshold").fill("50")
    # half way from 5 % of base to 81 % of tuned: 43 %
    assert names.all_inner_texts() == ["L1 H2", "L1 H1", "L1 H0"]
    assert page.inner_text("#ranking-title") == "By sink share: 3 of 6 heads"
    assert page.locator("#grid .filtered").count() == 3
    page.select_option("#order", "low")
    assert names.all_inner_texts() == ["L0 H0", "L0 H1", "L0 H2", "L1 H0", "L1 H1", "L1 H2"]
    page.locator("#ranking button").nth(1).click()
    assert chosen(page)[:2] == ("0", "1")
    # a statistic that a head does not have leaves the head out, whatever the filter
    page.select_option("#statistic", label="drift")
    assert names.all_inner_texts() == ["L0 H0", "L0 H1", "L0 H2", "L1 H0", "L1 H1"]
    assert gridcell(page, 1, 2).get_attribute("aria-label") == "layer 1, head 2: drift –"


def test_signs_have_hues_of_their_own(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    page.select_option("#statistic", label="drift")

    def colour(layer: int, head: int) -> list[int]:
        text = gridcell(page, layer, head).evaluate("node => node.style.backgroundColor")
        return [int(part) for part in re.findall(r"\d+", text)]

    negative, positive = colour(0, 0), colour(1, 1)
    assert negative[0] > negative[2]
    assert positive[2] > positive[0]


def test_hostile_tokens_are_shown_as_text(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    show_text(page, "hostile", 6)
    expected = ["</script>", "<b>x</b>", "⏎", "⟨U+202E⟩", "&amp;", "'\""]
    assert page.locator(".token").all_inner_texts() == expected
    assert page.locator(".token b").count() == 0
    assert page.locator("#variants").is_hidden()
    assert_lists(page, patterns(6)[1][0, 5])


def test_a_long_text_has_its_strongest_sources(open_page: Callable[..., Visit]) -> None:
    page = open_page().page
    show_text(page, "long", 80)
    assert_lists(page, patterns(80)[1][0, 79])
    assert "8 strongest sources" in page.inner_text("#resolution")
    row = patterns(80)[1][0, 79]
    weakest = int(np.argmin(row))
    unit = page.locator("#map").bounding_box()["width"] / 80
    page.locator("#map").click(position={"x": (weakest + 0.5) * unit, "y": 79.5 * unit})
    assert "not among its 8 strongest sources" in page.inner_text("#readout")
    box = page.locator("#tokens").bounding_box()
    token(page, 79).scroll_into_view_if_needed()
    assert box["height"] < 450


def test_a_slider_chooses_among_many_variants(open_page: Callable[..., Visit]) -> None:
    page = open_page("film").page
    assert page.locator("#variants").is_hidden()
    slider = page.locator("#frame")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#frame-label") == "step 4"
    assert slider.get_attribute("aria-valuetext") == "step 4"
    assert_lists(page, patterns(5, seed=2)[1][0, 4])
    assert_lists(page, patterns(5)[1][0, 4], "compared")


def test_a_page_opens_at_the_variant_that_it_names(open_page: Callable[..., Visit]) -> None:
    page = open_page("film at its end").page
    assert page.inner_text("#frame-label") == "step 6"
    assert page.locator("#frame").input_value() == "3"
    assert page.locator("#frame").get_attribute("aria-valuetext") == "step 6"
    assert_lists(page, patterns(5, seed=3)[1][0, 4])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_tokens_can_be_read(open_page: Callable[..., Visit], scheme: str) -> None:
    """Contrast of at least 4.5 : 1 (WCAG 2.2, 1.4.3) for whatever share a token has."""
    page = open_page(color_scheme=scheme, reduced_motion="reduce").page

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for query in range(12):
        token(page, query).focus()
        colours = page.evaluate(
            """() => [...document.querySelectorAll(".token")].map((node) => {
            const style = getComputedStyle(node);
            return [style.color, style.backgroundColor, node.className] })"""
        )
        surface = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for ink, background, _ in colours:
            ground = surface if background.endswith(", 0)") else background
            first, second = luminance(ink), luminance(ground)
            contrast = (max(first, second) + 0.05) / (min(first, second) + 0.05)
            assert contrast >= 4.5, (ink, ground)


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["1280", "390"])
def test_nothing_is_wider_than_the_screen(
    open_page: Callable[..., Visit], viewport: dict[str, int]
) -> None:
    page = open_page(viewport=viewport).page
    for label, count in (("hostile", 6), ("long", 80), ("plain", 12)):
        show_text(page, label, count)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport["width"]
    assert token(page, 0).bounding_box()["height"] >= 24  # WCAG 2.2, 2.5.8: size of a target


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["1280", "390"])
def test_axe_finds_no_serious_fault(
    open_page: Callable[..., Visit], viewport: dict[str, int], scheme: str
) -> None:
    for name in ("all", "film"):
        page = open_page(name, viewport=viewport, color_scheme=scheme).page
        assert serious_violations(page) == []
