"""slurmctld stopped for half a minute (SIGSTOP): the service answers as ever, and nothing is lost or done twice."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from lockstep_slurm.client import jobcomp
from lockstep_slurm.cluster import ClusterInfo, down, up
from lockstep_slurm.job.identity import slurm_name
from support import pyslurm, slurm
from support.lockstep import Json, Lockstep, client, wait_for

STOPPED_SECONDS = 30.0
P95_SECONDS = 0.150
MESSAGE_TIMEOUT = 5
"""Seconds: half of Slurm's own, so that commands fail, and lost submits are looked for, several times in the test."""
SUBMITTED = 10

# A training of one rank that says that it runs: a line in the ledger for each start.
SCRIPT = """\
import sys, time
ledger, line, seconds = sys.argv[1:]
with open(ledger, "a") as file:
    file.write(line + "\\n")
time.sleep(float(seconds))
"""


@pytest.fixture
def own_cluster() -> Iterator[ClusterInfo]:
    """A cluster that no other test is at."""
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-stopped-"))
    try:
        yield up("stopped", 2, folder / "c", overrides={"MessageTimeout": str(MESSAGE_TIMEOUT)})
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


@pytest.fixture(params=["command", "pyslurm"])
def lockstep(request: pytest.FixtureRequest, own_cluster: ClusterInfo, tmp_path: Path) -> Iterator[Lockstep]:
    """A Lockstep over that cluster, with its service running and its look-ups as far apart as the rule says."""
    ours = Lockstep(tmp_path, own_cluster.slurm_conf)
    ours.environment["LOCKSTEP_LOOKUP_SECONDS"] = str(2 * MESSAGE_TIMEOUT)
    # What is known of the nodes grows old while nobody answers, and no request may wait for that.
    ours.environment["LOCKSTEP_CLUSTER_SECONDS"] = str(STOPPED_SECONDS / 10)
    if request.param == "pyslurm":
        ours.environment |= pyslurm.environment(own_cluster.slurm_conf)
    ours.start(request.param)
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


class Asking:
    """Asks the REST interface as several pages do, and notes how long each answer takes."""

    def __init__(self, lockstep: Lockstep) -> None:
        self._lockstep = lockstep
        self.seconds: dict[str, list[float]] = {"GET /jobs": [], "GET /jobs/{id}": [], "POST /jobs": []}
        self.failures: list[str] = []

    def timed(self, what: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """One request; an answer that is an error is noted as a failure."""
        began = time.perf_counter()
        answer = ask()
        self.seconds[what].append(time.perf_counter() - began)
        if answer.status_code >= 400:
            self.failures.append(f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer

    def as_a_page_does(self, job: str, until: float) -> None:
        """Looks at the list and at one job, ten times a second each."""
        with client(self._lockstep) as api:
            while time.monotonic() < until:
                self.timed("GET /jobs", lambda: api.get("/jobs"))
                self.timed("GET /jobs/{id}", lambda: api.get(f"/jobs/{job}"))
                time.sleep(0.1)

    def p95(self, *whats: str) -> float:
        """Of these requests together, in seconds."""
        seconds = [one for what in whats for one in self.seconds[what]]
        return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def test_it_answers_quickly_meanwhile_and_every_job_runs_once(lockstep: Lockstep, own_cluster: ClusterInfo) -> None:
    ledger, script = lockstep.home / "ledger", lockstep.home / "train.py"
    script.write_text(SCRIPT)

    def spec(line: str, seconds: float) -> Json:
        arguments = [str(ledger), line, str(seconds)]
        return {"name": line, "training": {"script": str(script), "arguments": arguments}}

    asking = Asking(lockstep)
    with client(lockstep) as api:

        def submit(line: str, seconds: float = 0) -> httpx.Response:
            return api.post("/jobs", json=spec(line, seconds))

        def trains(line: str, seconds: float) -> str:
            job = str(submit(line, seconds).json()["id"])
            wait_for(f"{line} to train", lambda: ledger.exists() and line in ledger.read_text().splitlines())
            return job

        jobs = {"outlives-it": trains("outlives-it", STOPPED_SECONDS * 2)}
        lockstep.until(jobs["outlives-it"], {"running"})
        jobs["ends-meanwhile"] = trains("ends-meanwhile", STOPPED_SECONDS / 3)

        controller = int((own_cluster.folder / "pids" / "slurmctld.pid").read_text())
        os.kill(controller, signal.SIGSTOP)
        try:
            until = time.monotonic() + STOPPED_SECONDS
            pages = [
                threading.Thread(target=asking.as_a_page_does, args=(job, until), name=name)
                for name, job in jobs.items()
            ]
            for page in pages:
                page.start()
            for line in [f"job-{number}" for number in range(SUBMITTED)]:
                answer = asking.timed("POST /jobs", partial(submit, line))
                jobs[line] = str(answer.json()["id"])
                time.sleep(STOPPED_SECONDS / SUBMITTED / 2)
            assert Path(f"/proc/{controller}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            stale = lockstep.job(jobs["outlives-it"])
            for page in pages:
                page.join()
        finally:
            os.kill(controller, signal.SIGCONT)

    figures = {what: f"{asking.p95(what) * 1000:.0f} ms of {len(asking.seconds[what])}" for what in asking.seconds}
    figures["all"] = f"{asking.p95(*asking.seconds) * 1000:.0f} ms"
    print(f"p95 while slurmctld was stopped for {STOPPED_SECONDS:.0f} s: {figures}")
    assert asking.failures == []
    assert min(len(asking.seconds["GET /jobs"]), len(asking.seconds["GET /jobs/{id}"])) > 100
    assert asking.p95(*asking.seconds) < P95_SECONDS, figures
    assert asking.p95("GET /jobs") < P95_SECONDS, figures
    assert asking.p95("GET /jobs/{id}") < P95_SECONDS, figures
    # Of so few the 95th percentile is the slowest one, in which a busy machine shows; half of them is not chance.
    assert statistics.median(asking.seconds["POST /jobs"]) < P95_SECONDS, figures
    assert max(asking.seconds["POST /jobs"]) < MESSAGE_TIMEOUT / 2, "a submit waited for Slurm"
    assert stale["phase"] == "running"
    assert stale["stale_since"] is not None

    ended = {line: lockstep.until(job, {"ended well", "ended badly"}, 180) for line, job in jobs.items()}
    assert {line: job["phase"] for line, job in ended.items()} == dict.fromkeys(jobs, "ended well")
    assert {line: len(job["attempts"]) for line, job in ended.items()} == dict.fromkeys(jobs, 1)
    assert Counter(ledger.read_text().splitlines()) == Counter(list(jobs))
    # And Slurm was given each of them once: what else has its name was held, and never started.
    for line, job in jobs.items():
        records = jobcomp.Completions(own_cluster.folder / "jobcomp.log", "0").by_name([slurm_name(line, job)])
        assert [record.state for record in records if record.state != "CANCELLED"] == ["COMPLETED"], records
        assert all(record.nodes == () for record in records if record.state == "CANCELLED"), records
