"""Reading concept documents line by line, for the gates that judge them."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
SLOT = re.compile(r"\{([^}]*)\}")
LINK = re.compile(r"\[[^\[\]]*\]\(([^()\s]+)\)")
CITATION = re.compile(r"\[([A-Z][A-Za-z0-9-]*)\](\(?)")
PRECISION = 5.1e-3  # relative; three significant digits, with room for their rounding
# What people read in place of bytes and long times: unit -> larger unit -> how many it is.
LARGER_UNITS = {"bytes": {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}, "s": {"min": 60}}


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
    """Return a document, read line by line."""
    page = Page(name, source)
    section = ""
    for line in _lines_outside_fences(source):
        # Every other piece between backticks is code; an unpaired backtick is a character.
        text = line
        if line.count("`") % 2 == 0:
            text = " ".join(line.split("`")[::2])
        page.lines.append(text)

        marks, _, heading = text.partition(" ")
        heading = heading.strip()
        if marks and set(marks) == {"#"} and heading:
            page.headings.append(heading)
            if marks == "#" and not page.title:
                page.title = heading
            if marks == "##":
                section = heading
                page.sections[section] = []
        if section and marks != "##":
            page.sections[section].append(text)
    return page


def _lines_outside_fences(source: str) -> Iterator[str]:
    """Yield the lines outside code blocks; a block that is never closed runs to the end."""
    fence = ""  # the three characters that close the open block
    for line in source.split("\n"):
        if fence:
            if line.rstrip() == fence:
                fence = ""
        elif line.startswith(("```", "~~~")):
            fence = line[:3]
        else:
            yield line


def is_published_report(data: bytes) -> bool:
    """Return whether a file is a whole report: its last line ends with the digest of the rest."""
    start = data.rfind(b"\n", 0, -1) + 1
    words = data[start:].decode("utf-8", "replace").split()
    # <!-- result.json sha256:… body sha256:… -->
    if len(words) != 6 or words[:2] != ["<!--", "result.json"] or words[3] != "body":
        return False
    return words[4] == f"sha256:{hashlib.sha256(data[:start]).hexdigest()}"


def links(page: Page) -> list[str]:
    """Return the targets of links."""
    targets = []
    for line in page.lines:
        targets += LINK.findall(line)
    return targets


def sources(page: Page) -> dict[str, str]:
    """Return key -> text of the list of sources."""
    texts = {}
    for line in page.sections.get("Sources", []):
        if line.startswith("- ["):
            key, mark, text = line[3:].partition("] ")
            if mark and key:
                texts[key] = text
    return texts


def citations(page: Page) -> list[str]:
    """Return the keys cited before the list of sources; a key with a link behind it is none."""
    before = itertools.takewhile(lambda line: line.split() != ["##", "Sources"], page.lines)
    matches = CITATION.findall("\n".join(before))
    return [key for key, bracket in matches if not bracket]


def placeholders(page: Page) -> list[tuple[str, str]]:
    """Return (feature, measurement) of each placeholder."""
    names = []
    for line in page.lines:
        for piece in line.split("{{")[1:]:
            if "}}" in piece:
                feature, _, name = piece.split("}}")[0].rpartition(".")
                names.append((feature, name))
    return names


def fillings(page: Page, rendered: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield (placeholder, text that took its place) of a rendered document.

    It must differ from its source in nothing else.
    """
    names = placeholders(page)
    marks = {"{{" + ".".join(name) + "}}" for name in names}
    pieces = [page.source]
    if marks:
        pieces = re.split("|".join(map(re.escape, marks)), page.source)
    match = re.fullmatch("(.*?)".join(map(re.escape, pieces)), rendered, re.DOTALL)
    assert match, f"the rendered {page.name} differs from its source in more than the placeholders"
    yield from zip(names, match.groups(), strict=True)


def filled(template: str, text: str) -> list[tuple[str, str]] | None:
    """Return (slot, what stands in its place) of each {slot}; None if another word differs."""
    pieces = SLOT.split(template)  # words, slot, words, …
    match = re.fullmatch("(.+?)".join(map(re.escape, pieces[::2])), text)
    return None if match is None else list(zip(pieces[1::2], match.groups(), strict=True))


def measured_values(report: str) -> dict[str, str]:
    """Return name -> value of the table of all measurements, the last one of a report."""
    values = {}
    for line in report.partition("## All measurements")[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) >= 2:
            values[cells[0].strip("`")] = cells[1]
    return values


def stated_numbers(text: str) -> list[float]:
    """Return the numbers of a sentence, in order."""
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def written(value: float | None, digits: int = 3) -> str:
    """Return a number to `digits` significant digits, a count whole.

    2.22 · 1.00e-05 · 2,499 · 0 · not measured.
    """
    if value is None:
        return "not measured"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e6:
        return f"{value:.{digits - 1}e}"
    if size < 1:
        return f"{value:#.{digits}g}"
    return f"{value:,.{max(0, digits - len(str(int(size))))}f}"


def agree(actual: str, expected: str) -> bool:
    """Return whether two texts have the same words, and numbers that differ by their rounding."""
    if NUMBER.sub("#", actual) != NUMBER.sub("#", expected):
        return False
    pairs = zip(stated_numbers(actual), stated_numbers(expected), strict=True)
    return all(abs(a - b) <= PRECISION * abs(b) for a, b in pairs)


def shows(text: str, value: Any, unit: str = "") -> bool:
    """Return whether a text begins with a value, to at least three significant digits.

    The text may state a value of `unit` in one of the larger units that LARGER_UNITS lists for it.
    """
    if value is None:
        return text.startswith("not measured")
    if isinstance(value, bool):
        return text.startswith("yes" if value else "no")
    if isinstance(value, str):
        return text.startswith(value)
    number = NUMBER.match(text)
    if number is None:
        return False
    stated = float(number[0].replace(",", ""))
    for larger, size in LARGER_UNITS.get(unit, {}).items():
        if re.match(rf"(?: ± \S+)? {larger}\b", text[number.end() :]):
            stated *= size
    return bool(abs(stated - value) <= PRECISION * abs(value))
