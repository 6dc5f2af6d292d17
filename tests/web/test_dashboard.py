"""The dashboard in a real Chromium, over a real service and a real training without Slurm."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from support.lockstep import Lockstep

DIST = Path(__file__).parents[2] / "web" / "dist"
ONE_RANK = ("resources.nodes=1", "training.model=digits-mlp")
TRAINING_MS = 90_000


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


def address(service: Lockstep, path: str = "/", *, token: bool = True) -> str:
    url = json.loads((service.home / "service.json").read_text())["url"] + path
    return f"{url}#token={service.token}" if token else url


def test_nobody_gets_in_without_the_token(service: Lockstep, page: Page) -> None:
    page.goto(address(service, token=False))
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    expect(page.get_by_test_id("sign-in")).to_contain_text("lockstep token")
    page.get_by_label("Token").fill("not-the-token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.get_by_label("Token").fill(service.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("sign-in")).to_be_visible()


def test_a_training_from_the_empty_list_to_its_end(service: Lockstep, page: Page) -> None:
    page.goto(address(service))
    expect(page.get_by_test_id("empty")).to_contain_text("lockstep submit examples/digits.toml --watch")
    assert service.token not in page.url
    assert service.token not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")

    job = service.submit(*ONE_RANK, "training.epochs=12")
    row = page.locator(f"[data-testid=job-row][data-job-id='{job}']")
    expect(row).to_be_visible()
    row.get_by_role("link", name="digits").click()

    shown = page.get_by_test_id("job")
    expect(shown).to_have_attribute("data-complete", "true", timeout=TRAINING_MS)
    expect(shown.get_by_test_id("phase-badge")).to_have_text("ended well")
    expect(shown.get_by_test_id("slurm-state")).to_have_text("COMPLETED")
    last = service.job(job)["last"]
    expect(page.get_by_test_id("figure-step")).to_have_attribute("data-step", str(last["steps"]))
    expect(page.get_by_test_id("figure-accuracy")).to_contain_text(f"{last['accuracy']:.1%}"[:-1])
    # The curves of every step are there without the page having been loaded again.
    for chart in ("throughput", "loss"):
        points = page.get_by_test_id(f"chart-{chart}")
        expect(points).to_have_attribute("data-points", re.compile(r"^[1-9]\d{2,}$"))
        assert points.locator("canvas").evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
        ), f"nothing is drawn in the {chart} chart"
    expect(page.get_by_test_id("rank-row")).to_have_count(1)

    page.get_by_test_id("tab-log").click()
    expect(page.get_by_test_id("log")).to_contain_text("epoch 12")
    page.get_by_test_id("tab-script").click()
    expect(page.get_by_test_id("script")).to_contain_text("#SBATCH --nodes=1")
    page.get_by_test_id("tab-attempts").click()
    expect(page.get_by_test_id("attempt-row")).to_contain_text("exit code 0")
    page.get_by_test_id("tab-spec").click()
    expect(page.get_by_test_id("spec")).to_contain_text("digits-mlp")


@pytest.fixture
def long_job(service: Lockstep) -> Iterator[str]:
    """A training that would go on for minutes; it is ended with the test."""
    job = service.submit(*ONE_RANK, "training.epochs=5000")
    yield job
    service.run("cancel", job)


def test_the_service_goes_away_and_comes_back(service: Lockstep, page: Page, long_job: str) -> None:
    page.goto(address(service, f"/jobs/{long_job}"))
    step = page.get_by_test_id("figure-step")
    expect(step).to_be_visible(timeout=TRAINING_MS)

    service.kill()
    connection = page.get_by_test_id("connection")
    expect(connection).to_have_attribute("data-connection", "lost", timeout=20_000)
    expect(page.get_by_test_id("banner-lost")).to_be_visible()
    before = int(step.get_attribute("data-step") or 0)
    service.start("local")
    expect(connection).to_have_attribute("data-connection", "live", timeout=30_000)
    expect(page.get_by_test_id("banner-lost")).to_be_hidden()
    page.wait_for_function(
        "before => Number(document.querySelector('[data-testid=figure-step]').dataset.step) > before",
        arg=before,
        timeout=30_000,
    )


def test_a_job_is_cancelled_only_after_a_question(service: Lockstep, page: Page, long_job: str) -> None:
    page.goto(address(service, f"/jobs/{long_job}"))
    page.get_by_test_id("cancel").click()
    page.get_by_role("button", name="Keep it running").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert service.job(long_job)["phase"] in {"accepted", "waiting", "running"}

    page.get_by_test_id("cancel").click()
    page.get_by_test_id("cancel-confirm").click()
    expect(page.get_by_test_id("banner-ended-badly")).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("phase-badge")).to_have_text("ended badly")
    expect(page.get_by_test_id("cancel")).to_be_hidden()


def test_a_job_that_is_not_there(service: Lockstep, page: Page) -> None:
    page.goto(address(service, "/jobs/019aaf3e-0000-7000-8000-000000000000"))
    expect(page.get_by_test_id("error")).to_contain_text("019aaf3e-0000-7000-8000-000000000000")
    page.get_by_test_id("error").get_by_role("link", name="All jobs").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    page.goto(address(service, "/no/such/page", token=False))
    expect(page.get_by_test_id("not-found")).to_be_visible()
