"""Pages in a real browser without a network: Debian's chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LABS = ROOT / "labs"


def plotly() -> str:
    """Return the charts library."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


@dataclass
class Watched:
    """A page, and what it should not do: complain, or ask for anything but itself."""

    page: Page
    complaints: list[str] = field(default_factory=list[str])
    requests: list[str] = field(default_factory=list[str])

    def open(self, path: Path) -> Page:
        """Open a file and wait until the page says it is ready."""
        self.page.on(
            "console",
            lambda said: (
                self.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.resolve().as_uri())
        self.page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
        return self.page

    def quiet(self) -> None:
        """Fail if the page complained or asked for something that is not in it."""
        assert self.complaints == []
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert outside == []


# Not for the session: Playwright holds an event loop in this thread, and other tests run their own.
@pytest.fixture(scope="package")
def chromium() -> Generator[Browser]:
    """Return the distribution's Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def watched(chromium: Browser, request: pytest.FixtureRequest) -> Generator[Watched]:
    """Return a page in a browser that is offline; its parameters are those of a context."""
    options = {"viewport": {"width": 1280, "height": 900}, **getattr(request, "param", {})}
    context = chromium.new_context(offline=True, **options)
    yield Watched(context.new_page())
    context.close()
