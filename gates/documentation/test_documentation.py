"""Gate of FEAT-002: do the documents follow the template, and do their numbers come from results?

Reads the copies with a line-by-line reader of its own, so that a bug in the experiment's reader
cannot hide itself. Inputs: `concepts` (the documents' folder) and every feature that a placeholder
names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
    stated_numbers,
)
from gates.shared.standard import (  # noqa: F401 - collected here as this gate's own
    assert_all_judged,
    assert_report_states,
    assert_table_agrees,
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)

TEMPLATE = "TEMPLATE.md"
WORDS_PER_SECTION = 20
REQUIRED_SECTIONS = {"What this lab measures", "What it does not show", "Sources"}
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


def read_pages() -> list[Page]:
    """Return the stored documents, the template left out."""
    pages = []
    for path in sorted((outputs.out() / "documents").glob("*.md")):
        if path.name != TEMPLATE:
            pages.append(read(path.name, path.read_text("utf-8")))
    assert pages, "no concept document was stored"
    return pages


def read_template() -> Page:
    """Return the stored template."""
    return read(TEMPLATE, (outputs.out() / "documents" / TEMPLATE).read_text("utf-8"))


def load_results() -> dict[tuple[str, str], dict[str, Any]]:
    """Return (feature, measurement) -> measurement of every feature among the inputs."""
    measurements: dict[tuple[str, str], dict[str, Any]] = {}
    for feature, folder in outputs.inputs().items():
        if (folder / "result.json").is_file():
            result = json.loads((folder / "result.json").read_text("utf-8"))
            for name, raw in result["measurements"].items():
                measurements[feature, name] = raw
    return measurements


def find_problems(page: Page) -> list[str]:
    """Return what is wrong with a document, by this gate's own reading."""
    return [*_problems_of_structure(page), *_problems_of_links(page), *_problems_of_sources(page)]


def _problems_of_structure(page: Page) -> Iterator[str]:
    if list(page.sections) != list(read_template().sections):
        yield f"sections {list(page.sections)}"
    if not page.title:
        yield "no title"
    if any("<!--" in line for line in page.lines):
        yield "instruction left in"
    for name, lines in page.sections.items():
        if len(" ".join(lines).split()) < WORDS_PER_SECTION:
            yield f"section {name} is too short"


def _problems_of_links(page: Page) -> Iterator[str]:
    anchors = set()
    for heading in page.headings:
        anchors.add("#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    names = {path.name for path in (outputs.out() / "documents").iterdir()} - {TEMPLATE}
    for target in links(page):
        if not (re.match(r"https://[^/]+\.", target) or target in anchors or target in names):
            yield f"link {target}"
    results = load_results()
    for placeholder in placeholders(page):
        if placeholder not in results:
            yield f"{placeholder} is not measured"


def _problems_of_sources(page: Page) -> Iterator[str]:
    listed = sources(page)
    cited = set(citations(page))
    for key in sorted(cited - set(listed)):
        yield f"[{key}] has no source"
    for key, text in listed.items():
        if key not in cited:
            yield f"source [{key}] is not cited"
        if "https://" not in text:
            yield f"source [{key}] has no address"
    if not listed:
        yield "no source"


def recount() -> dict[str, int]:
    """Return every measurement of this feature, counted by this gate."""
    pages = read_pages()
    results = load_results()
    counts = dict.fromkeys(COUNTS, 0)
    counts["documents"] = len(pages)
    for page in pages:
        counts["words"] += len(page.source.split())
        counts["sections"] += len(page.sections)
        counts["links"] += len(links(page))
        counts["citations"] += len(citations(page))
        counts["sources"] += len(sources(page))
        counts["placeholders"] += len(placeholders(page))
        counts["filled"] += sum(placeholder in results for placeholder in placeholders(page))
        counts["problems"] += len(find_problems(page))
    return counts


def test_every_measurement_is_judged() -> None:
    assert_all_judged(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_count(name: str) -> None:
    outputs.assert_agrees(name, recount()[name])


def test_report_states_the_counts() -> None:
    assert_report_states(recount())


def test_findings_state_the_counts() -> None:
    counts = recount()
    first, second = map(stated_numbers, outputs.result()["findings"])
    assert first == [counts["documents"], counts["problems"], counts["words"]]
    assert second == [
        counts["filled"],
        counts["placeholders"],
        counts["sources"],
        counts["citations"],
    ]


def test_table_shows_every_document() -> None:
    rows = []
    for page in read_pages():
        counts = map(len, (page.sections, links(page), citations(page), sources(page)))
        words = len(page.source.split())
        rows.append([page.name, words, *counts, len(placeholders(page))])
    assert_table_agrees(0, rows)


def test_copies_are_the_documents_of_the_input() -> None:
    documents = {}
    for path in outputs.inputs()["concepts"].glob("*.md"):
        content = path.read_bytes()
        if not is_published_report(content):
            documents[path.name] = content
    stored = {path.name: path.read_bytes() for path in (outputs.out() / "documents").iterdir()}
    assert stored.keys() == documents.keys()
    assert [name for name in documents if stored[name] != documents[name]] == []


def test_template_is_worth_following() -> None:
    assert set(read_template().sections) >= REQUIRED_SECTIONS
    assert len(read_template().sections) >= 6


def test_no_document_has_a_problem() -> None:
    problems = {page.name: find_problems(page) for page in read_pages()}
    assert not any(problems.values()), problems


def test_rendered_numbers_are_those_that_were_measured() -> None:
    results = load_results()
    for page in read_pages():
        rendered = (outputs.out() / "rendered" / page.name).read_text("utf-8")
        for placeholder, text in fillings(page, rendered):
            measurement = results[placeholder]
            assert shows(text, measurement["value"], measurement["unit"]), (
                f"{placeholder}: {text!r} shows another value than {measurement}"
            )


def test_index_lists_every_document() -> None:
    index = {entry["name"]: entry for entry in outputs.read_json("index.json")}
    assert list(index) == [page.name for page in read_pages()]
    text = (outputs.out() / "index.md").read_text("utf-8")
    for page in read_pages():
        entry = index[page.name]
        assert entry["title"] == page.title and f"[{page.title}](rendered/{page.name})" in text
        assert entry["problems"] == [] and entry["words"] == len(page.source.split())
        assert entry["sections"] == len(page.sections) and entry["links"] == len(links(page))
        assert entry["citations"] == len(citations(page)) and entry["sources"] == len(sources(page))
        assert entry["placeholders"] == entry["filled"] == len(placeholders(page))


def test_figure_shows_the_words_of_each_section() -> None:
    (series,) = outputs.read_json("figures/words_per_section.json")["series"]
    words: dict[str, int] = {}
    for page in read_pages():
        for name, lines in page.sections.items():
            words[name] = words.get(name, 0) + len(" ".join(lines).split())
    assert set(series["x"]) == set(words)
    assert series["y"] == [words[name] for name in series["x"]]
