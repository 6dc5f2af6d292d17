"""Whether a one-machine Slurm can run here."""

from __future__ import annotations

import os

import pytest

from lockstep_slurm.cluster import ClusterError
from lockstep_slurm.cluster.lifecycle import check_machine


def needed() -> None:
    """Skips the test where no one-machine Slurm can run: not root, Slurm not installed."""
    if os.geteuid() != 0:
        pytest.skip("a one-machine Slurm needs root")
    try:
        check_machine()
    except ClusterError as error:
        pytest.skip(str(error))
