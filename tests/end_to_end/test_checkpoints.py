"""A job whose time is over, that is preempted, that is cancelled: saved each time, and put back where it is to go on.

Over a real Slurm, with no service at all; `scancel --signal` stands for the signal before a time limit, which Slurm
sends when it likes, half a minute early or late.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cluster import ClusterInfo, down, up
from lockstep_slurm.job.rundir import Exit, read_exit
from lockstep_worker.checkpoint.folder import Name, names
from support import slurm
from support.lockstep import Lockstep, spool, wait_for
from support.ranks import processes_of

SETTINGS = {
    "PartitionName": "urgent Nodes=node1 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "KillWait": "20",
}
SCRIPT = """\
import sys, time
import torch
import lockstep

model = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(model.weight)
with lockstep.checkpoint.of(model=model, every_steps=1000) as state:
    for step in state.steps(1_000_000):
        with torch.no_grad():
            model.weight += 1
        lockstep.report(step=step + 1, loss=model.weight.item())
        time.sleep(0.02)
"""


@pytest.fixture
def preempting() -> Iterator[ClusterInfo]:
    """One node, on which a second partition's jobs push away those of the first, who are given some time."""
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-saved-"))
    try:
        info = up("saved", 1, folder / "c", overrides=SETTINGS)
        slurm.run(info, "scontrol", "update", "PartitionName=main", "GraceTime=60")
        yield info
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


class Job:
    """A Slurm job of a printed script, and its run directory."""

    def __init__(self, ours: Lockstep, cluster: ClusterInfo) -> None:
        self.ours = ours
        self.cluster = cluster
        (ours.home / "train.py").write_text(SCRIPT)
        (ours.home / "job.toml").write_text('[training]\nscript = "train.py"\n[checkpoint]\n')
        printed = ours.run("script", ours.home / "job.toml")
        assert printed.returncode == 0, printed.stderr
        (ours.home / "j.sbatch").write_text(printed.stdout)
        self.number = ours.command("sbatch", "--parsable", str(ours.home / "j.sbatch")).strip()

    def show(self, what: str) -> str:
        """One field of what Slurm shows of it."""
        found = re.search(rf"\b{what}=(\S*)", slurm.run(self.cluster, "scontrol", "show", "job", self.number))
        return found[1] if found else ""

    @property
    def run(self) -> Path:
        """Its run directory."""
        return next(self.ours.home.glob("runs/*/claims")).parent

    def trains_as(self, attempt: int) -> None:
        """Waits until it has made some steps of this attempt."""

        def look() -> bool:
            found = list(self.ours.home.glob(f"runs/*/spool/{attempt}/*.jsonl"))
            return bool(found) and found[0].read_text().count('"kind":"step"') > 20

        wait_for(f"attempt {attempt} to train", look, 120)

    def is_back(self, restarts: int) -> None:
        """Waits until it is in the queue again, and has it started now: Slurm would wait for two minutes."""
        wait_for(f"restart {restarts}", lambda: self.show("Restarts") == str(restarts), 60)
        wait_for("the queue", lambda: self.show("JobState") == "PENDING", 60)
        # Not at once: a start in the second in which slurmd revokes the old run's credential fails (22.05).
        slurm.run(self.cluster, "scontrol", "update", f"JobId={self.number}", "StartTime=now+2")

    def exit(self, attempt: int) -> Exit:
        """How an attempt ended."""
        return wait_for(f"the exit record of attempt {attempt}", lambda: read_exit(self.run, attempt))


@pytest.mark.timeout(400)
def test_it_goes_on_as_long_as_nobody_cancels_it(preempting: ClusterInfo, tmp_path: Path) -> None:
    job = Job(Lockstep(tmp_path, preempting.slurm_conf), preempting)
    job.trains_as(1)
    slurm.run(preempting, "scancel", "--signal=USR1", job.number)
    job.is_back(1)
    told = job.exit(1)
    assert told.code == 85
    assert re.search(
        r"its time was over, it has saved step \d+ and ended, to go on as the next attempt", told.message or ""
    )

    job.trains_as(2)
    other = slurm.run(preempting, "sbatch", "--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null",
                      "--wrap=true")  # fmt: skip
    job.is_back(2)
    ended = job.exit(2)
    assert (ended.code, ended.signal) == (None, 15)
    assert "is saved" in (ended.message or "")
    wait_for("the urgent job", lambda: "COMPLETED" in slurm.run(preempting, "scontrol", "show", "job", other.strip()))

    job.trains_as(3)
    slurm.run(preempting, "scancel", job.number)
    wait_for("the end", lambda: job.show("JobState") == "CANCELLED", 60)
    assert job.exit(3).signal == 15
    assert job.show("Restarts") == "2"

    # One curve: each step once, in order, whichever attempt made it.
    def curve(record: dict[str, Any]) -> tuple[int, float]:
        return record["step"], record["values"]["loss"]

    steps = [curve(record) for record in spool(job.run) if record["kind"] == "step"]
    assert steps == [(number, float(number)) for number in range(1, len(steps) + 1)]
    saved = {name.attempt for name in names(job.run / "checkpoints")}
    assert saved == {2, 3}, "the last two"
    assert names(job.run / "checkpoints")[0] == Name(3, len(steps))
    assert processes_of(job.run) == []
