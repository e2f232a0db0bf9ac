"""Reading concept documents line by line, for the gates that judge them."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass
class Page:
    """A document as this gate reads it; `lines` leave out code blocks and code spans."""

    name: str
    source: str
    title: str = ""
    sections: dict[str, list[str]] = field(default_factory=dict)
    headings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def read(name: str, source: str) -> Page:
    """Read a document line by line."""
    page, fence, section = Page(name, source), "", ""
    for line in source.split("\n"):
        if fence or line.startswith(("```", "~~~")):
            fence = "" if fence and line.rstrip() == fence else fence or line[:3]
            continue
        plain = " ".join(line.split("`")[::2]) if line.count("`") % 2 == 0 else line
        page.lines.append(plain)
        marks, _, text = plain.partition(" ")
        if marks and set(marks) == {"#"} and text.strip():
            page.headings.append(text.strip())
            if marks == "#" and not page.title:
                page.title = text.strip()
            if marks == "##":
                section = text.strip()
                page.sections[section] = []
        if section and marks != "##":
            page.sections[section].append(plain)
    return page


def is_published_report(data: bytes) -> bool:
    """Say whether a file is a whole report: its last line ends with the digest of all before it."""
    start = data.rfind(b"\n", 0, -1) + 1
    last = data[start:].decode("utf-8", "replace").split()
    stated = (
        last[4]
        if last[:2] == ["<!--", "result.json"] and len(last) == 6 and last[3] == "body"
        else ""
    )
    return stated == f"sha256:{hashlib.sha256(data[:start]).hexdigest()}"


def links(page: Page) -> list[str]:
    """Give the targets of links."""
    return [
        target for line in page.lines for target in re.findall(r"\[[^\[\]]*\]\(([^()\s]+)\)", line)
    ]


def sources(page: Page) -> dict[str, str]:
    """Give key -> text of the list of sources."""
    items = [
        line[3:].partition("] ")
        for line in page.sections.get("Sources", [])
        if line.startswith("- [")
    ]
    return {key: text for key, mark, text in items if mark and key}


def citations(page: Page) -> list[str]:
    """Give the keys cited before the list of sources."""
    before = itertools.takewhile(lambda line: line.split() != ["##", "Sources"], page.lines)
    text = "\n".join(before)
    return [key for key, after in re.findall(r"\[([A-Z][A-Za-z0-9-]*)\](\(?)", text) if not after]


def placeholders(page: Page) -> list[tuple[str, str]]:
    """Give (feature, measurement) of each placeholder."""
    inside = [
        piece.split("}}")[0]
        for line in page.lines
        for piece in line.split("{{")[1:]
        if "}}" in piece
    ]
    return [(feature, name) for feature, _, name in (text.rpartition(".") for text in inside)]


def fillings(page: Page, rendered: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Give (placeholder, text that took its place) of a rendered document.

    It must differ from its source in nothing else.
    """
    places = placeholders(page)
    mask = "|".join(re.escape("{{" + ".".join(place) + "}}") for place in set(places))
    pieces = re.split(mask, page.source) if mask else [page.source]
    shown = re.fullmatch("(.*?)".join(map(re.escape, pieces)), rendered, re.DOTALL)
    assert shown, f"the rendered {page.name} differs from its source in more than the placeholders"
    yield from zip(places, shown.groups(), strict=True)


def shows(text: str, value: Any) -> bool:
    """Say whether a text begins with a value, to at least three significant digits."""
    if value is None or isinstance(value, bool):
        return text.startswith("not measured" if value is None else "yes" if value else "no")
    if isinstance(value, str):
        return text.startswith(value)
    number = NUMBER.match(text)
    return number is not None and abs(float(number[0].replace(",", "")) - value) <= 5.1e-3 * abs(
        value
    )
