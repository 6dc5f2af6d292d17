"""A service over a real one-machine Slurm for the whole story, told from outside."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.lockstep import Lockstep


@pytest.fixture(scope="module")
def lockstep(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A Lockstep over the one-machine Slurm, with its service running."""
    ours = Lockstep(tmp_path_factory.mktemp("home"), cluster.slurm_conf)
    ours.start()
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


@pytest.fixture
def lockstep_without_service(cluster: Any, tmp_path: Path) -> Iterator[Lockstep]:
    """A Lockstep over the one-machine Slurm whose service the test starts and ends itself."""
    ours = Lockstep(tmp_path, cluster.slurm_conf)
    try:
        yield ours
    finally:
        ours.kill()
