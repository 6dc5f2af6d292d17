"""Scripts that have never heard of Lockstep, on two hosts: placed, logged, ended, and their speed seen from outside."""

from __future__ import annotations

import ast
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from lockstep_slurm.cluster import ClusterInfo
from support.lockstep import EXAMPLES, Json, Lockstep, client, spool

UNCHANGED = EXAMPLES / "unchanged"
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]


@pytest.fixture(scope="module")
def lockstep(hosts: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A Lockstep over two hosts."""
    ours = Lockstep(tmp_path_factory.mktemp("home"), hosts.slurm_conf)
    ours.start()
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


def trained(lockstep: Lockstep, example: str) -> Json:
    """The example, submitted and watched to its end."""
    job = lockstep.submit(example=f"unchanged/{example}.toml")
    ended = lockstep.until(job, {"ended well", "ended badly", "unknown"}, 180)
    assert ended["phase"] == "ended well", lockstep.run("logs", job).stdout
    return ended


@pytest.fixture(scope="module")
def horovod(lockstep: Lockstep) -> Json:
    return trained(lockstep, "horovod")


@pytest.fixture(scope="module")
def ddp(lockstep: Lockstep) -> Json:
    return trained(lockstep, "ddp")


@pytest.fixture(params=["horovod", "ddp"])
def job(request: pytest.FixtureRequest) -> Json:
    """Each of the two."""
    found: Json = request.getfixturevalue(request.param)
    return found


def printed(lockstep: Lockstep, job: Json, pattern: str) -> list[tuple[int, float]]:
    """(rank, figure) of each line of the log in which the pattern finds one, as ``srun --label`` tells the ranks."""
    lines = lockstep.run("logs", job["id"]).stdout.splitlines()
    found = [re.match(rf"\s*(\d+): .*?{pattern}", line) for line in lines]
    return [(int(one[1]), float(one[2])) for one in found if one]


@pytest.mark.parametrize("script", ["horovod_script.py", "ddp_script.py"])
def test_the_script_knows_nothing_of_lockstep(script: str) -> None:
    tree = ast.parse((UNCHANGED / script).read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert names
    assert not [name for name in names if "lockstep" in name]


def test_it_ran_on_two_hosts_each_rank_on_cpus_of_its_own_and_ended_with_a_record(job: Json) -> None:
    (attempt,) = job["attempts"]
    assert (attempt["exit_code"], attempt["exit_signal"]) == (0, None)
    assert len(set(attempt["nodes"])) == 2
    run = Path(job["run_dir"])
    assert (run / "exit" / "1.json").exists()
    planned = [json.loads(file.read_text()) for file in sorted(run.glob("placement/1/*.json"))]
    cpus = [set(rank["compute"]) for node in planned for rank in node["placement"]["ranks"]]
    assert len(cpus) == 2
    assert not cpus[0] & cpus[1]


def test_horovods_samples_per_second_are_what_its_first_rank_printed(lockstep: Lockstep, horovod: Json) -> None:
    figures = printed(lockstep, horovod, r"Iter #\d+: ([0-9.]+) img/sec per CPU")
    assert [rank for rank, _ in figures] == [0] * 20
    with client(lockstep) as api:
        metrics = api.get(f"/jobs/{horovod['id']}/metrics").json()
    (series,) = [one for one in metrics["series"] if one["name"] == "samples_per_s"]
    assert series["step"] == list(range(1, 21))
    assert series["value"] == [figure for _, figure in figures]
    assert series["ranks"] == 1
    mean = sum(figure for _, figure in figures) / 20
    first, second = metrics["by_rank"]
    assert first["samples_per_s"] == pytest.approx(mean)
    assert second["samples_per_s"] is None
    last = lockstep.job(horovod["id"])["last"]
    assert (last["samples_per_s"], last["samples_per_s_ranks"]) == (pytest.approx(mean), 1)
    assert "told by 1 of 2 ranks" in lockstep.run("show", horovod["id"]).stdout


def test_ddps_samples_per_second_are_the_sum_of_what_its_ranks_printed(lockstep: Lockstep, ddp: Json) -> None:
    figures = printed(lockstep, ddp, r"([0-9.]+) images/sec")
    with client(lockstep) as api:
        metrics = api.get(f"/jobs/{ddp['id']}/metrics").json()
    by_name = {one["name"]: one for one in metrics["series"]}
    rate, loss, accuracy = (by_name[name] for name in ("samples_per_s", "loss", "accuracy"))
    by_rank = [[figure for rank, figure in figures if rank == wanted] for wanted in (0, 1)]
    assert rate["value"] == pytest.approx([sum(pair) for pair in zip(*by_rank, strict=True)])
    assert (rate["ranks"], rate["step"]) == (2, loss["step"])
    assert loss["value"][-1] < loss["value"][0] / 2
    assert accuracy["value"][-1] > 0.9
    assert [round(row["samples_per_s"]) for row in metrics["by_rank"]] == [
        round(sum(newest[-20:]) / 20) for newest in by_rank
    ]
    last = lockstep.job(ddp["id"])["last"]
    assert last["samples_per_s_ranks"] == 2
    assert last["accuracy"] == accuracy["value"][-1]


def test_cpus_and_network_are_seen_from_outside(lockstep: Lockstep, job: Json) -> None:
    with client(lockstep) as api:
        metrics = api.get(f"/jobs/{job['id']}/metrics").json()
    usage = [record for record in spool(Path(job["run_dir"])) if record["kind"] == "usage"]
    newest = {record["rank"]: record["values"] for record in usage}
    assert {values["node"] for values in newest.values()} == set(job["nodes"])
    # Each host has one core for its rank and an interface of another name.
    assert all(0.02 < values["cpu_s"] / values["elapsed_s"] < 1.3 for values in newest.values())
    assert len({values["interface"] for values in newest.values()}) == 2
    assert all(min(values["received_bytes"], values["sent_bytes"]) > 100_000 for values in newest.values())
    by_name = {one["name"]: one for one in metrics["series"] if one["kind"] == "usage"}
    assert set(by_name) == {"cpus", "received_bytes_per_s", "sent_bytes_per_s"}
    assert by_name["cpus"]["ranks"] == 2
    shown = lockstep.run("show", job["id"]).stdout
    assert re.search(r"CPUs +[0-9.]+ in use per rank", shown)
    assert re.search(r"network +[0-9.]+ MB/s in, [0-9.]+ MB/s out per node", shown)


def test_a_browser_shows_it(lockstep: Lockstep, horovod: Json, ddp: Json, chromium: Path) -> None:
    url = json.loads((lockstep.home / "service.json").read_text())["url"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 1700})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(lockstep.link(horovod["id"]))
        expect(page.get_by_label("Key figures")).to_contain_text("Throughput, 1 of 2 ranks")
        expect(page.get_by_test_id("chart-throughput")).to_have_attribute("data-points", "20")
        page.goto(f"{url}/jobs/{ddp['id']}")
        steps = len([r for r in spool(Path(ddp["run_dir"])) if r["kind"] == "step" and r["rank"] == 0])
        for chart in ("throughput", "loss"):
            expect(page.get_by_test_id(f"chart-{chart}").locator("canvas")).to_be_visible()
        expect(page.get_by_test_id("chart-throughput")).to_have_attribute("data-points", str(steps))
        for chart in ("cpus", "network"):
            expect(page.get_by_test_id(f"chart-{chart}").locator("canvas")).to_be_visible()
        expect(page.get_by_test_id("figure-cpus")).to_contain_text("per rank")
        rows = page.get_by_test_id("rank-row")
        expect(rows).to_have_count(2)
        for row in rows.all():
            expect(row).to_contain_text(re.compile(r"[0-9.]+ [kMG]?B/s / [0-9.]+ [kMG]?B/s"))
        browser.close()
    assert problems == []
