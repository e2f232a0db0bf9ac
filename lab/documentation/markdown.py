"""Reading a concept document: its sections, links, citations, sources and placeholders.

The Markdown is read as CommonMark by markdown-it-py. GitHub's tables are no part of it: their rows
are read as a paragraph, whose links and placeholders count like all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline, backtick, image
from markdown_it.token import Token

from lab.digests import sha256

CITATION = re.compile(r"\[([A-Z][A-Za-z0-9-]*)\](?!\()")
SOURCE = re.compile(r" {0,3}- +\[([A-Z][A-Za-z0-9-]*)\] (.+)")
PLACEHOLDER = re.compile(r"\{\{([A-Za-z0-9][A-Za-z0-9._-]*)\.([a-z][a-z0-9_]*)\}\}")
ADDRESS = re.compile(r"https://[^\s)]+\.[^\s)]+")
SOURCES = "Sources"  # the section that lists them
SEAL = re.compile(r"<!-- result\.json sha256:[0-9a-f]{64} body sha256:([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class Placeholder:
    """A {{FEATURE.measurement}} of a document, which is `source[start:end]`."""

    feature: str
    measurement: str
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """A Markdown document, and what is in it in order.

    prose: the source with code blanked out, of the same length; title: the first heading of level
    1, or an empty text; headings: the text of every heading; sections: title -> prose below each
    heading of level 2; links: the targets of all links and images; citations: the keys cited as
    [Key] before the section Sources; sources: key -> text of the list `- [Key] …` in that section.
    """

    name: str
    source: str
    prose: str
    title: str
    headings: tuple[str, ...]
    sections: dict[str, str]
    links: tuple[str, ...]
    citations: tuple[str, ...]
    sources: dict[str, str]
    placeholders: tuple[Placeholder, ...]

    @property
    def words(self) -> int:
        """The number of parts between whitespace of the whole source."""
        return len(self.source.split())

    def fill(self, text_of: Callable[[str, str], str]) -> str:
        """Return the source with each placeholder replaced by `text_of(feature, measurement)`."""
        parts = []
        end = 0  # of the last placeholder
        for placeholder in self.placeholders:
            parts.append(self.source[end : placeholder.start])
            parts.append(text_of(placeholder.feature, placeholder.measurement))
            end = placeholder.end
        return "".join(parts) + self.source[end:]


#### from text to tokens


@dataclass(frozen=True)
class PlacedToken:
    """A token, and the source indices of its characters: of a block, of all its lines.

    A token within a line has them only if it is a code span, an image or a placeholder.
    """

    token: Token
    indices: Sequence[int]

    @property
    def begins_section(self) -> bool:
        """Whether it is a heading of level 2 that is not within a list or a quotation."""
        return self.token.type == "heading_open" and (self.token.tag, self.token.level) == ("h2", 0)


class _Reader(MarkdownIt):
    """A CommonMark reader that leaves link targets as they are written.

    Tokens of code spans, images and placeholders state where they begin and end in their block.
    """

    def __init__(self) -> None:
        super().__init__("commonmark")
        # An escaped bracket stays a token of its own: \[Key] is no citation.
        self.disable("text_join")
        self.inline.ruler.at("backticks", _with_span(backtick))
        self.inline.ruler.at("image", _with_span(image))
        self.inline.ruler.push("placeholder", _with_span(_read_placeholder))

    def normalizeLink(self, url: str) -> str:  # noqa: N802 - markdown-it's name
        return url

    def validateLink(self, url: str) -> bool:  # noqa: N802 - markdown-it's name
        return True


Rule = Callable[[StateInline, bool], bool]


def _with_span(rule: Rule) -> Rule:
    """Return an inline rule that also notes its token's span in the block's text."""

    def rule_with_span(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's
        start = state.pos
        count = len(state.tokens)
        matched = rule(state, silent)
        # A backtick that closes nothing matches as well: it is text and adds no token.
        if len(state.tokens) > count:
            state.tokens[-1].meta["span"] = (start, state.pos)
        return matched

    return rule_with_span


def _read_placeholder(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - markdown-it's
    """Read {{FEATURE.measurement}} as one token; in code and HTML, other rules come first."""
    match = PLACEHOLDER.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("placeholder", "", 0).content = match[0]
    state.pos = match.end()
    return True


def _source_indices(content: str, source: str, start: int) -> list[int]:
    """Return the index in the source of each character of a block's text.

    The block begins at `start`. Its text lacks what precedes its lines in the source: indents,
    and the marks of lists, quotations and headings.
    """
    indices: list[int] = []
    for line in content.split("\n"):
        indent = len(line) - len(line.lstrip())
        start = source.index(line.strip(), start)
        indices += range(start - indent, start - indent + len(line) + 1)  # 1: the line break
        start += len(line.strip())
    return indices


def _placed_tokens(source: str) -> Iterator[PlacedToken]:
    """Yield the tokens of a text in order; a heading's token also holds its text."""
    line_starts = [0]
    for line in source.split("\n"):
        line_starts.append(line_starts[-1] + len(line) + 1)
    line_starts[-1] = len(source)  # the last line has no line break

    blocks = _Reader().parse(source)
    for position, block in enumerate(blocks):
        if block.map is None:  # the end of a block
            continue
        if block.type == "heading_open":
            block.content = blocks[position + 1].content
        start = line_starts[block.map[0]]
        end = line_starts[block.map[1]]
        yield PlacedToken(block, range(start, end))
        if block.type == "inline":
            yield from _placed_children(block, _source_indices(block.content, source, start))


def _placed_children(token: Token, indices: Sequence[int]) -> Iterator[PlacedToken]:
    for child in token.children or []:
        start, end = child.meta.get("span", (0, 0))
        yield PlacedToken(child, indices[start:end])
        if child.type == "image":
            # The text between ![ and ] was read by itself.
            yield from _placed_children(child, indices[start + 2 : end])


