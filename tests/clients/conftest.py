"""Fixtures of the client tests: a desk for each column of the contract's table, and clusters that a test may stop.

``desk``          each client in turn, over each Slurm
``slurm_desk``    each client that talks to a Slurm
``command_desk``  Slurm's commands, over each Slurm
``pyslurm_desk``  pyslurm, where one is installed; ``own_pyslurm`` is one at ``own_cluster``
``local_desk``    no Slurm, and an empty queue
``own_cluster``   a cluster that a test may stop; ``own_desk`` is at it, and ``own_command_cluster`` is for the commands
``forgotten``     the record of a job that this cluster has forgotten
``column``        the column of the test: ``command-24.11``
``stand_in``      a pyslurm that does what a test tells it to, and ``process`` the process that holds it
``wrap``          puts a script before one of Slurm's commands
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clients import columns
from clients.desk import Desk, until
from clients.stand_in import STAND_IN, StandIn
from lockstep_slurm.client import LocalClient, PySlurmClient
from lockstep_slurm.client.protocol import SlurmClient, SlurmJob, SlurmUnavailableError
from lockstep_slurm.client.pyslurm_process import PySlurmProcess
from lockstep_slurm.cluster import ClusterInfo, down, up
from support import slurms

Wrap = Callable[[str, str], Path]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test once for each column of the fixture that it asks for."""
    asked = [columns.FIXTURES[name] for name in metafunc.fixturenames if name in columns.FIXTURES]
    if asked:
        # ``command_desk`` asks for ``slurm_desk`` too: the fewest are meant.
        fewest: tuple[str, ...] = min(asked, key=len)
        metafunc.parametrize("column", fewest)


@pytest.fixture(scope="session")
def second_cluster() -> Iterator[ClusterInfo]:
    """The tests' shared one-machine cluster of the second Slurm, as ``cluster`` is one of the first."""
    slurms.needed(slurms.SECOND)
    folder = Path(tempfile.mkdtemp(prefix="lockstep-slurm-"))
    try:
        with slurms.chosen(slurms.SECOND):
            info = up("tests", 2, folder / "c")
        yield info
    finally:
        with slurms.chosen(slurms.SECOND):
            down(folder / "c")
        shutil.rmtree(folder)


@pytest.fixture
def shared_cluster(column: str, request: pytest.FixtureRequest) -> Iterator[ClusterInfo]:
    """The session's cluster of the column's Slurm, whose programs are on PATH meanwhile."""
    columns.needed(column)
    version = columns.version(column)
    info: ClusterInfo = request.getfixturevalue("second_cluster" if version == slurms.SECOND else "cluster")
    with slurms.chosen(version):
        yield info


@pytest.fixture
def slurm_desk(column: str, shared_cluster: ClusterInfo, tmp_path: Path) -> Iterator[Desk]:
    """The column's client at the session's cluster."""
    desk = Desk(columns.client(column, shared_cluster.slurm_conf), tmp_path, shared_cluster.slurm_conf)
    yield desk
    desk.clear()


@pytest.fixture
def command_desk(slurm_desk: Desk) -> Desk:
    """The same; only that ``columns.FIXTURES`` gives it the columns of Slurm's commands."""
    return slurm_desk


@pytest.fixture
def pyslurm_desk(slurm_desk: Desk) -> Desk:
    """The same; only that ``columns.FIXTURES`` gives it the column of pyslurm."""
    return slurm_desk


@pytest.fixture
def local_desk(tmp_path: Path) -> Iterator[Desk]:
    """No Slurm, and an empty queue."""
    desk = Desk(LocalClient(tmp_path / "home" / "local"), tmp_path)
    yield desk
    desk.clear()


@pytest.fixture
def desk(column: str, request: pytest.FixtureRequest) -> Desk:
    """Each client in turn."""
    chosen: Desk = request.getfixturevalue("local_desk" if column == "local" else "slurm_desk")
    return chosen


@dataclass(frozen=True)
class OwnCluster:
    """A cluster of one node that tests may stop, and that forgets ended jobs after two seconds."""

    info: ClusterInfo
    column: str

    @property
    def controller(self) -> int:
        """The controller's pid."""
        return int((self.info.folder / "pids" / "slurmctld.pid").read_text())

    def client(self, timeout: float = 30) -> SlurmClient:
        """The column's client of it."""
        return columns.client(self.column, self.info.slurm_conf, timeout)

    def slurmd(self, node: str) -> int:
        """The pid of a node's slurmd."""
        return int((self.info.folder / "pids" / f"slurmd-{node}.pid").read_text())

    def mend(self) -> None:
        """Brings up again what does not run."""
        _bring_up(self.info.folder)


