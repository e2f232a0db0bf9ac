"""The site in headless Chromium: from file and server, on a phone, in print, by keyboard."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from gates.synthesis.site import pages as reading
from tests.browser import Visit, serious_violations
from tests.gates.conftest import run_experiment
from tests.lab.synthesis import site

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PAPER = {"width": 718, "height": 1040}  # A4 without its margins, at 96 dots per inch
KINDS = (
    "index.html",
    "FEAT-001.html",
    "predictions.html",
    "questions.html",
    "concepts.html",
    "concept-gaps.html",
    "explorer.html",
)
MEASURED = "r4-a8-lr0.02-b2-s4-n8"
UNMEASURED = "r2-a8-lr0.02-b2-s4-n8"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site of a small world."""
    root = tmp_path_factory.mktemp("site")
    inputs = site.write_world(root / "world", sample=True)
    config = site.write_config(root)
    module = "lab.synthesis.site.experiment"
    return run_experiment(module, str(config), inputs, root / "out") / reading.SITE


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Iterator[Callable[..., Visit]]:
    """Return what opens a page; at the end it must have logged and requested nothing."""
    visits = []

    def open_one(name: str = "explorer.html", **options: Any) -> Visit:
        settings = {"viewport": WIDE, "offline": True} | options
        address = f"{folder.as_uri()}/{name}"
        visit = Visit(browser, address, ready="footer", own=f"{folder.as_uri()}/", **settings)
        visits.append(visit)
        return visit

    yield open_one
    for visit in visits:
        visit.close()


def data_of(folder: Path) -> dict[str, Any]:
    match = reading.DATA.search((folder / "explorer.html").read_text("utf-8"))
    document: dict[str, Any] = json.loads(match[1])
    return document


