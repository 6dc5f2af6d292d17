"""Two lanes of tests side by side: those on this machine's Slurms, which mostly wait, and those that mostly compute.

``make test`` runs pytest with two workers. One takes every test that brings up a Slurm or a browser on this machine, in
their order; the other all the rest, at a lower priority, in the time that the first leaves. So nothing that is started
once for a session is started twice, and no two tests use a cluster at the same time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

PARTS = ("benchmarks", "emulated", "horovod", "job", "placement", "service", "site", "support", "tools", "worker")
COMPUTING = tuple(f"tests/{part}/" for part in PARTS)
"""The emulated machine computes for two sockets, and has a Slurm of its own, as have benchmarks that need one; ranks
that no Slurm starts compute too."""
EXCEPT = ("tests/job/test_script.py", "tests/placement/test_slurm_node.py")
"""They ask for the session's Slurm."""
AGAIN = ("tests/benchmarks/", "tests/emulated/", "tests/service/test_hardening_slow.py", "tests/worker/")
"""Of the computing lane: what has deadlines of seconds, as most of the other lane has."""
ONCE = (
    "tests/worker/gradients/test_gradients.py",
    "tests/worker/gradients/test_connections.py",
    "tests/worker/gradients/test_tcp.py",
    "tests/worker/gradients/test_tuning.py",
    "tests/end_to_end/test_faults.py",
)
"""Never run again: a race between threads or ranks that is lost once, or a job that trained twice once, is a fault,
whatever the second run says. (The example trains with Horovod's own optimizer too, whose threads are not ours.)"""
SHARED = frozenset({"cluster", "one_node", "hosts", "second_cluster", "own_clusters", "chromium"})
"""Fixtures that the other lane alone may ask for."""
_NICENESS = 5


def lane(nodeid: str) -> str:
    """Which lane a test runs in, by its node id."""
    return "computing" if nodeid.startswith(COMPUTING) and not nodeid.startswith(EXCEPT) else "waiting"


def again(nodeid: str) -> bool:
    """Whether a test that fails beside the other lane is run once more."""
    return (lane(nodeid) == "waiting" or nodeid.startswith(AGAIN)) and not nodeid.startswith(ONCE)


class Lanes:
    """The plugin."""

    def __init__(self) -> None:
        self._gives_way = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> LoadScopeScheduling:
        """A scheduler that knows two lanes, whatever number of workers there are."""
        from xdist.scheduler import LoadScopeScheduling

        class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
            def _split_scope(self, nodeid: str) -> str:
                return lane(nodeid)

        return Scheduling(config, log)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Beside another lane a test may meet a machine that is too busy: if it fails it is run once more.

        The end of the tests names these and shows what failed; each is worth a look. By itself a test is run once.
        """
        for item in items:
            asked = SHARED.intersection(getattr(item, "fixturenames", ()))
            if asked and lane(item.nodeid) == "computing":
                raise pytest.UsageError(
                    f"{item.nodeid} asks for {', '.join(asked)}, which the other lane brings up: see support/lanes.py"
                )
        if "PYTEST_XDIST_WORKER" in os.environ:
            for item in items:
                if again(item.nodeid):
                    item.add_marker(pytest.mark.flaky(reruns=1))

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """A worker of the computing lane gives way, with all that it starts."""
        if "PYTEST_XDIST_WORKER" in os.environ and not self._gives_way and lane(item.nodeid) == "computing":
            self._gives_way = True
            os.nice(_NICENESS)
