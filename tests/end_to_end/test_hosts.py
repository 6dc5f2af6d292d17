"""Two hosts with interfaces of different names: the main job over 1 Gbit/s, and what a cut link does to it."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cluster import ClusterInfo, down, link, processes, up
from support import slurm
from support.lockstep import Lockstep, spool, wait_for

Json = dict[str, Any]
SLURM_NOTICES = 300.0
"""Seconds within which Slurm tells that a node is lost, or is back; two minutes were seen with SlurmdTimeout=30."""


@pytest.fixture
def over_hosts(hosts: ClusterInfo, tmp_path: Path) -> Iterator[Lockstep]:
    """A Lockstep over the session's two hosts, with its service running."""
    with served(tmp_path, hosts) as ours:
        yield ours


@contextmanager
def served(home: Path, cluster: ClusterInfo) -> Iterator[Lockstep]:
    ours = Lockstep(home, cluster.slurm_conf)
    ours.start()
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


def trains(lockstep: Lockstep, job: str) -> None:
    """Waits until it has trained some steps."""
    wait_for("the first steps", lambda: ((lockstep.job(job)["last"] or {}).get("step") or 0) > 20, 120)


def in_run(job: Json) -> list[str]:
    """The command lines of processes that belong to this run."""
    return [" ".join(found.command) for found in processes.everything() if job["run_dir"] in " ".join(found.command)]


def steps(job: Json) -> dict[int, list[int]]:
    """The steps that each rank recorded, in order."""
    found: dict[int, list[int]] = {}
    for record in spool(Path(job["run_dir"])):
        if record["kind"] == "step":
            found.setdefault(record["rank"], []).append(record["step"])
    return found


def test_the_main_job_trains_on_two_hosts_whose_names_resolve_to_nothing(
    over_hosts: Lockstep, hosts: ClusterInfo
) -> None:
    job = over_hosts.until(over_hosts.submit(), {"ended well", "ended badly"}, 240)
    assert job["phase"] == "ended well", over_hosts.run("logs", job["id"]).stdout
    assert job["last"]["accuracy"] >= 0.97
    assert job["attempts"][0]["nodes"] == ["h1", "h2"]
    placements = [json.loads(file.read_text()) for file in sorted(Path(job["run_dir"]).glob("placement/1/*.json"))]
    seen = {found["node"]: {one["name"] for one in found["host"]["interfaces"]} for found in placements}
    assert hosts.network is not None
    assert seen == {host.node: {"lo", host.interface} for host in hosts.network.hosts}
    ends = [record["values"] for record in spool(Path(job["run_dir"])) if record["kind"] == "end"]
    assert len(ends) == 2
    assert len({end["parameters_sha256"] for end in ends}) == 1


def test_a_link_that_is_cut_for_10_seconds_costs_time_and_nothing_else(
    over_hosts: Lockstep, hosts: ClusterInfo
) -> None:
    job = over_hosts.submit("training.epochs=60")
    trains(over_hosts, job)
    link(hosts.folder, "h2", on=False)
    try:
        # A time and not a condition: these 10 s are what is tested.
        time.sleep(10)
    finally:
        link(hosts.folder, "h2", on=True)
    ended = over_hosts.until(job, {"ended well", "ended badly"}, 240)
    assert ended["phase"] == "ended well", over_hosts.run("logs", job).stdout
    assert len(ended["attempts"]) == 1
    planned = ended["last"]["steps"]
    assert ended["last"]["step"] == planned
    assert steps(ended) == {rank: list(range(1, planned + 1)) for rank in (0, 1)}


@pytest.mark.timeout(600)
def test_a_link_that_is_cut_for_good_ends_the_job_with_its_node_in_the_reason(tmp_path: Path) -> None:
    slurm.hosts_needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-cut-"))
    # Slurm gives up a node only after the watch has, as on a real cluster (300 and 60 s there).
    info = up("cut", 2, folder / "c", hosts=True, link="1gbit", overrides={"SlurmdTimeout": "60"})
    try:
        assert info.network is not None
        h2 = info.network.host("h2")
        setup = tmp_path / "setup.sh"
        setup.write_text("export LOCKSTEP_LINK_PATIENCE=20\n")
        with served(tmp_path, info) as lockstep:
            job = lockstep.submit("training.epochs=10000", f"environment.setup_file={setup}")
            trains(lockstep, job)
            link(info.folder, "h2", on=False)
            # Slurm still says RUNNING: it does not know yet.
            ending = wait_for("the sentence", lambda: told(lockstep.job(job)), 90)
            assert ending["phase"] == "running"
            wait_for("the training to be gone on both hosts", lambda: not in_run(ending), 90)
            ended = lockstep.until(job, {"ended badly"}, 150)
            log = lockstep.run("logs", job).stdout
        for reason in (ending["reason"], ended["reason"], ended["attempts"][0]["message"]):
            assert "node h2 " in reason
            assert f"its link ({h2.interface}, {h2.address})" in reason
            assert "20 s" in reason
        assert ended["attempts"][0]["exit_code"] == 69
        assert len(ended["attempts"]) == 1
        assert (
            f"0: lockstep: node h2 has not been heard from by h1 for 20 s; its link ({h2.interface}, {h2.address})"
            in log
        )
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


def told(job: Json) -> Json | None:
    return job if (job["reason"] or "").startswith("It is ending: node h2") else None


@pytest.mark.timeout(900)
def test_when_slurm_gives_up_a_node_first_its_name_is_in_the_reason(over_hosts: Lockstep, hosts: ClusterInfo) -> None:
    job = over_hosts.submit("training.epochs=10000", "resources.requeue=false")
    trains(over_hosts, job)
    link(hosts.folder, "h2", on=False)
    try:
        ended = over_hosts.until(job, {"ended badly"}, SLURM_NOTICES)
    finally:
        link(hosts.folder, "h2", on=True)
        wait_for(
            "h2 to be back",
            lambda: "idle" in slurm.run(hosts, "sinfo", "-n", "h2", "-h", "-o", "%T").split(),
            SLURM_NOTICES,
        )
    assert ended["state"] == "NODE_FAIL"
    assert ended["reason"].startswith("A node failed under it: Slurm says h2 is DOWN (Not responding)")
    wait_for("the training to be gone on both hosts", lambda: not in_run(ended), 120)
