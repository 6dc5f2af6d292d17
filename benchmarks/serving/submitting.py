"""Submissions per second until Slurm has them: through REST, by ``sbatch`` in a shell loop, and with submitit.

All arms submit the same script to the same Slurm, whose partition is down meanwhile: jobs stay pending, so that no job
takes a CPU from an arm. Ours is timed from the first request until the last job's Slurm id is stored; the client's own
CPU is in it. Valid: each time Slurm had exactly one job of each submission.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.environments import PeerError, provide
from benchmarks.serving.frame import Form, Found, rate, take_turns
from benchmarks.serving.served import Caller, Served, ServedError, served
from lockstep_slurm.client import pyslurm_presence
from lockstep_slurm.cluster import ClusterInfo, down, up
from lockstep_slurm.job.script import spec_of

REST = "REST"
BATCHED = "REST, many by one request"
LOOP = "sbatch, one after another"
WIDE = "sbatch, 8 at a time"
SUBMITIT = "submitit, one executor.submit a job"
UNTHROTTLED = "submitit, its limit of 5 a second lifted"
SUBMITIT_REQUIREMENTS = ("submitit==1.5.*",)
QUICK, FULL = (100, 5), (300, 20)
"""Jobs that an arm submits in a round, and rounds."""
CONNECTIONS = 4
"""Kept connections of the client that submits through REST, one job a request."""
A_REQUEST = 100
"""Jobs of each request of the client that submits many by one, over one connection."""
OURS = {REST: "a request each", BATCHED: f"{A_REQUEST} a request"}
"""What ours is, by arm, in a row's case."""
SETTLE_SECONDS = 300.0
CLIENTS = {"command": "Slurm's commands", "pyslurm": "pyslurm"}
UNLIMITED = {"LOCKSTEP_SUBMIT_RATE": "0"}
"""Submissions a second: the limit that keeps us polite is lifted, since no peer has one."""
SPEC: dict[str, Any] = {
    "training": {"model": "digits-mlp", "data": "digits", "epochs": 1},
    "resources": {"nodes": 1, "time": "0:10:00", "partition": "main"},
}
SUBMIT_WITH_SUBMITIT = """
import json, sys, time
import submitit
folder, name, count, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
executor = submitit.SlurmExecutor(folder=folder)
if pause >= 0:
    assert executor._throttling == 0.2  # else this is another submitit, whose limit is set otherwise
    executor._throttling = pause
executor.update_parameters(time=10, partition="main", job_name=name)
began = time.perf_counter()
jobs = [executor.submit(abs, -number) for number in range(count)]
print(json.dumps({"seconds": time.perf_counter() - began, "ids": [job.job_id for job in jobs]}))
"""


