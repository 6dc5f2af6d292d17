"""``Down``: the nodes that are down, for jobs that ended, or were put back into the queue, by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from lockstep_service.boundary import Application
from lockstep_service.clusters import repository as clusters
from lockstep_service.clusters.service import DEFAULT
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmNode

_FRESH = timedelta(seconds=10)


class Down:
    """The nodes that are down, by the kept answer: a cycle asks Slurm about jobs and nothing else.

    Where a job has ended by a node and that answer is too old to know of it, or does not, a newer one is wanted: the
    loop that asks for nodes is woken, and a later cycle knows.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._kept: dict[str, str] | None = None
        self._fresh = False
        self._wanted = False

    def among(self, names: frozenset[str], *, fresh: bool) -> tuple[str, ...]:
        """Those of ``names`` that are down, each with Slurm's word for it; ``fresh``: only by an answer of just now."""
        if not names:
            return ()
        kept = self._read()
        found = () if fresh and not self._fresh else tuple(kept[name] for name in sorted(names & kept.keys()))
        if fresh and not found and not self._wanted:
            self._wanted = True
            self._app.want_nodes()
        return found

    def _read(self) -> dict[str, str]:
        if self._kept is None:
            with self._app.database.reading() as session:
                row = clusters.get(session, DEFAULT)
                self._kept = _down(clusters.answer(row).nodes)
            self._fresh = row is not None and row.observed_at is not None and now() - row.observed_at < _FRESH
        return self._kept


def _down(nodes: Sequence[SlurmNode]) -> dict[str, str]:
    return {
        node.name: f"{node.name} is {node.state}" + (f" ({node.reason})" if node.reason else "")
        for node in nodes
        if node.state == "DOWN" or "NOT_RESPONDING" in node.flags
    }
