"""A queue that is as full as slurm.conf allows: sbatch left alone tries for two minutes, which nobody waits for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import columns
from clients.desk import Desk
from lockstep_slurm.client import orphans
from lockstep_slurm.client.protocol import SlurmRefusedError
from lockstep_slurm.client.refusals import meaning
from lockstep_slurm.cluster import down, up
from lockstep_slurm.job.identity import new_job_id, slurm_name
from support import slurms

MOST = 3
"""MaxJobCount; slurmctld takes one job less (22.05 and 24.11)."""


@pytest.fixture(params=columns.COMMAND)
def full_desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """Slurm's commands at a cluster whose queue is full of held jobs."""
    column: str = request.param
    columns.needed(column)
    folder = Path(tempfile.mkdtemp(prefix="lockstep-full-"))
    with slurms.chosen(columns.version(column)):
        try:
            info = up("full", 1, folder / "c", overrides={"MaxJobCount": str(MOST)})
            desk = Desk(columns.client(column, info.slurm_conf), tmp_path, info.slurm_conf)
            for _ in range(MOST - 1):
                desk.run(hold=True)
            yield desk
            desk.clear()
        finally:
            down(folder / "c")
            shutil.rmtree(folder)


def test_it_is_refused_at_once_and_what_a_killed_service_left_trying_can_be_ended(full_desk: Desk) -> None:
    submission = full_desk.submission(hold=True)
    began = time.monotonic()
    with pytest.raises(SlurmRefusedError) as refused:
        full_desk.client.submit(submission)
    assert time.monotonic() - began < 20  # well before sbatch's second minute
    assert meaning(str(refused.value)) == "cluster"
    assert full_desk.client.find(submission.name) == []
    # What a killed service leaves behind goes on trying, and is ended by name.
    name = slurm_name("orphan", new_job_id())
    argv = ["sbatch", "--hold", f"--job-name={name}", str(submission.script)]
    environment = os.environ | {"SLURM_CONF": str(full_desk.slurm_conf)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as orphan:
        assert orphan.stderr is not None
        assert b"sleeping and retrying" in orphan.stderr.readline()
        assert orphans.end([slurm_name("other", new_job_id())]) == 0
        assert orphans.end([name]) == 1
        assert orphan.wait(timeout=60) < 0
    assert full_desk.client.find(name) == []
