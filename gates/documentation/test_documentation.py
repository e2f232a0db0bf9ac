"""Gate of FEAT-002: do the documents follow the template, and do their numbers come from results?

Reads the copies with a line-by-line reader of its own, so that a mistake in the experiment's reader
cannot excuse itself. Inputs: `concepts` (the documents' folder) and every feature that a
placeholder names.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gates.shared import outputs
from gates.shared.documents import (
    Page,
    citations,
    fillings,
    is_published_report,
    links,
    placeholders,
    read,
    shows,
    sources,
)

TEMPLATE = "TEMPLATE.md"
WORDS_PER_SECTION = 20
SECTIONS_AT_LEAST = {"What this lab measures", "What it does not show", "Sources"}
COUNTS = (
    "documents",
    "words",
    "sections",
    "links",
    "citations",
    "sources",
    "placeholders",
    "filled",
    "problems",
)


def pages() -> list[Page]:
    """Give the stored documents, the template left out."""
    stored = [
        path for path in sorted((outputs.out() / "documents").glob("*.md")) if path.name != TEMPLATE
    ]
    assert stored, "no concept document was stored"
    return [read(path.name, path.read_text("utf-8")) for path in stored]


def template() -> Page:
    """Give the stored template."""
    return read(TEMPLATE, (outputs.out() / "documents" / TEMPLATE).read_text("utf-8"))


def measured() -> dict[tuple[str, str], dict[str, Any]]:
    """Give (feature, measurement) -> measurement of every feature among the inputs."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for feature, path in outputs.inputs().items():
        if (path / "result.json").is_file():
            result = json.loads((path / "result.json").read_text("utf-8"))
            found |= {(feature, name): raw for name, raw in result["measurements"].items()}
    return found


def faults(page: Page) -> list[str]:
    """Give what is wrong with a document, by this gate's own reading."""
    wrong = (
        []
        if list(page.sections) == list(template().sections)
        else [f"sections {list(page.sections)}"]
    )
    wrong += [] if page.title else ["no title"]
    wrong += ["instruction left in"] if any("<!--" in line for line in page.lines) else []
    for name, lines in page.sections.items():
        if len(" ".join(lines).split()) < WORDS_PER_SECTION:
            wrong.append(f"section {name} is too short")
    anchors = {
        "#" + re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in page.headings
    }
    known = {path.name for path in (outputs.out() / "documents").iterdir()} - {TEMPLATE}
    for target in links(page):
        if not (re.match(r"https://[^/]+\.", target) or target in anchors or target in known):
            wrong.append(f"link {target}")
    listed, cited = sources(page), citations(page)
    wrong += [f"[{key}] has no source" for key in set(cited) - set(listed)]
    wrong += [f"source [{key}] is not cited" for key in set(listed) - set(cited)]
    wrong += [
        f"source [{key}] has no address" for key, text in listed.items() if "https://" not in text
    ]
    wrong += [] if listed else ["no source"]
    return wrong + [
        f"{place} is not measured" for place in placeholders(page) if place not in measured()
    ]


def counted() -> dict[str, int]:
    """Give every measurement of this feature, counted anew."""
    every = pages()
    places = [place for page in every for place in placeholders(page)]
    return {
        "documents": len(every),
        "words": sum(len(page.source.split()) for page in every),
        "sections": sum(len(page.sections) for page in every),
        "links": sum(len(links(page)) for page in every),
        "citations": sum(len(citations(page)) for page in every),
        "sources": sum(len(sources(page)) for page in every),
        "placeholders": len(places),
        "filled": sum(place in measured() for place in places),
        "problems": sum(len(faults(page)) for page in every),
    }


@pytest.mark.integrity
def test_files_are_those_that_were_listed() -> None:
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report_was_made_from_the_result() -> None:
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures_show_their_data() -> None:
    outputs.assert_figures_match()


def test_every_measurement_is_judged() -> None:
    assert set(outputs.result()["measurements"]) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_count(name: str) -> None:
    outputs.assert_agrees(name, counted()[name])


def test_copies_are_the_documents_that_were_given() -> None:
    every = {path.name: path.read_bytes() for path in outputs.inputs()["concepts"].glob("*.md")}
    given = {name: data for name, data in every.items() if not is_published_report(data)}
    stored = {path.name: path.read_bytes() for path in (outputs.out() / "documents").iterdir()}
    assert stored.keys() == given.keys()
    assert [name for name in given if stored[name] != given[name]] == []


def test_template_is_worth_following() -> None:
    assert set(template().sections) >= SECTIONS_AT_LEAST
    assert len(template().sections) >= 6


def test_no_document_has_a_fault() -> None:
    wrong = {page.name: faults(page) for page in pages()}
    assert not any(wrong.values()), wrong


def test_rendered_numbers_are_those_that_were_measured() -> None:
    known = measured()
    for page in pages():
        rendered = (outputs.out() / "rendered" / page.name).read_text("utf-8")
        for place, text in fillings(page, rendered):
            assert shows(text, known[place]["value"]), (
                f"{place}: {text!r} shows another value than {known[place]}"
            )


def test_index_lists_every_document() -> None:
    index = {item["name"]: item for item in outputs.read_json("index.json")}
    assert list(index) == [page.name for page in pages()]
    text = (outputs.out() / "index.md").read_text("utf-8")
    for page in pages():
        entry = index[page.name]
        assert entry["title"] == page.title and f"[{page.title}](rendered/{page.name})" in text
        assert entry["problems"] == [] and entry["words"] == len(page.source.split())
        assert entry["sections"] == len(page.sections) and entry["links"] == len(links(page))
        assert entry["citations"] == len(citations(page)) and entry["sources"] == len(sources(page))
        assert entry["placeholders"] == entry["filled"] == len(placeholders(page))


def test_figure_shows_the_words_of_each_section() -> None:
    (series,) = outputs.read_json("figures/words_per_section.json")["series"]
    lines = {
        name: [" ".join(page.sections.get(name, [])) for page in pages()] for name in series["x"]
    }
    assert series["y"] == [len(" ".join(texts).split()) for texts in lines.values()]
    assert set(series["x"]) == {name for page in pages() for name in page.sections}
