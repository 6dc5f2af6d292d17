"""What Slurm has, as far as it is known: kept answers, and whether a spec can run on them."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from sqlalchemy.orm import Session

from lockstep_service.boundary import Application
from lockstep_service.clusters import fit, repository
from lockstep_service.clusters.schemas import Cluster, ClusterList, Node, NodeList
from lockstep_service.errors import InvalidError, NotFoundError
from lockstep_service.tables import ClusterRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import ClusterAnswer, SlurmError
from lockstep_slurm.job.spec import JobSpec

DEFAULT = "default"
_log = logging.getLogger(__name__)


def clusters(app: Application, session: Session) -> ClusterList:
    """All clusters, as of their last answers."""
    rows = repository.newest(session) or [ClusterRow(name=DEFAULT, client=app.client.kind, answer={})]
    return ClusterList(items=[_cluster(row) for row in rows])


def nodes(session: Session, name: str) -> NodeList:
    """The nodes of a cluster; ``NotFoundError`` when there is none of this name."""
    row = repository.get(session, name)
    if row is None and name != DEFAULT:
        raise NotFoundError(f"There is no cluster {name!r}; GET /api/v1/clusters lists them.")
    items = [
        Node(
            name=node.name,
            state=node.state,
            flags=list(node.flags),
            cpus=node.cpus,
            memory_mib=node.memory,
            partitions=list(node.partitions),
            reason=node.reason,
        )
        for node in repository.answer(row).nodes
    ]
    return NodeList(
        items=items, observed_at=row.observed_at if row else None, stale_since=row.stale_since if row else None
    )


def check(app: Application, spec: JobSpec) -> ClusterAnswer:
    """Refuses what the cluster can never run, by its last answer, which it returns; without any, Slurm will tell.

    However old that answer is, no request waits for another: Slurm may take half a minute not to answer.
    """
    answer = app.answers.lately()
    if answer is None:
        with app.database.reading() as session:
            answer = repository.kept(session, DEFAULT, app.client.kind)
        app.answers.keep(answer)
    if answer is None:
        answer = refresh(app)
    if (problem := fit.misfit(spec, answer)) is not None:
        raise InvalidError.at(problem.where, problem.message, problem.value)
    return answer


def refresh(app: Application) -> ClusterAnswer:
    """The cluster's last answer, after asking again if that is older than ``cluster_seconds`` and nobody is asking."""
    row = _kept(app)
    oldest = now() - timedelta(seconds=app.settings.cluster_seconds)
    fresh = row is not None and _answered(app, row) and row.observed_at is not None and row.observed_at > oldest
    if fresh or not app.answers.may_ask() or not app.answers.lock.acquire(blocking=False):
        return repository.answer(row)
    try:
        return _ask(app, row)
    finally:
        app.answers.lock.release()


def _ask(app: Application, row: ClusterRow | None) -> ClusterAnswer:
    """What the cluster answers now, kept; where it does not, its silence is kept, and the last answer is the answer."""
    try:
        found = ClusterAnswer(nodes=tuple(app.client.nodes()), partitions=tuple(app.client.partitions()))
    except SlurmError as error:
        app.answers.failed_at = time.monotonic()
        _log.warning("the cluster's nodes could not be asked for: %s", error)
        with app.database.writing() as session:
            repository.keep_silence(session, DEFAULT, app.client.kind, now())
        return repository.answer(row)
    app.answers.failed_at = None
    with app.database.writing() as session:
        repository.keep_answer(session, DEFAULT, app.client.kind, found, now())
    app.answers.keep(found)
    return found


def _kept(app: Application) -> ClusterRow | None:
    with app.database.reading() as session:
        return repository.get(session, DEFAULT)


def _answered(app: Application, row: ClusterRow | None) -> bool:
    """Whether the cluster ever answered, to a client of this kind."""
    return row is not None and row.client == app.client.kind and row.observed_at is not None


def _cluster(row: ClusterRow) -> Cluster:
    answer = repository.answer(row)
    return Cluster.model_validate(
        {
            "name": row.name,
            "client": row.client,
            "reachable": row.observed_at is not None and row.stale_since is None,
            "observed_at": row.observed_at,
            "nodes": len(answer.nodes),
            "cpus": sum(node.cpus for node in answer.nodes),
            "partitions": [partition.name for partition in answer.partitions],
        }
    )
