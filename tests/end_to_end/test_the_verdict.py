"""Where the threads of a real job really sit: on its page within seconds of Horovod's start, and in the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from support.lockstep import Lockstep, client

CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
SECONDS = 5.0
"""From the return of the last rank's ``hvd.init()`` to the verdict on an open page."""
SCRIPT = """
import pathlib, time
import torch
import horovod.torch as hvd

hvd.init()
print(f"hvd.init() returned at {time.time():.3f}", flush=True)
seen = pathlib.Path(__file__).with_name("seen")
ends = time.monotonic() + 120
while not hvd.allreduce(torch.tensor(float(seen.exists())), name="seen") and time.monotonic() < ends:
    time.sleep(0.2)
hvd.shutdown()
"""
SPEC = """
name = "verdict"
[training]
script = "script.py"
[resources]
nodes = 2
time = "0:10:00"
[placement]
ranks_per_node = 1
"""
# Notes, by the clock that the ranks have too, when the page first shows a verdict of the job.
WATCH = """
() => {
  const look = () => {
    const found = document.querySelector(".job-head [data-testid=verdict]");
    if (found && found.dataset.verdict && !window.verdictSeenAt) window.verdictSeenAt = Date.now() / 1000;
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
  look();
}
"""


def test_a_jobs_page_shows_its_verdict_within_seconds_of_horovods_start(
    lockstep: Lockstep, tmp_path: Path, chromium: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "job.toml").write_text(SPEC)
    url = json.loads((lockstep.home / "service.json").read_text())["url"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        page.goto(lockstep.link())
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible(timeout=30_000)
        job = lockstep.submit(example=str(tmp_path / "job.toml"))
        page.goto(f"{url}/jobs/{job}")
        expect(page.get_by_test_id("job")).to_be_visible(timeout=30_000)
        page.evaluate(WATCH)
        page.wait_for_function("() => window.verdictSeenAt !== undefined", timeout=120_000)
        seen_at = float(page.evaluate("window.verdictSeenAt"))
        with client(lockstep) as api:
            placement = api.get(f"/jobs/{job}/placement").json()
        page.get_by_test_id("tab-placement").click()
        expect(page.get_by_test_id("node-mark")).to_have_count(2)
        expect(page.get_by_test_id("core-map")).to_be_visible()
        expect(page.get_by_test_id("verdict").last).to_have_attribute("data-verdict", placement["result"])
        browser.close()
    (tmp_path / "seen").touch()
    assert lockstep.until(job, {"ended well", "ended badly"})["phase"] == "ended well"

    log = lockstep.run("logs", job).stdout
    returned = [float(found) for found in re.findall(r"hvd.init\(\) returned at ([0-9.]+)", log)]
    assert len(returned) == 2, log
    assert seen_at - max(returned) < SECONDS, f"{seen_at - max(returned):.2f} s after hvd.init()"

    assert placement["result"] in {"as planned", "degraded"}, placement
    ranks = [rank for node in placement["nodes"] for rank in node["ranks"]]
    assert [rank["rank"] for rank in ranks] == [0, 1]
    for rank in ranks:
        roles = {thread["role"] for thread in rank["verdict"]["threads"]}
        assert {"main", "horovod"} <= roles

    assert f"{placement['result']}: 2 of 2 ranks" in lockstep.run("show", job).stdout
