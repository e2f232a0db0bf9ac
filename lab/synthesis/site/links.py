"""The links of a page that lead to files of the site."""

from __future__ import annotations

from html.parser import HTMLParser


def internal_links(name: str, page: str) -> list[str]:
    """Return the targets of links and images of a page within the site, those to itself too.

    A target is a path below the site, with its fragment; `#part` is of the page `name` itself.
    """
    reader = _Reader()
    reader.feed(page)
    links = []
    for target in reader.targets:
        if target.startswith("#"):
            links.append(name + target)
        elif ":" not in target:
            links.append(target)
    return links


class _Reader(HTMLParser):
    """Collects href of links and src of images."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"a": "href", "img": "src"}.get(tag)
        self.targets += [value for key, value in attrs if key == wanted and value]
