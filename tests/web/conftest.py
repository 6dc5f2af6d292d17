"""A service that runs jobs on this machine, and a real Chromium: one of each for the tests of a file."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from support.lockstep import Lockstep

DIST = Path(__file__).parents[2] / "web" / "dist"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A service that runs jobs on this machine."""
    assert (DIST / "index.html").is_file(), (
        "web/dist is missing; run: npm --prefix web ci && npm --prefix web run build"
    )
    ours = Lockstep(tmp_path_factory.mktemp("home"), None)
    ours.start("local")
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=str(chromium), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield opened
        opened.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of: errors of scripts, and what the Content-Security-Policy refused."""
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page of a browser that has never been here."""

    def note(message: ConsoleMessage) -> None:
        # A refused request is an answer that the page shows; everything else is a fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", note)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert complaints == []
