"""A service that runs jobs on this machine, and a real Chromium: one of each for the tests of a file."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

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