NUMBERS = range(100, 140)
"""The job ids of a cluster of these tests' own: few, so that they are soon given out again."""
_OWN = {
    # Slurm's own time-out, after which a command gives up, is cut down: still longer than any test's deadline.
    "MessageTimeout": "5",
    # A node that was said to be down stays so, and comes back by itself only where it did not answer.
    "ReturnToService": "1",
    # Jobs of a partition of a higher tier, which a test may make, push those of a lower one out.
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
    "FirstJobId": str(NUMBERS[0]),
    # The last one itself is never given out (22.05 and 24.11).
    "MaxJobId": str(NUMBERS.stop),
}


def _bring_up(folder: Path) -> ClusterInfo:
    return up("clients", 1, folder, min_job_age=2, overrides=_OWN)


@dataclass
class _OwnClusters:
    """One cluster for each Slurm, brought up when it is first asked for."""

    parent: Path
    infos: dict[str, ClusterInfo] = field(default_factory=dict)
    forgotten: dict[str, SlurmJob] = field(default_factory=dict)
    """By column: the record of a job that Slurm has forgotten since."""

    def of(self, version: str) -> ClusterInfo:
        if version not in self.infos:
            self.infos[version] = _bring_up(self.parent / version)
        return self.infos[version]

    def give_up(self, version: str) -> None:
        """Takes it down; who asks for it next has a new one, which has forgotten nothing yet."""
        del self.infos[version]
        self.forgotten = {one: job for one, job in self.forgotten.items() if columns.version(one) != version}
        down(self.parent / version)
        shutil.rmtree(self.parent / version)


@pytest.fixture(scope="package")
def own_clusters() -> Iterator[_OwnClusters]:
    parent = Path(tempfile.mkdtemp(prefix="lockstep-clients-"))
    yield _OwnClusters(parent)
    for folder in sorted(parent.iterdir()):
        with slurms.chosen(folder.name):
            down(folder)
    shutil.rmtree(parent)


@pytest.fixture
def own_cluster(column: str, own_clusters: _OwnClusters) -> Iterator[OwnCluster]:
    """A cluster of these tests' own for each Slurm, whose programs are on PATH meanwhile."""
    columns.needed(column)
    with slurms.chosen(columns.version(column)):
        yield OwnCluster(own_clusters.of(columns.version(column)), column)


@pytest.fixture
def own_command_cluster(own_cluster: OwnCluster) -> OwnCluster:
    """The same; only that ``columns.FIXTURES`` gives it the columns of Slurm's commands."""
    return own_cluster


@pytest.fixture
def own_desk(own_cluster: OwnCluster, own_clusters: _OwnClusters, tmp_path: Path) -> Iterator[Desk]:
    """The column's client at the tests' own cluster.

    One that does not end a test's jobs is not given to the next test, which would fail by the same.
    """
    desk = Desk(own_cluster.client(), tmp_path, own_cluster.info.slurm_conf)
    yield desk
    try:
        desk.clear()
    except BaseException:
        own_clusters.give_up(columns.version(own_cluster.column))
        raise


@pytest.fixture
def forgotten(column: str, own_desk: Desk, own_clusters: _OwnClusters) -> SlurmJob:
    """The record of a job that ended with exit code 3, and that Slurm has forgotten: one for each column's tests."""
    if column not in own_clusters.forgotten:
        number = own_desk.run("exit 3")
        record = own_desk.record(number)
        # MinJobAge is 2 s there, and slurmctld looks about every ten seconds.
        until(lambda: own_desk.job(number) is None, "Slurm forgets the job", within=120)
        own_desk.submitted.remove(number)
        own_clusters.forgotten[column] = record
    return own_clusters.forgotten[column]


@pytest.fixture
def own_pyslurm(own_cluster: OwnCluster) -> Iterator[PySlurmClient]:
    """Pyslurm at the tests' own cluster, with two seconds for each answer and its process running."""
    client = PySlurmClient(own_cluster.info.slurm_conf, timeout=2)
    until(lambda: _answers(client), "pyslurm's process")
    yield client
    client.close()


def _answers(client: PySlurmClient) -> bool:
    """Whether it answers in its time, which on a busy machine its start may take."""
    try:
        client.ping()
    except SlurmUnavailableError:
        return False
    return True


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    made = StandIn(tmp_path / "site", tmp_path / "slurm.conf")
    (made.folder / "pyslurm").mkdir(parents=True)
    (made.folder / "pyslurm" / "__init__.py").write_text(STAND_IN)
    made.conf.touch()
    made.ping_does("")
    return made


@pytest.fixture
def process(stand_in: StandIn) -> Iterator[PySlurmProcess]:
    made = stand_in.process()
    yield made
    made.close()


@pytest.fixture
def wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """Puts a script of that name before everything on PATH; ``exec "$REAL" "$@"`` in it is the real command.

    A test asks for it after its desk, which sets PATH too.
    """
    folder = tmp_path / "wrappers"
    folder.mkdir()
    usual = os.environ["PATH"]

    def add(name: str, body: str) -> Path:
        wrapper = folder / name
        wrapper.write_text(f"#!/bin/bash\nREAL={shutil.which(name, path=usual)}\n{body}\n")
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{usual}")
        return wrapper

    return add