def seeds(page: Any) -> list[str]:
    """Return the seeds of the table of the chosen trials."""
    texts: list[str] = page.locator("#chosen-trials tbody td:first-child").all_inner_texts()
    return texts


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [(WIDE, "light"), (PHONE, "light"), (PHONE, "dark")],
    ids=["1280", "390", "390-dark"],
)
def test_no_page_is_wider_than_the_screen_or_hard_to_use(
    open_page: Callable[..., Visit], name: str, viewport: dict[str, int], scheme: str
) -> None:
    page = open_page(name, viewport=viewport, color_scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert serious_violations(page) == []
    assert page.locator(".assurance").is_visible(), "a sample says so at the top"


def test_dark_is_dark(open_page: Callable[..., Visit]) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = open_page("index.html", color_scheme=scheme).page
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        colours[scheme] = sum(map(int, re.findall(r"\d+", colour)))
    assert colours["light"] > 600
    assert colours["dark"] < 200


def test_every_page_shows_its_pictures_from_a_file_and_from_a_server(
    browser: Any, folder: Path, open_page: Callable[..., Visit]
) -> None:
    loaded = "[...document.images].map((image) => image.naturalWidth > 0)"
    assert open_page("FEAT-001.html").page.evaluate(loaded) == [True]

    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for name in ("FEAT-001.html", "explorer.html"):
            visit = Visit(browser, f"{address}/{name}", ready="footer", own=f"{address}/")
            pictures = visit.page.evaluate(loaded)
            visit.close()
            assert all(pictures)
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer a browser's own request for an icon, which no page names, with nothing."""
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def test_claims_are_shown_as_they_were_written(open_page: Callable[..., Visit]) -> None:
    page = open_page("index.html").page
    assert site.MISSED in page.inner_text(".missed-list")
    assert page.locator(".missed-list b").count() == 0
    missed = page.locator(".missed-list").bounding_box()
    assert missed["y"] < page.locator("article.card").first.bounding_box()["y"]


def test_predictions_are_filtered_without_a_script(open_page: Callable[..., Visit]) -> None:
    page = open_page("predictions.html", java_script_enabled=False).page
    entries = page.locator(".predictions li")
    assert entries.count() == 3
    page.get_by_label("1 missed").check()
    visible = [entry.inner_text() for entry in entries.all() if entry.is_visible()]
    assert len(visible) == 1 and site.MISSED in visible[0]
    page.get_by_label("all 3").check()
    assert all(entry.is_visible() for entry in entries.all())


def test_measured_numbers_lead_to_their_report(open_page: Callable[..., Visit]) -> None:
    page = open_page("concept-gaps.html").page
    number = page.locator("a.measured")
    assert number.inner_text() == "0.2000 ± 0.058 nats/token (n = 3)"
    assert "(not measured: FEAT-009.gone)" in page.inner_text("main")
    assert "{{FEAT-001.gap}}" in page.locator("code").first.inner_text()
    number.click()
    assert page.inner_text("h1") == "Experiment FEAT-001"


#### the explorer


def test_it_opens_at_the_best_cell_and_shows_exactly_its_trials(
    open_page: Callable[..., Visit], folder: Path
) -> None:
    page = open_page().page
    trials = data_of(folder)["trials"]
    cells: dict[str, list[Any]] = {}
    for trial in trials:
        cells.setdefault(trial["cell"], []).append(trial)
    several = [c for c in cells.values() if len(c) > 1 and not c[0]["shuffled"]]
    best = min(several, key=lambda cell: sum(trial["held_out"] for trial in cell))
    assert seeds(page) == ["0", "1"]
    shown = page.locator("#chosen-trials tbody tr").first.inner_text()
    assert f"{best[0]['held_out']:.4g}" in shown
    assert best[0]["identity"][:12] in shown
    assert page.locator("figure").first.locator("path.band").count() == 1


def test_the_numbers_of_a_figure_are_those_of_the_trial(
    open_page: Callable[..., Visit], folder: Path
) -> None:
    page = open_page(f"explorer.html#{MEASURED}-seed1").page
    (trial,) = [t for t in data_of(folder)["trials"] if t["name"] == f"{MEASURED}-seed1"]
    assert seeds(page) == ["1"]
    figure = page.locator("figure").first
    figure.locator("summary").click()
    rows = figure.locator("table").first.locator("tbody tr").all_inner_texts()
    stated = {row.split("\t")[0]: row.split("\t")[1] for row in rows}
    for step, loss in enumerate(trial["losses"], start=1):
        assert abs(float(stated[str(step)]) - loss) <= 5e-4 * loss
    answers = page.locator("#answers dd").all_inner_texts()
    assert [answers[i] for i in (2, 5, 8)] == [text or "(nothing)" for text in trial["answers"]]


def test_a_link_of_the_grid_opens_its_cell_and_is_in_the_address(
    open_page: Callable[..., Visit],
) -> None:
    page = open_page().page
    best = page.inner_text("#chosen-title")
    link = page.locator("#grid a:not([aria-current])").first
    name = link.get_attribute("data-cell")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#chosen-title")).not_to_have_text(best)
    assert page.url.endswith(f"#{name}")
    assert page.locator("#grid a[aria-current]").get_attribute("data-cell") == name
    assert page.evaluate("document.activeElement.id") == "chosen-title"
    page.go_back()
    expect(page.locator("#chosen-title")).to_have_text(best)


def test_choices_change_the_address_and_say_what_was_not_measured(
    open_page: Callable[..., Visit],
) -> None:
    page = open_page(f"explorer.html#{MEASURED}").page
    assert "(not measured)" in page.locator("#choose-rank option").first.inner_text()
    page.select_option("#choose-rank", "2")
    assert page.url.endswith(f"#{UNMEASURED}")
    assert page.inner_text("#chosen-title").startswith("Not measured: rate 0.02, rank 2")
    assert page.locator("figure").count() == 0, "nothing is drawn in its place"
    page.locator("#unmeasured a").first.click()
    expect(page.locator("#chosen-title")).to_contain_text("Chosen")
    page.select_option("#choose-seed", "1")
    page.select_option("#choose-answers", "shuffled")
    assert page.locator("figure").count() == 0
    assert page.inner_text("#status").startswith("Not measured")


def test_forgetting_is_shown_where_it_was_scored_and_nowhere_else(
    open_page: Callable[..., Visit], folder: Path
) -> None:
    scored = next(t for t in data_of(folder)["trials"] if t["forgetting"])
    page = open_page(f"explorer.html#{scored['cell']}").page
    rows = page.locator("#chosen-trials tbody tr").all_inner_texts()
    by_seed = {row.split("\t")[0]: row for row in rows}
    assert "0.0123 ± 0.0021" in by_seed[str(scored["seed"])]
    others = [row for seed, row in by_seed.items() if seed != str(scored["seed"])]
    assert others and all("not measured" in row for row in others)


def test_a_digest_leads_to_the_row_with_the_whole_of_it(open_page: Callable[..., Visit]) -> None:
    page = open_page(f"explorer.html#{MEASURED}-seed0").page
    page.locator("#chosen-trials a").click()
    row = page.locator(f'[id="trial-{MEASURED}-seed0"]')
    expect(row).to_be_in_viewport()
    assert re.search(r"identity [0-9a-f]{64}, file sha256 [0-9a-f]{64}", row.inner_text())
    assert seeds(page) == ["0"], "the choice stays"


def test_another_kind_of_layer_has_another_spectrum(
    open_page: Callable[..., Visit], folder: Path
) -> None:
    page = open_page(f"explorer.html#{MEASURED}-seed0").page
    (trial,) = [t for t in data_of(folder)["trials"] if t["name"] == f"{MEASURED}-seed0"]
    page.select_option("#kind", "down_proj")
    figure = page.locator("figure").nth(2)
    figure.locator("summary").click()
    cells = figure.locator("table tbody tr td:nth-child(2)").all_inner_texts()
    for stated, value in zip(cells, trial["spectra"]["down_proj"], strict=True):
        assert abs(float(stated) - value) <= 5e-4 * value


def test_an_unknown_fragment_changes_nothing(open_page: Callable[..., Visit]) -> None:
    first = open_page().page.inner_text("#chosen-title")
    for fragment in ("nonsense", "r9-a8-lr0.02-b2-s4-n8", "%E0%A4%A"):
        page = open_page(f"explorer.html#{fragment}").page
        assert page.inner_text("#chosen-title") == first


def test_without_a_script_tables_remain_and_the_page_says_what_is_missing(
    open_page: Callable[..., Visit],
) -> None:
    page = open_page("explorer.html", java_script_enabled=False).page
    assert "drawn by a script" in page.inner_text(".problem")
    assert page.locator("#grid a").count() == 4
    assert page.locator("#grid .unmeasured").all_inner_texts() == ["not measured"] * 2
    assert page.locator("#chosen").is_hidden()
    page.locator("#grid a").first.click()
    assert page.locator("#cells tr:target").count() == 1


@pytest.mark.parametrize("name", KINDS)
def test_printed_nothing_is_cut_off(open_page: Callable[..., Visit], name: str) -> None:
    page = open_page(name, viewport=PAPER).page
    page.emulate_media(media="print")
    cut = page.evaluate(
        """(width) => [...document.querySelectorAll("main *, .assurance")]
        .filter((node) => node.getBoundingClientRect().right > width + 1)
        .filter((node) => !node.closest(".unseen"))
        .map((node) => node.outerHTML.slice(0, 100))""",
        PAPER["width"],
    )
    assert cut == []
    assert page.locator("nav").is_hidden()
    assert page.locator(".assurance").is_visible()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_printed_the_explorer_shows_the_chosen_cell_and_a_report_all_its_sections(
    open_page: Callable[..., Visit],
) -> None:
    page = open_page(f"explorer.html#{MEASURED}", viewport=PAPER).page
    page.emulate_media(media="print")
    assert page.locator("#chosen-title").is_visible()
    assert page.locator("figure svg").first.is_visible()
    assert page.locator("#choices").is_hidden()
    report = open_page("FEAT-001.html", viewport=PAPER).page
    report.emulate_media(media="print")
    heights = report.evaluate(
        '[...document.querySelectorAll("main details table")].map((table) => table.offsetHeight)'
    )
    assert heights and min(heights) > 0, "folded sections are open in print"