@dataclass
class Submitting:
    """The cluster, the service on it, and what each arm does in a round; costs are seconds a job."""

    info: ClusterInfo
    service: Served
    folder: Path
    count: int
    """Jobs that an arm submits in a round."""
    submitit: Path | None
    """The Python of the environment that has it."""
    script: Path = field(init=False)
    wrong: Counter[str] = field(default_factory=Counter)
    """By arm: in how many rounds Slurm had other jobs than were submitted."""

    def __post_init__(self) -> None:
        self.environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.environ.get("HOME", "/"),
            "SLURM_CONF": str(self.info.slurm_conf),
        }
        self.script = self.folder / "job.sbatch"
        # What a person would hand to sbatch is the very script that the service hands to it.
        caller = self.service.connect()
        job = json.loads(caller.post("/jobs", SPEC | {"name": "first"}))
        self.script.write_bytes(caller.call("GET", f"/jobs/{job['id']}/script")[1])
        caller.close()
        if spec_of(self.script.read_text(encoding="utf-8")) is None:
            raise ServedError(f"GET /jobs/{job['id']}/script answered what is no script of ours: {self.script}")
        self._settle()

    def arms(self) -> dict[str, Callable[[int], float]]:
        """What takes turns."""
        found: dict[str, Callable[[int], float]] = {
            REST: self._rest, BATCHED: self._batched, LOOP: self._loop, WIDE: self._wide,
        }  # fmt: skip
        if self.submitit is not None:
            found[SUBMITIT] = lambda number: self._submitit(SUBMITIT, f"submitit-{number}", self.count // 10, -1)
            found[UNTHROTTLED] = lambda number: self._submitit(UNTHROTTLED, f"unthrottled-{number}", self.count, 0)
        return found

    def _rest(self, number: int) -> float:
        name = f"rest-{number}"
        waiting = iter(range(self.count))

        def post(caller: Caller) -> None:
            for _ in waiting:  # shared: whichever connection is free takes the next one
                caller.post("/jobs", SPEC | {"name": name})

        return self._through_the_service(REST, name, CONNECTIONS, post)

    def _batched(self, number: int) -> float:
        name = f"batched-{number}"

        def post(caller: Caller) -> None:
            for first in range(0, self.count, A_REQUEST):
                seeds = range(first, min(first + A_REQUEST, self.count))
                changes = [{"training": {"seed": seed}} for seed in seeds]
                caller.post("/jobs/batch", {"spec": SPEC | {"name": name}, "changes": changes})

        return self._through_the_service(BATCHED, name, 1, post)

    def _through_the_service(self, arm: str, name: str, connections: int, post: Callable[[Caller], None]) -> float:
        """Seconds a job, from the first request until Slurm has the last; ``post`` sends what a connection has to."""
        with contextlib.closing(self._database()) as database:
            before = database.execute("SELECT max(rowid) FROM jobs").fetchone()[0]
            callers = [self.service.connect() for _ in range(connections)]
            began = time.perf_counter()
            with ThreadPoolExecutor(connections) as pool:
                list(pool.map(post, callers))
            deadline = time.monotonic() + SETTLE_SECONDS
            # The database is looked into, and not Slurm: that would cost the controller time. Slurm is asked below.
            while True:
                question = "SELECT count(*) FROM jobs WHERE rowid > ? AND slurm_job_id IS NOT NULL AND NOT held"
                if database.execute(question, (before,)).fetchone()[0] == self.count:
                    break
                if time.monotonic() > deadline:
                    raise ServedError(f"not all of {self.count} jobs reached Slurm within {SETTLE_SECONDS:g} s")
                time.sleep(0.01)
            seconds = time.perf_counter() - began
            for caller in callers:
                caller.close()
        self._check(arm, name)
        return seconds / self.count

    def _loop(self, number: int) -> float:
        name = f"loop-{number}"
        return self._timed(LOOP, name, 'for i in $(seq "$1"); do sbatch --job-name="$2.$i" "$3" || exit 1; done')

    def _wide(self, number: int) -> float:
        name = f"wide-{number}"
        return self._timed(WIDE, name, 'seq "$1" | xargs -P 8 -I% sbatch --job-name="$2.%" "$3"')

    def _timed(self, arm: str, name: str, shell: str) -> float:
        began = time.perf_counter()
        self._run(["bash", "-c", shell, "submit", str(self.count), name, str(self.script)])
        seconds = time.perf_counter() - began
        self._check(arm, name)
        return seconds / self.count

    def _submitit(self, arm: str, name: str, count: int, pause: float) -> float:
        """``pause``: seconds that it leaves between two submits; negative for its own."""
        folder = self.folder / name
        argv = [str(self.submitit), "-c", SUBMIT_WITH_SUBMITIT, str(folder), name, str(count), str(pause)]
        said = json.loads(self._run(argv))
        # Its jobs of a round share a name, as users have it: they are told apart by their ids.
        if len(set(said["ids"])) != count or self._names().count(name) != count:
            self.wrong[arm] += 1
        # Its files stay until all is over: ext4 passes over inodes that were removed in the last minutes one by one,
        # and whoever makes files next would pay for it.
        self._settle()
        return float(said["seconds"]) / count

    def _check(self, arm: str, name: str) -> None:
        """Notes whether Slurm has each submission of this round once; then all of it goes, and is forgotten here."""
        found = [one for one in self._names() if one.startswith(f"{name}.")]
        if len(found) != self.count or len(set(found)) != self.count:
            self.wrong[arm] += 1
        self._settle()

    def _settle(self) -> None:
        """Cancels every job, and waits until the service has seen it: no arm pays for what another left."""
        deadline = time.monotonic() + SETTLE_SECONDS
        with contextlib.closing(self._database()) as database:
            while True:
                self._run(["scancel", "--state=PENDING", f"--user={os.geteuid()}"])
                if not database.execute("SELECT count(*) FROM jobs WHERE NOT final").fetchone()[0]:
                    return
                if time.monotonic() > deadline:
                    raise ServedError(f"jobs that were cancelled had not ended after {SETTLE_SECONDS:g} s")
                time.sleep(0.5)

    def _names(self) -> list[str]:
        return self._run(["squeue", "--noheader", "--states=PENDING", "--format=%j"]).splitlines()

    def _run(self, argv: list[str]) -> str:
        done = subprocess.run(
            argv, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=SETTLE_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            raise ServedError(f"{argv[0]}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.service.home / 'lockstep.db'}?mode=ro", uri=True, timeout=30)


def measure(form: Form) -> Found:
    """The rows: ours against the loop, the loop eight at a time, and submitit."""
    count, rounds = QUICK if form.quick else FULL
    notes = []
    python: Path | None = None
    try:
        python = provide(form.cache, "submitit", SUBMITIT_REQUIREMENTS)
    except PeerError as error:
        notes.append(f"submitit is left out: {error}")
    with contextlib.ExitStack() as stack:
        form.say("bringing up a Slurm of one node")
        stack.callback(down, form.folder / "slurm")
        info = up("bench", 1, form.folder / "slurm", min_job_age=30, overrides={"MaxJobCount": "100000"})
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "SLURM_CONF": str(info.slurm_conf)}
        subprocess.run(
            ["scontrol", "update", "PartitionName=main", "State=DOWN"], env=environment, check=True, timeout=60
        )
        client, settings = _client(info)
        service = stack.enter_context(
            served(form.folder / "home", client=client, slurm_conf=info.slurm_conf, settings=UNLIMITED | settings)
        )
        bench = Submitting(info, service, form.folder, count, python)
        form.say(f"{rounds} rounds of {count} jobs an arm")
        costs = take_turns(bench.arms(), rounds)
    targets = {LOOP: 1.0, WIDE: None, SUBMITIT: 3.0, UNTHROTTLED: None}
    rows = [
        rate(
            case=f"{count} jobs, {how}",
            metric="submissions",
            unit="jobs/s",
            costs=costs,
            ours=ours,
            peer=peer,
            valid=not bench.wrong[ours] and not bench.wrong[peer],
            target=target,
        )
        for ours, how in OURS.items()
        for peer, target in targets.items()
        if peer in costs
    ]
    notes.append(
        f"submissions: {rounds} rounds of {count} jobs; REST over {CONNECTIONS} kept connections (of {A_REQUEST} a "
        f"request: over one), on SQLite, through "
        f"{CLIENTS[client]}; the jobs stay pending."
    )
    return Found(tuple(rows), tuple(notes))


def _client(info: ClusterInfo) -> tuple[str, dict[str, str]]:
    """The client that ``auto`` comes to here, and what a service needs to find it."""
    if pyslurm_presence.folder() is None or pyslurm_presence.why_not(info.slurm_conf) is not None:
        return "command", {}
    # The service's Python is this one, yet not everything on this one's path is on its own.
    return "pyslurm", {"PYTHONPATH": str(pyslurm_presence.needed())}
