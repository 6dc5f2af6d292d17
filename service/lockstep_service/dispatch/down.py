"""``Down``: the nodes that are down, for jobs that ended, or were put back into the queue, by one."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from lockstep_service.boundary import Application
from lockstep_service.clusters import repository as clusters
from lockstep_service.clusters.service import DEFAULT
from lockstep_slurm.client.protocol import SlurmError, SlurmNode

_log = logging.getLogger(__name__)


class Down:
    """The nodes that are down: by the kept answer, or asked for at most once a cycle when a job has ended by one."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._kept: dict[str, str] | None = None
        self._fresh: dict[str, str] | None = None

    def among(self, names: frozenset[str], *, fresh: bool) -> tuple[str, ...]:
        """Those of ``names`` that are down, each with Slurm's word for it; ``fresh``: as of now, if Slurm answers."""
        if not names:
            return ()
        nodes = self._now() if fresh else self._before()
        return tuple(said for name, said in sorted(nodes.items()) if name in names)

    def _before(self) -> dict[str, str]:
        if self._kept is None:
            with self._app.database.reading() as session:
                self._kept = _down(clusters.answer(clusters.get(session, DEFAULT)).nodes)
        return self._kept

    def _now(self) -> dict[str, str]:
        if self._fresh is None:
            self._fresh = {}
            # Slurm may take half a minute not to answer, and other jobs wait meanwhile.
            if self._app.answers.may_ask():
                try:
                    self._fresh = _down(self._app.client.nodes())
                except SlurmError as error:
                    self._app.answers.failed_at = time.monotonic()
                    _log.warning("Slurm could not be asked which node failed: %s", error)
        return self._fresh


def _down(nodes: Sequence[SlurmNode]) -> dict[str, str]:
    return {
        node.name: f"{node.name} is {node.state}" + (f" ({node.reason})" if node.reason else "")
        for node in nodes
        if node.state == "DOWN" or "NOT_RESPONDING" in node.flags
    }
