"""What Slurm has, as far as it is known: kept answers, and whether a spec can run on them."""

from __future__ import annotations

import logging
import time
from threading import Thread

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

    However old that answer is, no request waits for another: Slurm may take half a minute not to answer. Where there
    never was one, Slurm is asked in the background, and the first requests wait ``Answers.patience`` for that.
    """
    answer = app.answers.lately() or _stored(app) or _first(app)
    if (problem := fit.misfit(spec, answer)) is not None:
        raise InvalidError.at(problem.where, problem.message, problem.value)
    return answer


def refresh(app: Application) -> None:
    """Asks the cluster again if its last answer is older than ``cluster_seconds``, or a newer one is wanted.

    Not where somebody is asking, or nobody answered a moment ago. Two questions: for nodes, and for partitions.
    """
    if not app.answers.may_ask() or not app.answers.lock.acquire(blocking=False):
        return
    try:
        if app.answers.wanted or not fresh_for(app):
            app.answers.wanted = False
            _ask(app)
    finally:
        app.answers.lock.release()
        app.answers.came()


def fresh_for(app: Application) -> float:
    """For how many seconds the last answer is still new enough; 0 where it is not, or there is none."""
    with app.database.reading() as session:
        observed = repository.observed(session, DEFAULT, app.client.kind)
    if observed is None:
        return 0.0
    return max(0.0, (observed - now()).total_seconds() + app.settings.cluster_seconds)


def _ask(app: Application) -> None:
    """Keeps what the cluster answers now or, where it does not, its silence."""
    try:
        found = ClusterAnswer(nodes=tuple(app.client.nodes()), partitions=tuple(app.client.partitions()))
    except SlurmError as error:
        app.answers.failed_at = moment = time.monotonic()
        if (said := app.answers.trouble.failed(str(error), moment)) is not None:
            _log.warning("the cluster's nodes could not be asked for: %s", said)
        with app.database.writing() as session:
            repository.keep_silence(session, DEFAULT, app.client.kind, now())
        return
    app.answers.failed_at = None
    if (lasted := app.answers.trouble.went_well(time.monotonic())) is not None:
        _log.info("the cluster tells its nodes again, after %s", lasted)
    with app.database.writing() as session:
        repository.keep_answer(session, DEFAULT, app.client.kind, found, now())
    app.answers.keep(found)


def _stored(app: Application) -> ClusterAnswer | None:
    """The last answer, which this process or another kept."""
    with app.database.reading() as session:
        found = repository.kept(session, DEFAULT, app.client.kind)
    if found is not None:
        app.answers.keep(found)
    return found


def _first(app: Application) -> ClusterAnswer:
    """The first answer of all, if it comes soon; else one that tells nothing."""

    def ask() -> None:
        try:
            refresh(app)
        except Exception:  # of the database, say: there is nobody to tell, and the next request asks again
            _log.exception("the cluster could not be asked for its nodes")

    if app.answers.may_ask() and not app.answers.lock.locked():
        # A daemon: Slurm may take half a minute not to answer, and nothing depends on it.
        Thread(target=ask, name="cluster", daemon=True).start()
    app.answers.wait_for_first()
    return app.answers.lately() or _stored(app) or ClusterAnswer()


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
