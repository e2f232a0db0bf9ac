"""Pages of the site read back: their frame, what they say, and where they lead."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

from gates.shared import outputs
from gates.shared.stored import cached

SITE = "artifacts/site"
BODY = "<body>\n"
# The digests of what lab/present and lab/synthesis/site put around the content; a test keeps them.
STYLE_SHA256 = "7b07e5f5260707b21a42d857308ffc2496696bdaaf55a95e755378c0f71016eb"
EXPLORER_STYLE_SHA256 = "6b65380319c713890013220785a6683edf708951ecec694f35186d66bba15b4a"
PROGRAM_SHA256 = "22c5bafb50f1f8f30f8954eee6fd8a3af3125b90f78761970a83b76c41a80361"

FRAME = re.compile(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="(?P<policy>[^"]*)">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n<title>(?P<title>[^<]*)</title>\n'
    "<style>(?P<style>[^<]*)</style>\n</head>\n<body>\n(?P<body>.*)</body>\n</html>\n",
    re.DOTALL,
)
DATA = re.compile(r'<script type="application/json" id="data">([^<]*)</script>')
PROGRAM = re.compile(r"<script>(.*?)</script>", re.DOTALL)
WORD = re.compile(r"-?\d[\d.,]*\d(?:e[-+]?\d+)?|-?\d|[^\W\d_]+")
TAGS = frozenset(
    [
        "a",
        "article",
        "blockquote",
        "br",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "fieldset",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "img",
        "input",
        "label",
        "legend",
        "li",
        "main",
        "nav",
        "noscript",
        "ol",
        "p",
        "pre",
        "s",
        "script",
        "section",
        "small",
        "span",
        "strong",
        "summary",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
ATTRIBUTES = frozenset(
    [
        "alt",
        "aria-current",
        "aria-label",
        "aria-labelledby",
        "checked",
        "class",
        "data-cell",
        "height",
        "hidden",
        "href",
        "id",
        "name",
        "role",
        "scope",
        "src",
        "start",
        "tabindex",
        "title",
        "type",
        "width",
    ]
)
OUTCOMES = frozenset({"missed", "held", "inconclusive"})  # classes that colour and filter
HIDING = frozenset({"hidden", "unseen"})  # as attribute or class: on the explorer alone


def words(text: str) -> list[str]:
    """Return the words and numbers of a text: all of it but punctuation and spaces."""
    return WORD.findall(text)


def files() -> list[str]:
    """Return the paths below the site of all its files."""
    site = outputs.out() / SITE
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())


def source(name: str) -> str:
    """Return the HTML of a page."""
    return (outputs.out() / SITE / name).read_text("utf-8")


def read(name: str) -> dict[str, Any]:
    """Return a page's title, words, links, images, ids, and what is wrong with its frame."""

    def compute() -> dict[str, Any]:
        return _read(name, source(name))

    return dict(cached(f"site page {name}", [f"{SITE}/{name}"], compute))


def targets(name: str) -> dict[str, list[str]]:
    """Return links, images and ids of any page, a stored one too."""

    def compute() -> dict[str, list[str]]:
        reader = _Reader()
        reader.feed(source(name))
        return {"links": reader.links, "images": reader.images, "ids": reader.ids}

    return dict(cached(f"site targets {name}", [f"{SITE}/{name}"], compute))


def _read(name: str, text: str) -> dict[str, Any]:
    match = FRAME.fullmatch(text)
    if match is None:
        return {"problems": ["its frame is not that of the lab"], "title": "", "words": []}

    # 1. Style and programs are those of the lab, and the policy allows nothing else.
    problems: list[str] = []
    is_explorer = name == "explorer.html" and DATA.search(text) is not None
    style = outputs.sha256(match["style"].encode())
    if style != (EXPLORER_STYLE_SHA256 if is_explorer else STYLE_SHA256):
        problems.append("its style is not that of the lab")
    programs = PROGRAM.findall(match["body"])
    digests = [outputs.sha256(program.encode()) for program in programs]
    if digests != ([PROGRAM_SHA256] if is_explorer else []):
        problems.append("its programs are not those of the lab")
    if match["policy"] != _policy(match["style"], programs):
        problems.append(f"its content-security policy is {match['policy']!r}")

    # 2. Only elements and attributes that show text, pictures and links.
    reader = _Reader()
    reader.feed(match["body"])
    if not reader.tags <= TAGS:
        problems.append(f"it has elements {sorted(reader.tags - TAGS)}")
    if not reader.attributes <= ATTRIBUTES:
        problems.append(f"it has attributes {sorted(reader.attributes - ATTRIBUTES)}")
    scripts = len(programs) + (1 if is_explorer else 0)
    if text.count("<script") != scripts:
        problems.append(f"it has other scripts than the {scripts} of the lab")
    if reader.miscoloured:
        problems.append(f"outcomes have other classes than words: {reader.miscoloured[:3]}")
    if reader.hides and not is_explorer:
        problems.append("it hides something")
    return {
        "problems": problems,
        "title": html.unescape(match["title"]),
        "words": words(" ".join(reader.pieces)),
        "current": reader.current,
    }


def _policy(style: str, programs: Iterable[str]) -> str:
    parts = ["default-src 'none'", "img-src 'self'", f"style-src '{_source_hash(style)}'"]
    parts += [f"script-src '{_source_hash(program)}'" for program in programs]
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _source_hash(text: str) -> str:
    digest = bytes.fromhex(outputs.sha256(text.encode()))
    return f"sha256-{base64.b64encode(digest).decode()}"


class _Reader(HTMLParser):
    """Collects what a page shows (texts, and what pictures are called) and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.current: list[str] = []
        self.hides = False
        self.miscoloured: list[str] = []  # marks whose class is not their word
        self._mark = ""  # the class of the mark that is open
        self._entry = ""  # the class of the entry that its mark must have too
        self._inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.add(tag)
        self.attributes |= set(values)
        self.hides |= bool(HIDING & (set(values) | set(values.get("class", "").split())))
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values.get("href", ""))
        if tag == "img":
            self.images.append(values.get("src", ""))
            self.pieces.append(values.get("alt", ""))
        if "aria-current" in values:
            self.current.append(values.get("href", ""))
        if tag in ("script", "style"):
            self._inside.append(tag)
        classes = set(values.get("class", "").split()) & OUTCOMES
        if classes and tag == "li":
            self._entry = classes.pop()
        elif classes:
            self._mark = classes.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._mark:
            if self._mark not in data or self._entry not in ("", self._mark):
                self.miscoloured.append(f"{self._mark}: {data}")
            self._mark = self._entry = ""
        if not self._inside:
            self.pieces.append(data)
