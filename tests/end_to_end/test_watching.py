"""What Slurm does to jobs, as the service tells it: it suspends, preempts, loses nodes and gives ids out again."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_slurm.cluster import ClusterInfo, daemons, down, up
from lockstep_slurm.cluster.layout import Layout
from lockstep_slurm.job.rundir import exit_file
from support import slurm
from support.lockstep import Json, Lockstep, client, wait_for

SETTINGS = {
    # A second partition, whose jobs push those of the first back into the queue.
    "PartitionName": "urgent Nodes=node1,node2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    # Few numbers, which are soon given out again.
    "FirstJobId": "100",
    "MaxJobId": "107",
}
WITHIN = 150.0

# A training whose first rank says that it runs, until it is told to end.
SCRIPT = """\
import os, sys, time
ledger, line, until = sys.argv[1:]
if os.environ["RANK"] == "0":
    with open(ledger, "a") as file:
        file.write(f"{line} {os.getpid()}\\n")
while not os.path.exists(until):
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterInfo]:
    """A cluster of two nodes that this file may do anything to; it forgets ended jobs after two seconds."""
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-watching-"))
    try:
        yield up("watching", 2, folder / "c", min_job_age=2, overrides=SETTINGS)
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it until somebody asks how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Trainings:
    """Trainings, and what they said of themselves."""

    def __init__(self, lockstep: Lockstep, cluster: ClusterInfo) -> None:
        self.lockstep = lockstep
        self.cluster = cluster
        self.ledger = lockstep.home / "ledger"
        self.script = lockstep.home / "train.py"
        self.script.write_text(SCRIPT)

    def submit(self, name: str, **more: Json) -> str:
        """Stores one; it runs until ``end`` is said."""
        training = {"script": str(self.script), "arguments": [str(self.ledger), name, str(self.lockstep.home / name)]}
        with client(self.lockstep) as api:
            answer = api.post("/jobs", json={"name": name, "training": training} | more)
        return str(answer.raise_for_status().json()["id"])

    def pids(self, name: str) -> list[int]:
        """Of its first rank, for each start so far."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == name]

    def started(self, name: str, times: int = 1) -> int:
        """Its process, once it has started so often."""
        wait_for(f"{name} to train", lambda: len(self.pids(name)) == times, WITHIN)
        return self.pids(name)[-1]

    def end(self, name: str) -> None:
        """Lets it end well."""
        (self.lockstep.home / name).touch()

    def until(self, job: str, **wanted: str) -> Json:
        """The job, once it is so."""

        def look() -> Json | None:
            found = self.lockstep.job(job)
            return found if all(found[key] == value for key, value in wanted.items()) else None

        return wait_for(f"{wanted} of {self.lockstep.job(job)}", look, WITHIN)

    def ended_well(self, job: str) -> Json:
        return self.lockstep.until(job, {"ended well", "ended badly"}, WITHIN)

    def number(self, job: str) -> str:
        """Its Slurm id."""
        return str(wait_for("its Slurm id", lambda: self.lockstep.job(job)["slurm_job_id"], WITHIN))

    def slurm(self, *command: str) -> str:
        return slurm.run(self.cluster, *command)

    def start_again(self, job: str) -> None:
        """Slurm waits two minutes before it starts a requeued job: now, and not in the second of its requeue."""
        self.slurm("scontrol", "update", f"jobid={self.number(job)}", "StartTime=now+2")


@pytest.fixture(scope="module")
def trainings(cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """A service over that cluster."""
    lockstep = Lockstep(tmp_path_factory.mktemp("home"), cluster.slurm_conf)
    lockstep.environment |= {"LOCKSTEP_RECONCILE_LIMIT_SECONDS": "2", "LOCKSTEP_CLUSTER_SECONDS": "5"}
    lockstep.start("command")
    try:
        yield Trainings(lockstep, cluster)
    finally:
        lockstep.kill(signal.SIGTERM)


@pytest.mark.timeout(600)
def test_suspended_preempted_and_held_for_maintenance(trainings: Trainings) -> None:
    low = trainings.submit("low", resources={"nodes": 2})
    trainings.started("low")
    number = trainings.number(low)

    trainings.slurm("scontrol", "suspend", number)
    assert trainings.until(low, state="SUSPENDED")["phase"] == "running"
    trainings.slurm("scontrol", "resume", number)
    trainings.until(low, state="RUNNING", phase="running")

    high = trainings.submit("high", resources={"nodes": 2, "partition": "urgent"})
    trainings.started("high")
    waiting = trainings.until(low, phase="waiting", state="PENDING")
    assert waiting["slurm_reason"] is not None
    assert waiting["reason"] != waiting["slurm_reason"]
    trainings.end("high")
    assert trainings.ended_well(high)["phase"] == "ended well"

    trainings.slurm(
        "scontrol", "create", "reservation", "reservationname=works", "starttime=now+20", "duration=60", "users=root",
        "flags=maint,ignore_jobs", "nodes=ALL",
    )  # fmt: skip
    late = trainings.submit("late", resources={"nodes": 1, "time": "30"})
    maintained = wait_for(
        "the maintenance in its reason",
        lambda: found if "maintenance" in str((found := trainings.lockstep.job(late))["reason"]) else None,
        WITHIN,
    )
    assert maintained["phase"] == "waiting"
    assert maintained["slurm_reason"].replace("_", " ").startswith("ReqNodeNotAvail")
    trainings.slurm("scontrol", "delete", "reservationname=works")
    trainings.end("late")
    assert trainings.ended_well(late)["phase"] == "ended well"

    trainings.start_again(low)
    trainings.started("low", 2)
    trainings.end("low")
    ended = trainings.ended_well(low)
    assert (ended["phase"], len(ended["attempts"]), ended["slurm_reason"]) == ("ended well", 2, None)
    kinds = [entry["kind"] for entry in ended["timeline"]]
    assert [kind for kind in kinds if kind in {"suspended", "resumed", "requeued", "ended well"}] == [
        "suspended", "resumed", "requeued", "ended well",
    ]  # fmt: skip


@pytest.mark.timeout(600)
def test_a_node_fails_under_it_while_its_processes_live_on(trainings: Trainings) -> None:
    job = trainings.submit("fails", resources={"nodes": 1})
    first = trainings.started("fails")
    found = trainings.until(job, phase="running", state="RUNNING")
    (node,) = found["nodes"]
    # slurmd is gone, and with it whoever could end them.
    os.kill(int((trainings.cluster.folder / "pids" / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
    trainings.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    trainings.until(job, phase="waiting")
    wait_for(
        "the node's name", lambda: f"Slurm says {node} is DOWN" in str(trainings.lockstep.job(job)["reason"]), WITHIN
    )
    trainings.start_again(job)
    second = trainings.started("fails", 2)
    assert second != first
    trainings.until(job, phase="running", state="RUNNING")
    assert lives(first), "there is but one copy, and nothing to fence"
    rank = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    trainings.end("fails")  # both
    ended = trainings.ended_well(job)
    assert (ended["phase"], [attempt["number"] for attempt in ended["attempts"]]) == ("ended well", [1, 2])
    # Who writes exit records is the training's parent: by itself it ends well, and writes nothing of that.
    wait_for("the end of the first copy", lambda: not lives(first) and not lives(rank), WITHIN)
    assert exit_file(Path(ended["run_dir"]), 2).exists()
    assert not exit_file(Path(ended["run_dir"]), 1).exists()
    exits = [(attempt["exit_code"], attempt["exit_signal"]) for attempt in ended["attempts"]]
    assert exits == [(None, None), (0, None)]
    assert ended["attempts"][0]["nodes"] == [node] != ended["attempts"][1]["nodes"]
    daemons.start_node(Layout.of(trainings.cluster.folder), node)
    wait_for("the node", lambda: "idle" in trainings.slurm("sinfo", "-n", node, "-h", "-o", "%T").split(), WITHIN)


@pytest.mark.timeout(600)
def test_a_controller_that_is_away_changes_nothing_but_that_it_is_stale(trainings: Trainings) -> None:
    lives = trainings.submit("lives")
    trainings.started("lives")
    wait_for("its attempt", lambda: trainings.lockstep.job(lives)["attempts"], WITHIN)
    before = trainings.until(lives, phase="running", state="RUNNING")
    controller = int((trainings.cluster.folder / "pids" / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGTERM)
    wait_for("the controller's end", lambda: not Path(f"/proc/{controller}").exists(), WITHIN)
    stored = trainings.submit("stored")
    trainings.end("stored")
    stale = wait_for(
        "it to be stale", lambda: found if (found := trainings.lockstep.job(lives))["stale_since"] else None, WITHIN
    )
    told = ("phase", "state", "flags", "reason", "nodes", "attempts", "slurm_job_id", "ended_at")
    assert {key: stale[key] for key in told} == {key: before[key] for key in told}
    assert trainings.lockstep.job(stored)["phase"] == "accepted"
    daemons.start_controller(Layout.of(trainings.cluster.folder))
    assert trainings.ended_well(stored)["phase"] == "ended well"
    assert len(trainings.pids("stored")) == 1
    assert trainings.until(lives, phase="running", state="RUNNING")["stale_since"] is None
    trainings.end("lives")
    ended = trainings.ended_well(lives)
    assert (ended["phase"], len(ended["attempts"]), len(trainings.pids("lives"))) == ("ended well", 1, 1)


@pytest.mark.timeout(600)
def test_completed_without_an_exit_record_and_an_id_that_comes_again(trainings: Trainings, tmp_path: Path) -> None:
    setup = tmp_path / "setup.sh"
    setup.write_text("exec true\n")  # nothing of the script is left that could say why
    empty = trainings.submit("empty", environment={"setup_file": str(setup)})
    ended = trainings.lockstep.until(empty, {"ended well", "ended badly"}, WITHIN)
    assert (ended["phase"], ended["attempts"]) == ("ended badly", [])
    assert "no rank left an exit record" in ended["reason"], ended
    # Slurm gives its number out again, once it has forgotten it.
    jobs: list[Json] = []

    def again() -> Json | None:
        name = f"again-{len(jobs)}"
        job = trainings.submit(name)
        trainings.end(name)
        jobs.append(trainings.ended_well(job))
        return jobs[-1] if jobs[-1]["slurm_job_id"] == ended["slurm_job_id"] else None

    found = wait_for("the same number", again, 300)
    assert {job["phase"] for job in jobs} == {"ended well"}
    assert found["id"] != empty
    assert trainings.lockstep.job(empty)["phase"] == "ended badly"
