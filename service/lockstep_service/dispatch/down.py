"""``Down``: the nodes that are down, for jobs that ended, or were put back into the queue, by one."""

from __future__ import annotations

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
        self._kept: dict[str, SlurmNode] | None = None
        self._fresh = False
        self._wanted = False

    def among(self, names: frozenset[str], *, fresh: bool) -> tuple[str, ...]:
        """Those of ``names`` that are down, or do not respond, each with Slurm's word for it.

        ``fresh``: only by an answer of just now, and only those that are down: before it gives a node up, and ends the
        jobs there, Slurm says for a while that it does not respond.
        """
        if not names:
            return ()
        kept = self._read()
        nodes = [kept[name] for name in sorted(names & kept.keys())]
        if fresh:
            nodes = [node for node in nodes if self._fresh and _is_down(node)]
        found = tuple(map(_word, nodes))
        if fresh and not found and not self._wanted:
            self._wanted = True
            self._app.want_nodes()
        return found

    def _read(self) -> dict[str, SlurmNode]:
        if self._kept is None:
            with self._app.database.reading() as session:
                row = clusters.get(session, DEFAULT)
                nodes = clusters.answer(row).nodes
                self._kept = {node.name: node for node in nodes if _is_down(node) or _is_silent(node)}
            self._fresh = row is not None and row.observed_at is not None and now() - row.observed_at < _FRESH
        return self._kept


def _is_down(node: SlurmNode) -> bool:
    return node.state == "DOWN"


def _is_silent(node: SlurmNode) -> bool:
    return "NOT_RESPONDING" in node.flags


def _word(node: SlurmNode) -> str:
    silent = " and does not respond" if _is_silent(node) and not _is_down(node) else ""
    return f"{node.name} is {node.state}{silent}" + (f" ({node.reason})" if node.reason else "")
