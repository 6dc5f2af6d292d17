"""Where faults happen: four hosts of a one-machine Slurm with a Lockstep over them, and a running job's parts."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from faults.worker.evidence import Step
from lockstep_slurm.cluster import ClusterInfo, daemons, down, processes, up
from lockstep_slurm.cluster.layout import Layout
from lockstep_slurm.cluster.processes import Process
from lockstep_slurm.job.rundir import Claim, read_claims
from lockstep_worker.checkpoint.folder import names
from support.lockstep import Lockstep, client

T = TypeVar("T")
PATIENCE = 300.0
"""Seconds for anything that has to come: the machine may have other work, and Slurm takes its time with dead nodes."""
LOOK = 0.2
"""Seconds between two looks."""
SAVED_EVERY = 20
"""Steps."""
SETTINGS = {
    # A second partition, whose jobs push away those of the first.
    "PartitionName": "urgent Nodes=h[1-4] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "KillWait": "20",
    # A link that is cut for a minute is no dead node; the fault that is about dead nodes makes it shorter.
    "SlurmdTimeout": "300",
    # The controller is told of another SlurmdTimeout, of which the nodes need not hear.
    "DebugFlags": "NO_CONF_HASH",
}
SPEC = """\
name = "{name}"
[training]
script = "{script}"
arguments = {arguments}
[environment]
{environment}
[resources]
nodes = 2
time = "{time}"
[checkpoint]
every_steps = {every}
signal_seconds = {signal}
"""


class NotInTimeError(Exception):
    """What had to come did not."""


def until(what: str, look: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """What ``look`` returns once it is neither None nor False; ``NotInTimeError`` with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(LOOK)
    raise NotInTimeError(f"waited {seconds:.0f} s for {what}")


