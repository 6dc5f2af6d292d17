"""The dashboard in a real Chromium while its connection, its session or its tab is not as one would wish."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from support.browsing import address
from support.lockstep import Lockstep
from support.placements import RunOnNodes, machine


def test_a_link_in_the_open_tab_lets_in_and_a_failed_sign_out_says_so(service: Lockstep, page: Page) -> None:
    page.goto(address(service, link=False))
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    # To put a link into the address bar of the page that it leads to changes the fragment, and loads nothing.
    put, code = "code => { location.hash = code }", service.link().partition("#")[2]
    page.evaluate(put, code)
    jobs = page.get_by_role("heading", name="Jobs", exact=True)
    expect(jobs).to_be_visible()
    assert "code" not in page.url

    page.route("**/session", lambda route: route.abort() if route.request.method == "DELETE" else route.continue_())
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("alert")).to_contain_text("You are still signed in.")
    expect(jobs).to_be_visible()
    page.unroute("**/session")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    page.evaluate(put, code)
    expect(page.get_by_role("alert")).to_contain_text("This link was used already")


def test_a_slow_connection_cuts_nothing_off_and_what_is_old_says_so(
    service: Lockstep, page: Page, tmp_path: Path
) -> None:
    run = RunOnNodes(tmp_path / "runs", machine(), nodes=1)

    def train(step: int, loss: float | str = 0.5) -> None:
        with (run.run / "logs" / "job-1.log").open("a") as log:
            log.write(f"step {step}\n")
        for rank in (0, 1):
            run.tell(rank, "step", {"loss": loss}, step=step)

    train(1)
    service.run("import", run.run)
    page.goto(address(service, f"/jobs/{run.run.name}"))
    step = page.get_by_test_id("figure-step")
    expect(step).to_have_attribute("data-step", "1", timeout=30_000)
    asked: list[Route] = []

    def hold_the_first(route: Route) -> None:
        asked.append(route)
        if len(asked) > 1:
            route.continue_()

    page.route("**/logs?*", hold_the_first)
    page.get_by_test_id("tab-log").click()
    # The word of a step comes just before that of the log that grew with it: with the third, two of the log are there.
    for number in (2, 3, 4):
        train(number)
        expect(step).to_have_attribute("data-step", str(number), timeout=30_000)
    assert len(asked) == 1, "a log that grew cut off the request that was on its way"
    asked[0].continue_()
    expect(page.get_by_test_id("log")).to_have_text("step 1 step 2 step 3 step 4")

    page.get_by_test_id("tab-overview").click()
    train(5, "NaN")
    drawn = page.get_by_test_id("chart-loss").get_by_role("img")
    expect(drawn).to_have_attribute("aria-label", "Loss: training not a number now", timeout=30_000)
    busy = json.dumps({"title": "The database is busy", "detail": "Ask again.", "status": 503})
    page.route("**/metrics?*", lambda route: route.fulfill(status=503, body=busy))
    train(6)
    note = page.get_by_test_id("stale-note")
    expect(note).to_contain_text("The curves could not be read again since", timeout=30_000)
    expect(note).to_contain_text("The database is busy")
    page.unroute("**/metrics?*")
    train(7)
    expect(note).to_be_hidden(timeout=30_000)
    run.end(1)
    page.get_by_test_id("banner-ended-badly").get_by_role("link", name="Read its log").click()
    expect(page.get_by_test_id("log")).to_contain_text("step 7")
    expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=60_000)


SHOW = """shown => {
    Object.defineProperty(document, "hidden", {configurable: true, value: !shown});
    Object.defineProperty(document, "visibilityState", {configurable: true, value: shown ? "visible" : "hidden"});
    document.dispatchEvent(new Event("visibilitychange", {bubbles: true}));
}"""


def test_a_tab_in_the_background_keeps_a_true_title(service: Lockstep, page: Page, tmp_path: Path) -> None:
    run = RunOnNodes(tmp_path / "runs", machine(), nodes=1)
    for rank in (0, 1):
        run.tell(rank, "start", {"node": "node1", "steps": 9})
        run.tell(rank, "step", {"loss": 0.5}, step=3)
    service.run("import", run.run)
    page.clock.install()
    page.goto(address(service, f"/jobs/{run.run.name}"))
    expect(page).to_have_title(re.compile("^33"), timeout=30_000)
    page.evaluate(SHOW, False)
    page.clock.fast_forward(61_000)
    connection = page.get_by_test_id("connection")
    expect(connection).to_have_text("Paused")
    run.end(1)
    service.until(run.run.name, {"ended badly"})
    page.clock.fast_forward(61_000)
    expect(page).to_have_title(re.compile("^ended badly"), timeout=30_000)
    # Until the stream has answered, nothing is said of what it will bring.
    page.route("**/events", lambda _route: None)
    page.evaluate(SHOW, True)
    expect(connection).to_have_text("Connecting…")
