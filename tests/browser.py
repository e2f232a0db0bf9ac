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
    """A page opened from a file: what it logs, and every request that leaves the file."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#resolution:not(:empty)")

    def close(self) -> None:
        """Close it; the page must have logged nothing and asked for nothing but itself."""
        own = self.page.url
        self.context.close()
        assert self.problems == []
        assert self.requests == [own]
