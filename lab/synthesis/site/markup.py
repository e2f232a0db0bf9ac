"""Small pieces of HTML: text, links, tables, and the shell that all pages of the site have."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from lab.present import page as page_frame
from lab.present.numbers import number
from lab.result import Scalar
from lab.synthesis.site.measured import NONE, Feature, Sources
from lab.verified import SAMPLE_ASSURANCE

OUTCOME_WORDS = {"MISSED": "missed", "HELD": "held", "INCONCLUSIVE": "inconclusive"}


@dataclass(frozen=True)
class Cell:
    """A cell that is HTML already."""

    html: str


def text(value: str) -> str:
    """Return a text as HTML."""
    return html.escape(value, quote=True)


def link(href: str, label: str) -> str:
    """Return a link to a file of the site."""
    return f'<a href="{text(href)}">{text(label)}</a>'


def items(entries: Iterable[str]) -> str:
    """Return a list of HTML entries."""
    return "<ul>\n" + "".join(f"<li>{entry}</li>\n" for entry in entries) + "</ul>\n"


def table(
    label: str, columns: Sequence[str], rows: Iterable[Sequence[Scalar | Cell]], css: str = ""
) -> str:
    """Return a table in a box that scrolls where the screen is narrow; `label` says what it is."""
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    body = ""
    for row in rows:
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row)
        body += f"<tr>{cells}</tr>\n"
    return scroll_box(
        label,
        f'<table class="{css}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>',
    )


def scroll_box(label: str, content: str) -> str:
    """Return a region that scrolls sideways, and that the keyboard can reach to do so."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">\n'
        f"{content}\n</div>\n"
    )


def _cell(cell: Scalar | Cell) -> str:
    if isinstance(cell, Cell):
        return cell.html
    return text(number(cell))


def outcome_mark(outcome: str) -> str:
    """Return the outcome of a prediction as a mark; its word says it without its colour."""
    word = OUTCOME_WORDS[outcome]
    return f'<span class="outcome {word}">{word}</span>'


def outcome_counts(feature: Feature) -> str:
    """Return how a feature's predictions fared, such as "1 missed · 3 held"."""
    counts = []
    for outcome, word in OUTCOME_WORDS.items():
        if feature.outcomes[outcome]:
            counts.append(f'<span class="outcome {word}">{feature.outcomes[outcome]} {word}</span>')
    return " ".join(counts) or "no prediction"


def provenance(feature: Feature) -> str:
    """Return the line that says which run a page shows."""
    receipt = feature.receipt
    if receipt == NONE:
        receipt = "none (run by hand)"
    return (
        f"{text(feature.id)}: receipt <code>{text(receipt)}</code>, "
        f"run {text(feature.date)} on {text(feature.machine)}"
    )


def whole_page(
    sources: Sources, *, name: str, title: str, main: str, shown: Sequence[Feature]
) -> str:
    """Return a page of the site.

    name: its file; main: its content; shown: the features whose receipts its footer names.
    """
    return shell(
        sources, name=name, title=title, main=main, footer=footer(shown), style=site_style()
    )


def site_style() -> str:
    """Return the style of the site's pages."""
    return read_file("site.css")


def read_file(name: str) -> str:
    """Return the text of a file beside this one."""
    return resources.files("lab.synthesis.site").joinpath(name).read_text("utf-8")


def footer(shown: Sequence[Feature]) -> str:
    """Return which runs a page shows: in the open for one, folded for many."""
    lines = [provenance(feature) for feature in shown]
    if len(lines) == 1:
        return f"<p>{lines[0]}</p>\n"
    return f"<details><summary>Made from {len(lines)} results</summary>\n{items(lines)}</details>\n"


def shell(
    sources: Sources,
    *,
    name: str,
    title: str,
    main: str,
    footer: str,
    style: str,
    program: str = "",
) -> str:
    """Return a whole page with the site's header and footer."""
    banner = ""
    if sources.is_sample:
        banner = f'<p class="assurance"><strong>{SAMPLE_ASSURANCE}</strong></p>\n'
    body = page_frame.fill(
        read_file("shell.html"),
        {
            "banner": banner,
            "project": text(sources.project),
            "links": _navigation(sources, name),
            "main": main,
            "footer": footer,
        },
    )
    return page_frame.render(
        title=f"{title} · {sources.project}", style=style, body=body, program=program, images=True
    )


def _navigation(sources: Sources, name: str) -> str:
    pages = [
        ("index.html", "Findings"),
        ("predictions.html", "Predictions"),
        ("questions.html", "Questions"),
        ("concepts.html", "Concepts"),
        ("explorer.html", "Explorer"),
    ]
    links = ""
    for href, label in pages:
        current = ' aria-current="page"' if href == name else ""
        links += f'<li><a href="{href}"{current}>{label}</a></li>\n'
    for feature in sources.features:
        if feature.page:
            label = feature.page.removesuffix(".html").replace("_", " ").capitalize()
            links += f"<li>{link(feature.page, label)}</li>\n"
    return links
