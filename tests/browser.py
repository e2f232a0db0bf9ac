"""The browser that tests of pages drive: headless Chromium, one for a session."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a running Chromium; fail, do not skip, where it is missing."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        msg = f"{CHROMIUM} does not exist; install the browser of these tests: make browser"
        raise AssertionError(msg)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Visit:
    """A page opened: what it logs, and every request that it makes.

    address: of the page; ready: what is there once it has drawn itself; own: what the addresses of
    its own files begin with, by default the page itself.
    """

    def __init__(
        self, browser: Any, address: str, *, ready: str, own: str = "", **options: Any
    ) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.own = own or address
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(ready, state="attached")

    def close(self) -> None:
        """Close it; the page must have logged nothing and asked for nothing but its own files."""
        self.context.close()
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith(self.own)] == []


def serious_violations(page: Any) -> list[str]:
    """Return what axe-core finds of serious or critical impact: rule, count, first element."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for violation in Axe().run(page).response["violations"]:
        if violation["impact"] in ("serious", "critical"):
            nodes = violation["nodes"]
            found.append(f"{violation['id']}, {len(nodes)} times, such as {nodes[0]['html'][:120]}")
    return found
