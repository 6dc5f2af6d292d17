"""Twenty trainings of two ranks each, submitted together to the same two nodes, eight and more of them at once."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cluster import ClusterInfo, down, up
from lockstep_slurm.job.rundir import read_claims, read_exit
from lockstep_worker.node import folder_name
from support import slurm
from support.lockstep import Lockstep, client, spool, wait_for
from support.ranks import processes_of

JOBS, AT_ONCE = 20, 8
SPEC = {
    "training": {"model": "digits-mlp", "data": "digits", "epochs": 2, "batch_size": 64, "seed": 5},
    "resources": {"nodes": 2, "partition": "crowd", "requeue": False, "time": "0:30:00"},
    "placement": {"ranks_per_node": 1},
}
STEPS = 2 * 11
"""1,437 training samples give 11 global batches of 128 an epoch."""


@pytest.fixture(scope="module")
def crowd() -> Iterator[ClusterInfo]:
    """A cluster of this test's own, whose partition ``crowd`` gives each core to ten jobs."""
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-crowd-"))
    partition = "crowd Nodes=node1,node2 OverSubscribe=FORCE:10 MaxTime=INFINITE State=UP"
    try:
        yield up("crowd", 2, folder / "c", overrides={"PartitionName": partition})
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def jobs(crowd: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All of them, once they have ended; the service that took them has ended then, too."""
    ours = Lockstep(tmp_path_factory.mktemp("home"), crowd.slurm_conf)
    ours.start()
    try:
        with client(ours) as api:

            def submit(number: int) -> str:
                answer = api.post("/jobs", json=SPEC | {"name": f"crowd-{number}"}, timeout=120)
                assert answer.status_code in {200, 201, 202}, answer.text
                job_id: str = answer.json()["id"]
                return job_id

            with ThreadPoolExecutor(JOBS) as pool:
                ids = list(pool.map(submit, range(JOBS)))

            def ended() -> list[dict[str, Any]] | None:
                found = [api.get(f"/jobs/{job_id}", timeout=120).json() for job_id in ids]
                return found if all(job["phase"].startswith("ended") for job in found) else None

            # Forty times torch is imported, on whatever cores there are.
            return wait_for(f"{JOBS} jobs to end", ended, 900)
    finally:
        ours.kill(signal.SIGTERM)


pytestmark = pytest.mark.timeout(1200)


def test_all_train_to_the_end(jobs: list[dict[str, Any]]) -> None:
    assert [job["state"] for job in jobs] == ["COMPLETED"] * JOBS, [(job["reason"], job["run_dir"]) for job in jobs]
    assert {job["phase"] for job in jobs} == {"ended well"}
    digests = set()
    for job in jobs:
        run = Path(job["run_dir"])
        (claim,) = read_claims(run)
        done = read_exit(run, 1)
        assert (claim.ranks, claim.nodes) == (2, ("node1", "node2"))
        assert done is not None
        assert (done.code, done.message) == (0, None)
        records = spool(run)
        for rank in range(2):
            own = [record for record in records if record["rank"] == rank]
            assert [record["step"] for record in own if record["kind"] == "step"] == list(range(1, STEPS + 1))
            assert [record["seq"] for record in own] == list(range(1, len(own) + 1))
        digests |= {record["values"]["parameters_sha256"] for record in records if record["kind"] == "end"}
    # Same seed, same data, same number of ranks: had two jobs met in one rendezvous, they would differ.
    assert len(digests) == 1


def test_eight_and_more_trained_at_once(jobs: list[dict[str, Any]]) -> None:
    moments = []
    for job in jobs:
        run = Path(job["run_dir"])
        ended = read_exit(run, 1)
        assert ended is not None
        moments += [(read_claims(run)[0].claimed, 1), (ended.ended, -1)]
    at_once = most = 0
    for _, change in sorted(moments):
        at_once += change
        most = max(most, at_once)
    assert most >= AT_ONCE


def test_nothing_of_them_is_left(jobs: list[dict[str, Any]]) -> None:
    logs = [log.read_text() for job in jobs for log in Path(job["run_dir"]).glob("logs/*.log")]
    assert len(logs) == JOBS
    assert not [log for log in logs if "Traceback" in log or "lockstep: rendezvous:" in log]
    for run in [Path(job["run_dir"]) for job in jobs]:
        assert list(run.rglob("*.partial")) == []
        assert processes_of(run) == []
        for node in ("node1", "node2"):
            assert not Path("/tmp", folder_name(run, 1, node)).exists()
