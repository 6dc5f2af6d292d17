"""Whether a one-machine Slurm can run here, and its commands."""

from __future__ import annotations

import os
import subprocess

import pytest

from lockstep_slurm.cluster import ClusterError, ClusterInfo, network
from lockstep_slurm.cluster.lifecycle import check_machine


def needed() -> None:
    """Skips the test where no one-machine Slurm can run: not root, Slurm not installed."""
    if os.geteuid() != 0:
        pytest.skip("a one-machine Slurm needs root")
    try:
        check_machine()
    except ClusterError as error:
        pytest.skip(str(error))


def hosts_needed() -> None:
    """Skips the test where nodes cannot be hosts of their own: no Slurm, no iproute2."""
    needed()
    try:
        network.check()
    except ClusterError as error:
        pytest.skip(str(error))


def run(info: ClusterInfo, *command: str) -> str:
    """What one of Slurm's commands prints on this cluster; it must succeed."""
    environment = {"PATH": os.environ["PATH"], "SLURM_CONF": str(info.slurm_conf)}
    done = subprocess.run(command, env=environment, cwd="/tmp", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
