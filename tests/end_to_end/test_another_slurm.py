"""The same job through the other Slurm: the digits train on two nodes of a 24.11 as they do on a 22.05."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_slurm.cluster import ClusterInfo, down, up
from support import slurm, slurms
from support.lockstep import Lockstep


@pytest.fixture(scope="module")
def other_cluster() -> Iterator[ClusterInfo]:
    """A cluster of the second Slurm, whose programs are on PATH meanwhile."""
    slurms.needed(slurms.SECOND)
    folder = Path(tempfile.mkdtemp(prefix="lockstep-other-"))
    with slurms.chosen(slurms.SECOND):
        try:
            yield up("other", 2, folder / "c")
        finally:
            down(folder / "c")
            shutil.rmtree(folder)


def test_a_job_has_this_machines_python(other_cluster: ClusterInfo) -> None:
    modules = "bz2, ctypes, hashlib, lzma, sqlite3, ssl, uuid, zlib"
    argv = ["/usr/bin/python3", "-c", f"import sys, {modules}; print(sys.version)"]
    here = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert slurm.run(other_cluster, "srun", *argv) == here


def test_the_digits_train_on_two_nodes(other_cluster: ClusterInfo, tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, other_cluster.slurm_conf)
    # The environment's own programs first, then that Slurm's.
    own, rest = ours.environment["PATH"].split(os.pathsep, 1)
    ours.environment["PATH"] = os.pathsep.join([own, str(slurms.PROGRAMS), rest])
    ours.start("command")
    try:
        job = ours.until(ours.submit(), {"ended well", "ended badly"})
    finally:
        ours.kill(signal.SIGTERM)
    log = "\n".join(file.read_text() for file in Path(job["run_dir"]).glob("logs/*"))
    assert (job["phase"], job["state"]) == ("ended well", "COMPLETED"), log
    assert len(job["attempts"]) == 1
    assert job["last"]["accuracy"] >= 0.97
