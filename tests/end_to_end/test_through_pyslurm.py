"""The main job through pyslurm, where this machine has one for its Slurm: on one machine's nodes, and on two hosts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_slurm.cluster import ClusterInfo
from support import pyslurm
from support.lockstep import Lockstep


@pytest.fixture(params=["cluster", "hosts"], ids="pyslurm-{}".format)
def lockstep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lockstep]:
    """A Lockstep over that Slurm, whose service asks it through pyslurm."""
    where: ClusterInfo = request.getfixturevalue(request.param)
    ours = Lockstep(tmp_path, where.slurm_conf)
    ours.environment |= pyslurm.environment(where.slurm_conf)
    ours.start("pyslurm")
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


def test_digits_are_learned(lockstep: Lockstep) -> None:
    job = lockstep.until(lockstep.submit(), {"ended well", "ended badly"}, 240)
    assert job["client"] == "pyslurm"
    assert (job["phase"], job["state"]) == ("ended well", "COMPLETED"), job["reason"]
    assert job["last"]["accuracy"] >= 0.97
    (attempt,) = job["attempts"]
    assert (attempt["number"], attempt["exit_code"], attempt["restart_count"]) == (1, 0, 0)
    assert len(set(attempt["nodes"])) == 2
    assert "submitted with sbatch" not in (lockstep.home / "serve.log").read_text()


def test_a_running_job_is_cancelled(lockstep: Lockstep) -> None:
    job_id = lockstep.submit("training.epochs=10000")
    lockstep.until(job_id, {"running"})
    lockstep.run("cancel", job_id)
    job = lockstep.until(job_id, {"ended well", "ended badly"})
    assert (job["phase"], job["state"]) == ("ended badly", "CANCELLED")