#### from tokens to a document


def parse(name: str, source: str) -> Document:
    """Read a document whose lines end in LF, as those of `Path.read_text` do."""
    # markdown-it reads NUL as U+FFFD; replaced here, it leaves every index as it is.
    tokens = list(_placed_tokens(source.replace("\0", "\ufffd")))
    headings = [placed.token for placed in tokens if placed.token.type == "heading_open"]
    titles = [heading.content for heading in headings if (heading.tag, heading.level) == ("h1", 0)]
    prose = _without_code(source, tokens)
    return Document(
        name=name,
        source=source,
        prose=prose,
        title=next(iter(titles), ""),
        headings=tuple(heading.content for heading in headings),
        sections=_sections(tokens, prose),
        links=tuple(_links(tokens)),
        citations=tuple(_citations(tokens)),
        sources=_sources(tokens, prose),
        placeholders=tuple(_placeholders(tokens)),
    )


def _without_code(source: str, tokens: Sequence[PlacedToken]) -> str:
    """Return the source with every character of code but the line breaks as a space."""
    characters = list(source)
    for placed in tokens:
        if placed.token.type in {"fence", "code_block", "code_inline"}:
            for i in placed.indices:
                characters[i] = "\n" if characters[i] == "\n" else " "
    return "".join(characters)


def _sections(tokens: Sequence[PlacedToken], prose: str) -> dict[str, str]:
    marks = [placed for placed in tokens if placed.begins_section]
    ends = [*(mark.indices[0] for mark in marks), len(prose)][1:]
    sections = {}
    for mark, end in zip(marks, ends, strict=True):
        sections[mark.token.content] = prose[mark.indices[-1] + 1 : end]
    return sections


def _links(tokens: Sequence[PlacedToken]) -> Iterator[str]:
    for placed in tokens:
        if placed.token.type in {"link_open", "image"}:
            target = placed.token.attrGet("href") or placed.token.attrGet("src")
            yield str(target or "")


def _citations(tokens: Sequence[PlacedToken]) -> Iterator[str]:
    for placed in tokens:
        if placed.begins_section and placed.token.content == SOURCES:
            return
        if placed.token.type == "text":
            yield from CITATION.findall(placed.token.content)


def _sources(tokens: Sequence[PlacedToken], prose: str) -> dict[str, str]:
    sources: dict[str, str] = {}
    section = ""
    for placed in tokens:
        token = placed.token
        if placed.begins_section:
            section = token.content
            if section == SOURCES:  # of two, the last counts, as in `sections`
                sources = {}
        # level 1: an item of a list that is in no other block
        is_item = token.type == "list_item_open" and (token.markup, token.level) == ("-", 1)
        if section == SOURCES and is_item:
            match = SOURCE.match(prose, placed.indices[0])
            if match:
                sources[match[1]] = match[2]
    return sources


def _placeholders(tokens: Sequence[PlacedToken]) -> Iterator[Placeholder]:
    for placed in tokens:
        match = PLACEHOLDER.fullmatch(placed.token.content)
        if placed.token.type == "placeholder" and match:
            yield Placeholder(match[1], match[2], placed.indices[0], placed.indices[-1] + 1)


#### what is wrong with a document


def is_report(source: str) -> bool:
    """Return whether a text is a whole report: its last line names the digest of all above it.

    A report that was edited is none. It is judged like any other document, and fails.
    """
    seal = SEAL.search(source)
    return seal is not None and seal[1] == sha256(source[: seal.start()].encode())


def anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading: lower case, no punctuation, spaces to hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def find_problems(
    document: Document,
    template: Document,
    *,
    names: set[str],
    is_measured: Callable[[str, str], bool],
    words_per_section: int,
) -> Iterator[str]:
    """Yield a sentence for each way in which a document breaks the template.

    `names` are the documents that a link may lead to; `is_measured(feature, measurement)` returns
    whether a placeholder can be filled.
    """
    yield from _problems_of_structure(document, template, words_per_section)
    yield from _problems_of_links(document, names)
    yield from _problems_of_sources(document)
    for placeholder in document.placeholders:
        if not is_measured(placeholder.feature, placeholder.measurement):
            text = document.source[placeholder.start : placeholder.end]
            yield f"{text} names nothing that was measured"


def _problems_of_structure(
    document: Document, template: Document, words_per_section: int
) -> Iterator[str]:
    actual = list(document.sections)
    expected = list(template.sections)
    if actual != expected:
        yield f"sections are {actual}; expected {expected}"
    if not document.title:
        yield "there is no title (a heading of level 1)"
    if "<!--" in document.prose:
        yield "an instruction of the template (<!-- … -->) was left in"
    for title, text in document.sections.items():
        words = len(text.split())
        if words < words_per_section:
            yield f"section {title!r} has {words} words; expected at least {words_per_section}"


def _problems_of_links(document: Document, names: set[str]) -> Iterator[str]:
    anchors = {f"#{anchor(heading)}" for heading in document.headings}
    for target in document.links:
        if not (ADDRESS.fullmatch(target) or target in names or target in anchors):
            yield (
                f"link {target!r} leads nowhere; expected https://…, another concept document or "
                "a heading"
            )


def _problems_of_sources(document: Document) -> Iterator[str]:
    for key in sorted(set(document.citations) - set(document.sources)):
        yield f"[{key}] is cited and not among the sources"
    for key, text in document.sources.items():
        if key not in document.citations:
            yield f"source [{key}] is never cited"
        if not ADDRESS.search(text):
            yield f"source [{key}] has no address (https://…)"
    if not document.sources:
        yield "there is no source"
