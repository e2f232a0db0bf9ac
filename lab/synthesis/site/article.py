"""Markdown to HTML: reports and concept documents, with their pictures, links and numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from lab.synthesis.site.markup import text
from lab.synthesis.site.measured import FigureFile

PLACEHOLDER = re.compile(r"\{\{([A-Za-z0-9][A-Za-z0-9._-]*)\.([a-z][a-z0-9_]*)\}\}")
FOLDED = ("Tables", "All measurements", "Environment")  # sections that a reader opens
# (feature, measurement) -> HTML in the place of a placeholder
Fill = Callable[[str, str], str]


def render_article(
    source: str,
    *,
    figures: Mapping[str, FigureFile],
    links: Mapping[str, str],
    fill: Fill | None = None,
) -> str:
    """Return the HTML of a Markdown text.

    figures: name -> file in the site; links: target in the text -> target in the site (https
    addresses and headings of the text itself stay); fill: of placeholders outside of code.
    """
    reader = _reader()
    tokens = reader.parse(_without_comments(source))
    _name_headings(tokens)
    renderer: Any = reader.renderer
    rules = _Rules(figures, links, fill)
    renderer.rules |= {
        "table_open": rules.table_open,
        "table_close": rules.table_close,
        "image": rules.image,
        "link_open": rules.link_open,
        "text": rules.text,
    }
    return str(renderer.render(tokens, reader.options, {}))


def placeholders(source: str) -> list[tuple[str, str]]:
    """Return (feature, measurement) of each placeholder outside of code, in order."""
    names: list[tuple[str, str]] = []
    for token in _reader().parse(_without_comments(source)):
        for child in token.children or ():
            if child.type == "text":
                names += PLACEHOLDER.findall(child.content)
    return names


def fold_sections(article: str) -> str:
    """Return a report's HTML in which the sections that few readers need are folded.

    Printed, they are open (site.css).
    """
    pieces = re.split(r"(?=<h2)", article)
    folded = pieces[0]
    for piece in pieces[1:]:
        heading, _, rest = piece.partition("</h2>")
        title = heading.partition(">")[2]
        if title in FOLDED:
            folded += f"<details><summary>{heading}</h2></summary>{rest}</details>\n"
        else:
            folded += piece
    return folded


def _reader() -> MarkdownIt:
    """Return a reader of CommonMark with GitHub's tables; HTML in a text is shown as text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _without_comments(source: str) -> str:
    """Return a text without HTML comments, which are notes for its writers."""
    return re.sub(r"<!--.*?-->\n?", "", source, flags=re.DOTALL)


def _name_headings(tokens: Sequence[Token]) -> None:
    """Give each heading the id that a link within the text names, as GitHub makes it."""
    for token, content in itertools.pairwise(tokens):
        if token.type == "heading_open":
            words = re.sub(r"[^\w\- ]", "", content.content.lower())
            token.attrSet("id", words.replace(" ", "-"))


class _Rules:
    """Render rules: (tokens, index, options, environment) -> HTML of one token."""

    def __init__(
        self, figures: Mapping[str, FigureFile], links: Mapping[str, str], fill: Fill | None
    ) -> None:
        self.figures = figures
        self.links = links
        self.fill = fill
        self.tables = 0

    def table_open(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        self.tables += 1
        label = f"Table {self.tables}"
        return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n<table>\n'

    def table_close(self, *_: Any) -> str:
        return "</table>\n</div>\n"

    def image(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        token = tokens[index]
        name = str(token.attrs["src"]).rpartition("/")[2].rpartition(".")[0]
        figure = self.figures[name]
        return (
            f'<img src="{text(figure.target)}" alt="{text(token.content)}" '
            f'width="{figure.width}" height="{figure.height}">'
        )

    def link_open(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        target, mark, part = str(tokens[index].attrs["href"]).partition("#")
        return f'<a href="{text(self.links.get(target, target) + mark + part)}">'

    def text(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        content = tokens[index].content
        if self.fill is None:
            return text(content)
        # Every other piece between placeholders: text, feature, measurement, text, …
        pieces = PLACEHOLDER.split(content)
        filled = text(pieces[0])
        for i in range(1, len(pieces), 3):
            filled += self.fill(pieces[i], pieces[i + 1]) + text(pieces[i + 2])
        return filled
