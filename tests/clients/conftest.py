"""Fixtures of the client tests: one desk per client, and a cluster that a test may stop."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.desk import Desk
from lockstep_slurm.client import CommandClient, LocalClient
from lockstep_slurm.cluster import ClusterInfo, down, up
from support import slurm


@pytest.fixture
def command_desk(cluster: ClusterInfo, tmp_path: Path) -> Iterator[Desk]:
    """Slurm's commands and the session's cluster."""
    desk = Desk(CommandClient(cluster.slurm_conf), tmp_path, cluster.slurm_conf)
    yield desk
    desk.clear()


@pytest.fixture
def local_desk(tmp_path: Path) -> Iterator[Desk]:
    """No Slurm, and an empty queue."""
    desk = Desk(LocalClient(tmp_path / "home" / "local"), tmp_path)
    yield desk
    desk.clear()


@pytest.fixture(params=["command", "local"])
def desk(request: pytest.FixtureRequest) -> Desk:
    """Each client in turn."""
    chosen: Desk = request.getfixturevalue(f"{request.param}_desk")
    return chosen


@dataclass(frozen=True)
class OwnCluster:
    """A cluster of this file's own, which forgets ended jobs after two seconds."""

    info: ClusterInfo

    @property
    def controller(self) -> int:
        """The controller's pid."""
        return int((self.info.folder / "pids" / "slurmctld.pid").read_text())

    def mend(self) -> None:
        """Brings up again what does not run."""
        up(self.info.name, len(self.info.nodes), self.info.folder, min_job_age=2)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[OwnCluster]:
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-clients-"))
    try:
        yield OwnCluster(up("clients", 1, folder / "c", min_job_age=2))
    finally:
        down(folder / "c")
        shutil.rmtree(folder)
