"""The site's sources, its Markdown and its counts, on small texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.contract import Config, Context, ContractError, Inputs
from lab.synthesis.site.article import fold_sections, placeholders, render_article
from lab.synthesis.site.links import internal_links
from lab.synthesis.site.measured import FigureFile
from lab.synthesis.site.pages import all_pages
from lab.synthesis.site.sources import read_questions, read_sources
from tests.lab.synthesis import site

CONFIG = {
    "plan": "plan",
    "concepts": "concepts",
    "questions": "questions",
    "pages": {"FEAT-001": "stored.html"},
}


def article(source: str, **more: Any) -> str:
    options: dict[str, Any] = {"figures": {}, "links": {}} | more
    return render_article(source, **options)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """Return a context with one feature, a plan of two, a concept and questions."""
    site.write_gap(tmp_path / "FEAT-001")
    (tmp_path / "concepts").mkdir()
    (tmp_path / "concepts/gaps.md").write_text(site.CONCEPT, "utf-8")
    (tmp_path / "QUESTIONS.md").write_text(site.QUESTIONS, "utf-8")
    (tmp_path / "plan.json").write_text(json.dumps(site.plan(sample=False)))
    entries = {
        "plan": {"kind": "input", "path": str(tmp_path / "plan.json")},
        "concepts": {"kind": "input", "path": str(tmp_path / "concepts")},
        "questions": {"kind": "input", "path": str(tmp_path / "QUESTIONS.md")},
        "FEAT-001": {"kind": "feature", "path": str(tmp_path / "FEAT-001")},
    }
    config = Config(CONFIG, "cpu")
    return Context(config, "cpu", 0, Inputs(entries), tmp_path / "out", lambda *_: None)


def test_html_in_a_text_is_shown_as_text() -> None:
    html = article("A <script>alert(1)</script> & <b>b</b>.")
    assert html == "<p>A &lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;b&lt;/b&gt;.</p>\n"


def test_tables_can_be_scrolled_and_have_names() -> None:
    html = article("| a |\n|---|\n| `x\\|y` |\n\nz\n\n| b |\n|---|\n| 2 |\n")
    assert html.count('class="scroll" role="region" tabindex="0"') == 2
    assert 'aria-label="Table 2"' in html
    assert "x|y" in html


def test_pictures_and_links_lead_into_the_site() -> None:
    figure = FigureFile("loss", Path("loss.svg"), "figures/FEAT-001/loss.svg", 10, 20)
    html = article(
        "![Loss & more](figures/loss.png) [a](a.md) [b](a.md#part) [c](#part) [d](https://d.org/x)",
        figures={"loss": figure},
        links={"a.md": "concept-a.html"},
    )
    assert 'src="figures/FEAT-001/loss.svg" alt="Loss &amp; more" width="10" height="20"' in html
    for href in ("concept-a.html", "concept-a.html#part", "#part", "https://d.org/x"):
        assert f'<a href="{href}">' in html


def test_placeholders_in_code_stay() -> None:
    assert placeholders(site.CONCEPT) == [("FEAT-001", "gap"), ("FEAT-009", "gone")]
    html = article("{{A-1.x}} `{{A-1.x}}`", fill=lambda feature, name: f"<i>{feature} {name}</i>")
    assert html == "<p><i>A-1 x</i> <code>{{A-1.x}}</code></p>\n"


def test_sections_that_few_need_are_folded() -> None:
    html = fold_sections(article("# T\n\n## Findings\n\na\n\n## Tables\n\nb\n\n## More\n\nc\n"))
    assert html.count("<details>") == 1
    assert "<p>b</p>" in html.partition("<details>")[2].partition("</details>")[0]


def test_questions_are_read_with_their_sections() -> None:
    first, second = read_questions(site.QUESTIONS)
    assert (first.id, first.section, first.experiments) == (
        "Q-001",
        "Foundation",
        ("FEAT-001", "FEAT-005"),
    )
    assert (second.section, second.status, second.text) == ("Later", "EXPLORING", "Does it last?")


def test_features_before_the_site_are_shown_and_those_without_a_result_are_named(
    ctx: Context,
) -> None:
    sources = read_sources(ctx)
    assert [feature.id for feature in sources.features] == ["FEAT-001"]
    assert sources.absent == (
        ("FEAT-005", "Curves"),
        ("FEAT-008", "Forgetting"),
        ("FEAT-009", "Waived"),
        ("FEAT-011", "Attention"),
    )
    index = all_pages(sources)["index.html"]
    assert "FEAT-009: Waived" in index and "FEAT-018" not in index
    assert "none (run by hand)" in index
    assert "assurance:" not in index


def test_the_smaller_file_of_a_figure_is_shown_in_its_own_size(ctx: Context) -> None:
    folder = ctx.inputs.path("FEAT-001") / "figures"
    (figure,) = read_sources(ctx).features[0].figures
    assert figure.source.stat().st_size == min(
        (folder / name).stat().st_size for name in ("gap.svg", "gap.png")
    )
    (folder / "gap.svg").write_bytes((folder / "gap.svg").read_bytes() + b" " * 1_000_000)
    (other,) = read_sources(ctx).features[0].figures
    assert other.source.suffix == ".png"
    assert abs(other.width / other.height - figure.width / figure.height) < 0.02


def test_a_stored_page_is_linked_where_there_is_one(ctx: Context) -> None:
    assert read_sources(ctx).features[0].page == ""
    (ctx.inputs.path("FEAT-001") / "stored.html").write_text("<p>x</p>")
    sources = read_sources(ctx)
    assert sources.features[0].page == "stored.html"
    assert 'href="stored.html"' in all_pages(sources)["FEAT-001.html"]


def test_a_result_that_is_not_whole_is_refused(ctx: Context) -> None:
    (ctx.inputs.path("FEAT-001") / "report.md").unlink()
    with pytest.raises(ContractError, match=r"FEAT-001: .* has no whole result"):
        read_sources(ctx)


def test_links_within_the_site_are_found() -> None:
    page = '<a href="a.html">a</a><a href="#b">b</a><a href="https://c.org">c</a><img src="d.png">'
    assert internal_links("p.html", page) == ["a.html", "p.html#b", "d.png"]
