"""Ranks launched for real, as ``srun`` or a person starts them, and what they left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.rundir import spool_files
from lockstep_worker.world import World, from_slurm

ROOT = Path(__file__).parents[2]


class Left:
    """What a run left in its directory."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def records(self, kind: str | None = None, attempt: int = 1) -> list[dict[str, Any]]:
        """The records of all nodes, of one kind if it is given."""
        lines = [line for file in spool_files(self.run, attempt) for line in file.read_text().splitlines()]
        found = [json.loads(line) for line in lines]
        return [record for record in found if kind in (None, record["kind"])]


class Launched(Left):
    """One run of the launcher, and what it left."""

    def __init__(
        self, run: Path, arguments: list[str], environment: dict[str, str], prefix: tuple[str, ...] = ()
    ) -> None:
        super().__init__(run)
        self.log = run / "logs" / f"test-{os.urandom(4).hex()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "lockstep_worker.launch", "--run", str(run), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def wait(self, seconds: float = 240) -> int:
        """The exit code; where none comes in that time, the test fails with the stacks of what it trains."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            left = processes_of(self.run)
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    if " lockstep_worker." not in process:
                        os.kill(int(process.partition(":")[0]), signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            self.process.kill()
            self.process.wait()
            pytest.fail("\n".join([f"it had not ended after {seconds} s:", *left, self.text]))

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.log.read_text()


def processes_of(run: Path) -> list[str]:
    """What still runs for a run directory, by command line or environment, as ``<pid>: <command>``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            if run.name.encode() in command or f"LOCKSTEP_RUN={run}".encode() in environment:
                found.append(f"{folder.name}: {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def base_environment() -> dict[str, str]:
    """This process's environment without what a launcher reads; a Python that is aborted says where it was."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "LOCKSTEP_", "OMP_"))}
    return {**own, "PYTHONFAULTHANDLER": "1"}


def task(
    rank: int, *, nodes: int = 2, per_node: int = 1, job: int = 7, restart: int = 0, step: int = 0
) -> dict[str, str]:
    """The variables of one task of ``srun`` (Slurm 22.05) on nodes node1, node2, ... that are all this machine."""
    node = rank // per_node
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_ID": str(step),
        "SLURM_RESTART_COUNT": str(restart),
        "SLURM_CLUSTER_NAME": "site",
        "SLURM_JOB_NODELIST": f"node[1-{nodes}]" if nodes > 1 else "node1",
        "SLURM_STEP_NODELIST": f"node[1-{nodes}]" if nodes > 1 else "node1",
        "SLURM_STEP_TASKS_PER_NODE": f"{per_node}(x{nodes})" if nodes > 1 else str(per_node),
        "SLURM_STEP_NUM_TASKS": str(nodes * per_node),
        "SLURM_NTASKS": str(nodes * per_node),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % per_node),
        "SLURM_NODEID": str(node),
        "SLURMD_NODENAME": f"node{node + 1}",
    }


def told(*masks: Sequence[int]) -> list[dict[str, Any]]:
    """What the wrappers of a node tell each other of the CPUs that each was given, by local rank."""
    return [{"rank": n, "local_rank": n, "pid": n + 1, "granted": list(mask)} for n, mask in enumerate(masks)]


def slurms(local_rank: int, per_node: int = 2) -> World:
    """The world of a rank of a job on one node, as Slurm tells it."""
    return from_slurm(task(local_rank, nodes=1, per_node=per_node))
