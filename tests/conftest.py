"""Fixtures for all tests: the real parts (Slurm, PostgreSQL, Chromium), started once each, and the rule about skips.

``cluster``        a one-machine Slurm with two nodes, for the whole session
``one_node``       the same with one node that has all cores of this machine
``hosts``          the same with two nodes that are hosts of their own (h1, h2), each on a link of 1 Gbit/s
``lockstep_home``  an empty ``LOCKSTEP_HOME`` of the test's own, also in the environment
``postgres_url``   an empty PostgreSQL database of the test's own, as an SQLAlchemy URL
``database_url``   runs the test twice: with an empty SQLite file and with an empty PostgreSQL database
``chromium``       the path of a Chromium
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lockstep_slurm.cluster import ClusterInfo, down, up
from support import browser, compatibility, lanes, postgres, skips, slurm

# A machine that is busy with real parts is slow now and then: no property may fail for that.
settings.register_profile(
    "real-parts",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("real-parts")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-compatibility",
        action="store_true",
        help="write docs/compatibility-table.md from the clients' contract tests that ran",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keeps a developer's own cluster, service and settings out of the tests."""
    for name in [
        name for name in os.environ if name.startswith(("LOCKSTEP_", "SLURM_", "SBATCH_", "SQUEUE_", "SINFO_"))
    ]:
        if name not in {"LOCKSTEP_CACHE", "LOCKSTEP_CHROMIUM"}:
            del os.environ[name]
    config.stash[EXPECTED_SKIPS] = skips.read()
    config.stash[NO_HOME] = tempfile.mkdtemp(prefix="lockstep-none-")
    os.environ["LOCKSTEP_HOME"] = config.stash[NO_HOME]
    config.pluginmanager.register(compatibility.Reporter(writes=config.getoption("--write-compatibility")))
    config.pluginmanager.register(lanes.Lanes())


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[NO_HOME], ignore_errors=True)


EXPECTED_SKIPS = pytest.StashKey[list[skips.ExpectedSkip]]()
NO_HOME = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    skips.judge(report, item.config.stash[EXPECTED_SKIPS])
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    skips.judge(report, collector.config.stash[EXPECTED_SKIPS])
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[ClusterInfo]:
    """A one-machine Slurm with two nodes; tests share it, so each waits for its own jobs and leaves none behind."""
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-slurm-"))
    try:
        yield up("tests", 2, folder / "c")
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def one_node() -> Iterator[ClusterInfo]:
    """A one-machine Slurm with a single node, which has all cores of this machine: for several ranks on a node."""
    slurm.needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-one-"))
    try:
        yield up("one", 1, folder / "c")
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def hosts() -> Iterator[ClusterInfo]:
    """A one-machine Slurm whose two nodes are hosts h1 and h2, in ``network``: an address, an interface of another name
    and a link of 1 Gbit/s each. A test that changes a link puts it back.
    """  # noqa: D205
    slurm.hosts_needed()
    folder = Path(tempfile.mkdtemp(prefix="lockstep-hosts-"))
    try:
        yield up("hosts", 2, folder / "c", hosts=True, link="1gbit")
    finally:
        down(folder / "c")
        shutil.rmtree(folder)


@pytest.fixture
def lockstep_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, which the environment names as well."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("LOCKSTEP_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server for the session."""
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.running(programs) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """An empty PostgreSQL database of this test's own."""
    return postgres_server.new_database()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of this test's own, once in SQLite and once in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'lockstep.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def chromium() -> Path:
    """A Chromium; start it with --no-sandbox (root) and --disable-dev-shm-usage."""
    found = browser.chromium()
    if found is None:
        pytest.skip("Chromium is not installed")
    return found
