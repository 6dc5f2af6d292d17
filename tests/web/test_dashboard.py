"""The dashboard in a real Chromium, over a real service and a real training without Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support.browsing import address
from support.lockstep import Lockstep
from support.placements import RunOnNodes, machine
from support.waiting import spec_file

DIST = Path(__file__).parents[2] / "web" / "dist"
ONE_RANK = ("resources.nodes=1", "training.model=digits-mlp")
TRAINING_MS = 90_000


def test_nobody_gets_in_without_the_token(service: Lockstep, page: Page) -> None:
    page.goto(address(service, link=False))
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    expect(page.get_by_test_id("sign-in")).to_contain_text("lockstep open")
    page.get_by_label("Token").fill("not-the-token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).not_to_be_empty()
    page.get_by_label("Token").fill(service.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("sign-in")).to_be_visible()


def test_a_training_from_the_empty_list_to_its_end(service: Lockstep, page: Page) -> None:
    page.goto(address(service))
    expect(page.get_by_test_id("empty")).to_contain_text("lockstep submit examples/digits.toml --watch")
    assert "code" not in page.url
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
    page.get_by_test_id("tab-timeline").click()
    expect(page.get_by_test_id("timeline-entry").last).to_contain_text("It ended well.")
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


def test_what_happens_to_a_job_comes_by_itself(service: Lockstep, page: Page, long_job: str) -> None:
    page.goto(address(service, f"/jobs/{long_job}?tab=timeline"))
    entries = page.get_by_test_id("timeline-entry")
    expect(entries.first).to_contain_text("It was stored.")
    expect(page.locator("[data-kind=attempt]")).to_contain_text("Attempt 1 began with 1 rank", timeout=TRAINING_MS)
    service.run("cancel", long_job)
    end = page.locator("[data-testid=timeline-entry][data-kind='ended badly']")
    expect(end).to_contain_text("It ended badly: it was cancelled on request.", timeout=60_000)
    expect(page.locator("[data-kind=asked]").first).to_contain_text("Its owner asked for its end.")
    expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=60_000)
    happened = service.json("show", long_job)["timeline"]
    expect(entries.locator(".said")).to_have_text([entry["text"] for entry in happened])
    with page.expect_navigation():
        page.reload()
    expect(entries).to_have_count(len(happened))


@pytest.fixture
def endless_job(service: Lockstep) -> Iterator[str]:
    """A job of the standard library alone that has the only slot; it is ended with the test."""
    job = service.submit(example=str(spec_file(service.home, Path("/nowhere/ever"))))
    yield job
    service.run("cancel", job)


def test_a_job_is_held_released_requeued_and_run_again(service: Lockstep, page: Page, endless_job: str) -> None:
    behind = service.submit(example=str(spec_file(service.home, DIST)))
    page.goto(address(service, f"/jobs/{behind}"))
    page.get_by_test_id("hold").click()
    expect(page.get_by_test_id("release")).to_be_visible(timeout=TRAINING_MS)
    expect(page.get_by_test_id("slurm-state")).to_have_text("PENDING", timeout=TRAINING_MS)
    assert service.job(behind)["held"]

    # The only slot is another job's, which the requeue ends and starts again.
    page.goto(address(service, f"/jobs/{endless_job}"))
    page.get_by_test_id("requeue").click(timeout=TRAINING_MS)
    page.get_by_role("button", name="Keep it running").click()
    page.get_by_test_id("requeue").click()
    page.get_by_test_id("requeue-confirm").click()
    page.get_by_test_id("tab-attempts").click()
    expect(page.get_by_test_id("attempt-row")).to_have_count(2, timeout=TRAINING_MS)
    service.run("cancel", endless_job)
    expect(page.get_by_test_id("rerun")).to_be_visible(timeout=TRAINING_MS)

    page.goto(address(service, f"/jobs/{behind}"))
    page.get_by_test_id("release").click()
    expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=TRAINING_MS)
    page.get_by_test_id("rerun").click()
    again = page.get_by_test_id("job")
    expect(again).not_to_have_attribute("data-job-id", behind)
    expect(page.locator(".facts")).to_contain_text("Run again from")
    expect(again).to_have_attribute("data-complete", "true", timeout=TRAINING_MS)
    assert service.job(str(again.get_attribute("data-job-id")))["rerun_of"] == behind
    page.locator(".facts").get_by_role("link", name=behind[-12:]).click()
    expect(page.get_by_test_id("job")).to_have_attribute("data-job-id", behind)


def test_a_verdict_comes_by_itself_and_names_the_thread_that_is_elsewhere(
    service: Lockstep, page: Page, tmp_path: Path
) -> None:
    run = RunOnNodes(tmp_path / "runs", machine(sockets=2, numa_per_socket=4, l3_per_numa=2, cores_per_l3=8))
    run.tell_plan(0)
    service.run("import", run.run)
    page.goto(address(service, f"/jobs/{run.run.name}"))
    page.get_by_test_id("tab-placement").click()
    expect(page.get_by_test_id("cpu")).to_have_count(256)
    expect(page.get_by_test_id("verdict-words")).to_contain_text("no rank has said yet")
    run.tell_plan(1, grant=["Slurm bound nothing on this node: its TaskPlugin is without affinity"])
    for rank in (0, 1, 2):
        run.tell_verdict(rank)
    expect(page.get_by_test_id("verdict-words")).to_contain_text("3 of 4 ranks have said", timeout=30_000)
    # CPU 127 is where the second rank of each node keeps its Horovod thread.
    (sentence,) = run.tell_verdict(3, moved={"horovod": (4, 5)}).deviations
    expect(page.locator(".job-head").get_by_test_id("verdict")).to_have_text("deviates", timeout=30_000)
    expect(page.get_by_test_id("sentence")).to_have_count(2)
    expect(page.get_by_test_id("sentence").first).to_contain_text(f"node2, rank 3{sentence}")
    expect(page.get_by_test_id("sentence").last).to_contain_text("TaskPlugin is without affinity")

    marks = page.get_by_test_id("node-mark")
    expect(marks.nth(0)).to_have_attribute("data-result", "as planned")
    expect(marks.nth(1)).to_have_attribute("data-result", "deviates")
    marks.nth(0).click()
    expect(page.locator("[data-testid=cpu][data-deviates=true]")).to_have_count(0)
    marks.nth(1).click()
    expect(page.locator("[data-testid=core-map]")).to_have_attribute("data-node", "node2")
    expect(page.locator("[data-testid=cpu][data-deviates=true]")).to_have_count(2)
    page.locator("[data-cpu='127']").hover()
    expect(page.get_by_test_id("cpu-details")).to_contain_text(re.compile("Horovod.s background thread"))
    page.locator("[data-cpu='5']").focus()
    expect(page.get_by_test_id("cpu-details")).to_contain_text("planned CPU 127, allowed CPUs 4,5, last ran on CPU 4")
    expect(page.get_by_test_id("cpu-details")).to_contain_text(sentence)
    page.get_by_test_id("threads").click()
    expect(page.get_by_test_id("thread-row").first).to_contain_text(sentence)
    widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1], "the page scrolls sideways on a laptop"
    page.get_by_test_id("tab-overview").click()
    expect(page.get_by_test_id("banner-deviates")).to_contain_text("1 of 4 ranks")
    run.end()
    expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=60_000)


def test_where_a_steps_time_goes_comes_by_itself_and_names_the_slowest_rank(
    service: Lockstep, page: Page, tmp_path: Path
) -> None:
    run = RunOnNodes(tmp_path / "runs", machine())
    for rank in range(4):
        run.tell(rank, "start", {"node": run.nodes[rank // 2], "steps": 9})
    service.run("import", run.run)
    page.goto(address(service, f"/jobs/{run.run.name}"))
    expect(page.get_by_test_id("no-metrics")).to_be_visible()
    expect(page.get_by_test_id("step-time")).to_have_count(0)
    run.tell(0, "step", {"seconds": 0.2}, step=1)
    shown = page.get_by_test_id("step-time")
    expect(shown).to_contain_text("It is only told how long a step takes", timeout=30_000)
    expect(shown).to_contain_text("Told by 1 of 4 ranks.")
    expect(shown.get_by_test_id("step-part")).to_have_count(1)

    run.tell(0, "tuning", {"piece_bytes": 1 << 20, "credit": 2, "transport": "horovod"})
    for rank in range(4):
        slow = 1.5 if rank == 3 else 1.0
        computing = {"forward_s": 0.04 * slow, "backward_s": 0.05 * slow, "optimizer_s": 0.005 * slow, "data_s": 0.005}
        exposed = {"exposed_s": 0.02 if rank == 3 else 0.07, "waiting_s": 0.0 if rank == 3 else 0.05}
        for step in (2, 3):
            run.tell(rank, "step", computing | exposed | {"seconds": 0.2}, step=step)
    said = (
        "Rank 3 on node2 is slowest: it computes 48 % longer than the median rank; the others wait 50 ms a step for it."
    )
    expect(page.get_by_test_id("step-sentence")).to_have_text(said, timeout=30_000)
    expect(shown).to_contain_text("Gradients go in pieces of at most 1 MiB, 2 under way at once, over horovod.")
    bars = shown.get_by_test_id("step-bar")
    expect(bars).to_have_count(5)
    expect(bars.nth(4)).to_have_attribute("aria-label", re.compile("^rank 3 on node2, 200 ms a step: Forward pass 60"))
    # Median rank first: 40 ms, 50, 5, 5, 20 of transfer, 50 of waiting, the rest, of 200 ms.
    assert drawn_widths(page, 0) == pytest.approx([0.2, 0.25, 0.025, 0.025, 0.1, 0.25, 0.15], abs=0.004)
    assert drawn_widths(page, 4) == pytest.approx([0.3, 0.375, 0.0375, 0.025, 0.1, 0.1625], abs=0.004)
    row = shown.locator("[data-testid=part-row][data-part=waiting]")
    expect(row.get_by_role("cell")).to_have_text(["50.0 ms", re.compile("25.0"), "0 s", "50.0 ms", "50.0 ms"])
    page.set_viewport_size({"width": 390, "height": 800})
    # Not sideways on a telephone, once the charts have been drawn anew in its width.
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    said_too = service.run("show", run.run.name).stdout
    assert f"{said}\n" in said_too
    assert re.search(r"exposed: slower rank +50 ms +25.0%  █{10}\n", said_too), said_too
    run.end()
    expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=60_000)


def test_a_job_that_went_on_is_one_line_and_tells_of_its_checkpoints(
    service: Lockstep, page: Page, tmp_path: Path
) -> None:
    run = RunOnNodes(tmp_path / "runs", machine(), nodes=1)

    def train(first: int, last: int) -> None:
        for step in range(first, last + 1):
            for rank in (0, 1):
                run.tell(rank, "step", {"loss": 2.5 / (1 + step / 20), "samples_per_s": 1000.0 + step % 7}, step=step)
            if step % 5 == 0:
                file = f"step-{step:09}-attempt-{run.attempt}.lockstep"
                run.tell(0, "checkpoint", {"bytes": 3 << 20, "seconds": 0.4, "held_s": 0.01, "path": file}, step=step)

    copying = {"node": "node1", "folder": "/tmp", "total_bytes": 4 << 30, "files": 3}
    run.tell(0, "staging", copying | {"copied_bytes": 1 << 30, "seconds": 9})
    service.run("import", run.run)
    page.goto(address(service, f"/jobs/{run.run.name}"))
    expect(page.get_by_test_id("global-batch")).to_have_text("64 = 2 ranks \N{MULTIPLICATION SIGN} 32")
    data = page.get_by_test_id("data")
    expect(data).to_contain_text("node1 copies the data to /tmp: 1 GiB of 4 GiB after 9 s.", timeout=30_000)
    expect(data.get_by_role("progressbar")).to_be_visible()
    run.tell(0, "staging", copying | {"copied_bytes": 4 << 30, "seconds": 30})
    run.tell(0, "data", {"data": "tokens", "path": "/data", "train": 9000, "held_out": 500, "classes": 4000})
    train(1, 38)
    loss, note = page.get_by_test_id("chart-loss"), page.get_by_test_id("chart-note")
    expect(loss).to_have_attribute("data-points", "38", timeout=30_000)
    expect(data).to_contain_text("Trains on 9,000 samples of tokens in /data and is evaluated on 500")
    expect(data.get_by_role("progressbar")).to_have_count(0)

    run.begin()
    run.tell(0, "resume", {"saved_by": 1, "ranks": 2}, step=35)
    train(36, 60)
    expect(loss).to_have_attribute("data-points", "60", timeout=30_000)
    expect(note).to_contain_text("3 steps of 2 attempts had to be done again, and are drawn as done last.")
    page.get_by_role("button", name="By attempt").click()
    expect(loss).to_have_attribute("data-points", "63")
    page.get_by_role("button", name="One line").click()
    expect(loss).to_have_attribute("data-points", "60")
    page.get_by_test_id("tab-timeline").click()
    saves = page.locator("[data-testid=timeline-entry][data-kind=checkpoint]")
    expect(saves).to_have_count(2, timeout=30_000)
    expect(saves.last).to_contain_text("Attempt 2 saved 5 checkpoints behind steps 40 to 60, the newest of them as ")
    expect(page.locator("[data-kind='goes on']")).to_contain_text("goes on from the checkpoint of step 35")
    expect(page.locator("[data-kind=exit]")).to_contain_text("Attempt 1 ended with exit code 85: told to stop.")
    page.get_by_test_id("tab-attempts").click()
    expect(page.get_by_test_id("attempt-row").last).to_contain_text("went on from step 35; 3 steps to do again")
    run.end()
    expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=60_000)


def drawn_widths(page: Page, bar: int) -> list[float]:
    """How wide the parts of a bar are on the screen, as shares of the room for bars."""
    shares: list[float] = (
        page.get_by_test_id("step-bar")
        .nth(bar)
        .evaluate(
            """bar => {
                const width = (one) => one.getBoundingClientRect().width;
                return [...bar.children].map((part) => width(part) / width(bar));
            }"""
        )
    )
    return shares


def test_a_job_that_is_not_there(service: Lockstep, page: Page) -> None:
    page.goto(address(service, "/jobs/019aaf3e-0000-7000-8000-000000000000"))
    expect(page.get_by_test_id("error")).to_contain_text("019aaf3e-0000-7000-8000-000000000000")
    page.get_by_test_id("error").get_by_role("link", name="All jobs").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    page.goto(address(service, "/no/such/page", link=False))
    expect(page.get_by_test_id("not-found")).to_be_visible()