@dataclass
class Machines:
    """A cluster whose nodes are hosts, and a Lockstep whose service runs unless a fault has stopped it."""

    cluster: ClusterInfo
    lockstep: Lockstep
    folder: Path
    """For ledgers, and whatever else a fault needs."""
    jobs: int = 0
    """Submitted so far: no two have one ledger."""

    def slurm(self, *command: str) -> str | None:
        """What one of Slurm's commands prints; None where it failed, or nobody answered."""
        return daemons.ask(Layout.of(self.cluster.folder), *command)

    def node_daemon(self, node: str) -> Process | None:
        """The slurmd of a node, if it runs."""
        return processes.daemons(Layout.of(self.cluster.folder)).get(node)

    def start_node(self, node: str) -> None:
        """Starts a node's slurmd again, and waits until Slurm counts on it."""
        layout = Layout.of(self.cluster.folder)
        inside = self.cluster.network.host(node).inside if self.cluster.network is not None else ()
        daemons.start_node(layout, node, inside)

    def idle(self) -> None:
        """Waits until every node is idle."""
        layout = Layout.of(self.cluster.folder)
        until("all nodes to be idle", lambda: set((daemons.node_states(layout) or {"": ""}).values()) == {"idle"})

    def set(self, name: str, value: str) -> None:
        """Changes a line of slurm.conf, and has the controller read it."""
        conf = self.cluster.slurm_conf
        conf.write_text(re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", conf.read_text()))
        until("slurmctld to read its file anew", lambda: self.slurm("scontrol", "reconfigure"))
        self.grant_grace()

    def grant_grace(self) -> None:
        """Whoever is preempted has a minute to save; slurmctld forgets that when it reads its file."""
        grace = ("scontrol", "update", "PartitionName=main", "GraceTime=60")
        until("slurmctld to take the grace time", lambda: self.slurm(*grace) is not None)


@contextlib.contextmanager
def machines(nodes: int = 4) -> Iterator[Machines]:
    """Brings up everything, and takes it away."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-kill-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        settings = SETTINGS | {"PartitionName": SETTINGS["PartitionName"].replace("h[1-4]", f"h[1-{nodes}]")}
        stack.callback(down, folder / "c")
        cluster = up("kill", nodes, folder / "c", hosts=True, overrides=settings)
        found = Machines(cluster, Lockstep(folder / "home", cluster.slurm_conf), folder)
        found.lockstep.home.mkdir(mode=0o700)
        found.grant_grace()
        found.lockstep.start()
        stack.callback(found.lockstep.kill, signal.SIGTERM)
        yield found


class Job:
    """A training of two nodes that was submitted through the service."""

    def __init__(
        self, on: Machines, name: str, *, steps: int, pace: float, folder: Path | None = None,
        time_limit: str = "0:20:00", signal_seconds: int = 120, variables: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.on = on
        self.total = steps
        on.jobs += 1
        name = f"{name}-{on.jobs}"
        self._ledger = on.folder / f"ledger-{name}"
        arguments = [str(self._ledger), str(steps), str(pace), *([str(folder)] if folder is not None else [])]
        environment = ""
        if variables:
            setup = on.folder / f"setup-{name}.sh"
            setup.write_text("".join(f"export {one}\n" for one in variables))
            environment = f'setup_file = "{setup}"'
        spec = on.folder / f"{name}.toml"
        spec.write_text(
            SPEC.format(
                name=name, script=Path(__file__).with_name("training.py"), arguments=json.dumps(arguments),
                environment=environment, time=time_limit, every=SAVED_EVERY, signal=signal_seconds,
            )
        )  # fmt: skip
        self.id = str(on.lockstep.json("submit", spec)["id"])
        shown = until("Slurm to have the job", lambda: found if (found := self.show())["slurm_job_id"] else None)
        self.number = str(shown["slurm_job_id"])
        self.run = Path(shown["run_dir"])
        self.checkpoints = folder or self.run / "checkpoints"

    def show(self) -> dict[str, Any]:
        """The job as the service has it."""
        with client(self.on.lockstep) as api:  # the command would cost a second of CPU at each look
            found: dict[str, Any] = api.get(f"/jobs/{self.id}").raise_for_status().json()
        return found

    def slurm(self, what: str) -> str:
        """One field of what Slurm shows of it; empty where there is none."""
        found = re.search(rf"\b{what}=(\S*)", self.on.slurm("scontrol", "show", "job", self.number) or "")
        return found[1] if found else ""

    def ledger(self) -> list[Step]:
        """What its ranks say that they have done; a line that is being written is left out."""
        try:
            text = self._ledger.read_text()
        except FileNotFoundError:
            return []
        words = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        return [Step(int(attempt), int(rank), int(step), loss) for attempt, rank, step, loss in words]

    def made(self, attempt: int = 1) -> int:
        """The steps that all ranks have completed in this attempt, those of earlier ones included."""
        newest = dict.fromkeys(range(2), 0)
        for one in self.ledger():
            if one.attempt == attempt:
                newest[one.rank] = max(newest[one.rank], one.step)
        return min(newest.values())

    def trains(self, attempt: int = 1, behind: int = SAVED_EVERY + 5) -> None:
        """Waits until both ranks are behind this step, and something is saved."""
        until(
            f"attempt {attempt} to make step {behind} and to save",
            lambda: self.made(attempt) >= behind and self.saved() > 0,
        )

    def saved(self) -> int:
        """The newest checkpoint's step, 0 where there is none."""
        return max((name.step for name in names(self.checkpoints)), default=0)

    def claim(self, attempt: int = 1) -> Claim:
        """Who trains, or trained, this attempt."""
        return next(found for found in read_claims(self.run) if found.attempt == attempt)

    def training(self, rank: int) -> Process:
        """The process that trains as this rank."""
        return self._the(f"the training of rank {rank}", "training.py", {"RANK": str(rank)})

    def launcher(self, rank: int) -> Process:
        """The process that srun started for this rank."""
        return self._the(f"the launcher of rank {rank}", "lockstep_worker.launch", {"SLURM_PROCID": str(rank)})

    def writer(self, node: str) -> Process:
        """The process that writes this node's spool."""
        return self._the(f"the writer of {node}", "lockstep_worker.writer", {}, node)

    def _the(self, what: str, word: str, variables: dict[str, str], argument: str = "") -> Process:
        """The oldest Python process of the job with a part of its command that ends so, and with this argument."""

        def look() -> Process | None:
            found = [
                one
                for one in processes.everything()
                if Path(one.command[0]).name.startswith("python")
                and any(part.endswith(word) for part in one.command)
                and (not argument or argument in one.command)
                and str(self.run) in (*one.command, processes.environment(one).get("LOCKSTEP_RUN"))
                and variables.items() <= processes.environment(one).items()
            ]
            return min(found, key=lambda one: one.started, default=None)

        return until(what, look, 30)

    def goes_on(self, restarts: int) -> None:
        """Waits until Slurm has it in its queue again, and has it started now: Slurm would wait for two minutes."""
        until(f"restart {restarts}", lambda: self.slurm("Restarts") == str(restarts))
        there = ("PENDING", "RUNNING", "COMPLETED")
        state = until(
            "the job to be in the queue", lambda: found if (found := self.slurm("JobState")) in there else None
        )
        if state != "PENDING":
            return  # after NODE_FAIL it starts at once, where other nodes are free
        # Not at once: a start in the second in which slurmd revokes the old run's credential fails (22.05).
        until(
            "the start",
            lambda: self.on.slurm("scontrol", "update", f"JobId={self.number}", "StartTime=now+2") is not None,
        )

    def ends(self) -> str:
        """Slurm's word for its end, waited for."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
        return until("the job to end", lambda: found if (found := self.slurm("JobState")) in over else None)
