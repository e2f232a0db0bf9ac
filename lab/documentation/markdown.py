"""Reading a concept document: its sections, links, citations, sources and placeholders.

Pure functions of the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^(```|~~~).*?(?:^\1[^\S\n]*$|\Z)", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]+`")
HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
LINK = re.compile(r"\[([^\[\]\n]*)\]\(([^()\s]+)\)")
CITATION = re.compile(r"\[([A-Z][A-Za-z0-9-]*)\](?!\()")
SOURCE = re.compile(r"^- \[([A-Z][A-Za-z0-9-]*)\] (.+)$", re.MULTILINE)
PLACEHOLDER = re.compile(r"\{\{([A-Za-z0-9][A-Za-z0-9._-]*)\.([a-z][a-z0-9_]*)\}\}")
REFERENCE = re.compile(r"https://[^\s)]+\.[^\s)]+")
SEAL = re.compile(r"<!-- result\.json sha256:[0-9a-f]{64} body sha256:([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class Document:
    """A Markdown document: its name (file name), its source, and `prose`, with code blanked out.

    `prose` has the length of `source`, so that a place found in one is a place in the other.
    """

    name: str
    source: str
    prose: str

    @property
    def title(self) -> str:
        """Give the text of the first heading of level 1, or an empty text."""
        return next((m[2] for m in HEADING.finditer(self.prose) if m[1] == "#"), "")

    @property
    def sections(self) -> dict[str, str]:
        """Give title -> prose of each section (heading of level 2), in order."""
        heads = [m for m in HEADING.finditer(self.prose) if m[1] == "##"]
        ends = [*(m.start() for m in heads), len(self.prose)][1:]
        return {
            head[2]: self.prose[head.end() : end] for head, end in zip(heads, ends, strict=True)
        }

    @property
    def links(self) -> tuple[str, ...]:
        """Give the targets of all links and images, in order."""
        return tuple(m[2] for m in LINK.finditer(self.prose))

    @property
    def citations(self) -> tuple[str, ...]:
        """Give the keys cited as [Key] before the section Sources, in order."""
        end = next(
            (m.start() for m in HEADING.finditer(self.prose) if (m[1], m[2]) == ("##", "Sources")),
            None,
        )
        return tuple(m[1] for m in CITATION.finditer(self.prose[:end]))

    @property
    def sources(self) -> dict[str, str]:
        """Give key -> text of the list `- [Key] …` in the section Sources."""
        return {m[1]: m[2] for m in SOURCE.finditer(self.sections.get("Sources", ""))}

    @property
    def placeholders(self) -> tuple[tuple[str, str], ...]:
        """Give (feature, measurement) of each {{FEATURE.measurement}}, in order."""
        return tuple((m[1], m[2]) for m in PLACEHOLDER.finditer(self.prose))

    @property
    def words(self) -> int:
        """Give the number of parts between white space of the whole source."""
        return len(self.source.split())

    def filled(self, text_of: Callable[[str, str], str]) -> str:
        """Give the source with each placeholder replaced by `text_of(feature, measurement)`."""
        parts, place = [], 0
        for match in PLACEHOLDER.finditer(self.prose):
            parts += [self.source[place : match.start()], text_of(match[1], match[2])]
            place = match.end()
        return "".join(parts) + self.source[place:]


def parse(name: str, source: str) -> Document:
    """Read a document."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return Document(name, source, INLINE.sub(blank, FENCE.sub(blank, source)))


def is_report(source: str) -> bool:
    """Say whether a text is a report, whole: its last line names the digest of all above it.

    A report that was edited is none. It is then judged like any other document, and does
    not pass for one.
    """
    seal = SEAL.search(source)
    return (
        seal is not None and seal[1] == hashlib.sha256(source[: seal.start()].encode()).hexdigest()
    )


def anchor(heading: str) -> str:
    """Give GitHub's anchor of a heading: lower case, punctuation dropped, spaces to hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def problems(
    document: Document,
    template: Document,
    names: set[str],
    measured: Callable[[str, str], bool],
    words_per_section: int,
) -> Iterator[str]:
    """Give a sentence for each way in which a document breaks the template.

    `names` are the documents that a link may lead to; `measured(feature, measurement)` says whether
    a placeholder can be filled.
    """
    yield from _structure(document, template, words_per_section)
    yield from _references(document, names)
    for feature, measurement in document.placeholders:
        if not measured(feature, measurement):
            yield f"{{{{{feature}.{measurement}}}}} names nothing that was measured"


def _structure(document: Document, template: Document, words_per_section: int) -> Iterator[str]:
    wanted, found = list(template.sections), list(document.sections)
    if found != wanted:
        yield f"sections are {found}, wanted {wanted}"
    if not document.title:
        yield "there is no title (a heading of level 1)"
    if "<!--" in document.prose:
        yield "an instruction of the template (<!-- … -->) was left in"
    for title, text in document.sections.items():
        if len(text.split()) < words_per_section:
            yield (
                f"section {title!r} has {len(text.split())} words, wanted at least "
                f"{words_per_section}"
            )


def _references(document: Document, names: set[str]) -> Iterator[str]:
    anchors = {f"#{anchor(m[2])}" for m in HEADING.finditer(document.prose)}
    for target in document.links:
        if not (REFERENCE.fullmatch(target) or target in names or target in anchors):
            yield (
                f"link {target!r} leads nowhere (wanted https://…, another concept "
                "document or a heading)"
            )
    for key in sorted(set(document.citations) - set(document.sources)):
        yield f"[{key}] is cited and not among the sources"
    for key, text in document.sources.items():
        if key not in document.citations:
            yield f"source [{key}] is never cited"
        if not REFERENCE.search(text):
            yield f"source [{key}] has no address (https://…)"
    if not document.sources:
        yield "there is no source"
