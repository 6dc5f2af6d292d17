"""The main job: submitted, stored, scripted, run by Slurm on two Horovod ranks, and seen while it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from support.lockstep import EXAMPLES, Lockstep, client, spool

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def digits(lockstep: Lockstep) -> dict[str, Any]:
    """The digits example, submitted and watched to its end by the command line."""
    done = lockstep.run("submit", EXAMPLES / "digits.toml", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "samples/s" in done.stderr
    assert "loss" in done.stderr
    newest: dict[str, Any] = lockstep.json("ls")[0]
    return lockstep.job(newest["id"])


def test_it_ends_well_and_learns(digits: dict[str, Any]) -> None:
    assert digits["phase"] == "ended well"
    assert digits["state"] == "COMPLETED"
    assert digits["last"]["accuracy"] >= 0.97
    assert digits["last"]["loss"] < 0.2
    assert digits["last"]["samples_per_s"] > 0
    assert digits["last"]["step"] == digits["last"]["steps"]
    assert isinstance(digits["slurm_job_id"], int)
    (attempt,) = digits["attempts"]
    assert (attempt["number"], attempt["exit_code"], attempt["restart_count"]) == (1, 0, 0)
    assert attempt["slurm_job_id"] == digits["slurm_job_id"]
    assert len(set(attempt["nodes"])) == 2


def test_both_ranks_end_with_the_same_parameters_and_cpus_of_their_own(digits: dict[str, Any]) -> None:
    records = spool(Path(digits["run_dir"]))
    ends = [record for record in records if record["kind"] == "end"]
    assert sorted(record["rank"] for record in ends) == [0, 1]
    assert len({record["values"]["parameters_sha256"] for record in ends}) == 1
    starts = [record for record in records if record["kind"] == "start"]
    masks = [frozenset(record["values"]["compute_cpus"]) for record in starts]
    assert len(masks) == 2
    assert not masks[0] & masks[1]
    verdicts = {(record["rank"], record["values"]["when"]): record for record in records if record["kind"] == "verdict"}
    assert verdicts.keys() == {(rank, when) for rank in range(2) for when in ("init", "steps")}
    assert {record["values"]["result"] for record in verdicts.values()} == {"as planned"}, verdicts


def test_every_rank_is_seen_not_only_the_first(lockstep: Lockstep, digits: dict[str, Any]) -> None:
    with client(lockstep) as api:
        metrics = api.get(f"/jobs/{digits['id']}/metrics").json()
    assert sorted(row["rank"] for row in metrics["by_rank"]) == [0, 1]
    by_name = {series["name"]: series for series in metrics["series"]}
    assert {"loss", "samples_per_s", "accuracy", "exposed_s", "waiting_s", "communication_s"} <= set(by_name)
    assert by_name["samples_per_s"]["aggregate"] == "sum"
    losses = [value for value in by_name["loss"]["value"] if value is not None]
    assert losses[-1] < losses[0] / 5


def test_ls_lists_newest_first_with_slurms_own_word(lockstep: Lockstep, digits: dict[str, Any]) -> None:
    listed = lockstep.json("ls")
    assert [job["id"] for job in listed] == sorted((job["id"] for job in listed), reverse=True)
    assert {"id", "state", "phase"} <= set(listed[0])
    assert "ended well" in lockstep.run("ls").stdout
    assert digits["id"] in lockstep.run("show", "digits").stdout


def test_its_timeline_tells_the_whole_story_once(lockstep: Lockstep, digits: dict[str, Any]) -> None:
    happened = lockstep.json("show", digits["id"])["timeline"]
    told = [entry["kind"] for entry in happened if entry["kind"] not in {"waiting", "remark"}]
    assert told == ["stored", "dispatched", "started", "attempt", "verdict", "exit", "ended well"], happened
    assert happened[1]["text"] == f"Slurm took it as job {digits['slurm_job_id']}."
    assert {entry["time"] for entry in happened if entry["kind"] == "ended well"} == {digits["ended_at"]}
    assert "all 2 ranks" in next(entry["text"] for entry in happened if entry["kind"] == "verdict")


def test_a_browser_shows_it_live_and_afterwards(lockstep: Lockstep, digits: dict[str, Any], chromium: Path) -> None:
    url = json.loads((lockstep.home / "service.json").read_text())["url"]
    live = lockstep.submit("name=live")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(lockstep.link())
        expect(page.get_by_test_id("job-row").first).to_contain_text("live", timeout=20_000)
        assert "code" not in page.url
        page.get_by_test_id("job-row").first.get_by_role("link").first.click()
        expect(page.get_by_test_id("phase-badge").first).to_contain_text("running", timeout=60_000)
        chart = page.get_by_test_id("chart-throughput")
        expect(chart.locator("canvas").first).to_be_visible(timeout=60_000)
        expect(chart).not_to_have_attribute("data-points", chart.get_attribute("data-points") or "", timeout=20_000)
        expect(page.get_by_test_id("phase-badge").first).to_contain_text("running", timeout=1000)
        expect(page.get_by_test_id("chart-loss").locator("canvas").first).to_be_visible(timeout=60_000)
        expect(page.get_by_test_id("phase-badge").first).to_contain_text("ended well", timeout=120_000)
        page.goto(f"{url}/jobs/{digits['id']}")
        expect(page.get_by_test_id("phase-badge").first).to_contain_text("ended well", timeout=20_000)
        page.get_by_test_id("tab-script").click()
        expect(page.get_by_test_id("script")).to_contain_text("#SBATCH --job-name=digits", timeout=20_000)
        page.get_by_test_id("tab-log").click()
        expect(page.get_by_test_id("log")).to_contain_text("lockstep", timeout=20_000)
        browser.close()
    assert problems == []
    assert lockstep.job(live)["phase"] == "ended well"


def test_a_job_can_be_cancelled_while_it_runs(lockstep: Lockstep) -> None:
    job = lockstep.submit("training.epochs=10000", "name=endless")
    lockstep.until(job, {"running"})
    assert lockstep.run("cancel", job).returncode == 0
    ended = lockstep.until(job, {"ended badly"})
    assert ended["state"] == "CANCELLED"
    assert ended["reason"]
    assert lockstep.run("watch", job).returncode == 1


def test_a_users_own_script_reports_like_a_recipe(lockstep: Lockstep) -> None:
    code, drawn = lockstep.run_in_terminal("submit", EXAMPLES / "custom" / "custom.toml", "--watch")
    assert code == 0, drawn
    assert "━" in drawn, "a person sees a progress bar"
    assert "samples/s" in drawn
    assert "loss" in drawn
    ended = lockstep.job(lockstep.json("ls")[0]["id"])
    assert ended["phase"] == "ended well", lockstep.run("logs", ended["id"]).stdout
    assert ended["last"]["loss"] is not None
    assert ended["last"]["samples_per_s"] > 0
