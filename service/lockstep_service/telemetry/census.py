"""``Census``: what the database says whenever Prometheus asks: jobs by phase, and submits that were never answered."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import get_args

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from lockstep_service.boundary import Application
from lockstep_service.jobs import repository
from lockstep_service.jobs.schemas import Phase

_log = logging.getLogger(__name__)


class Census(Collector):
    """Counts at the moment of asking; two questions whose cost is that of an index, however many jobs there are."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def describe(self) -> list[Metric]:
        """Nothing: a registry that is told nothing does not ask the database at the start, before there are tables."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As Prometheus has it; where the database does not answer, that is what it says."""
        try:
            with self._app.database.reading() as session:
                phases, unanswered = repository.phases(session), repository.unanswered(session)
        except SQLAlchemyError as error:
            _log.warning("the jobs cannot be counted: %s", error)
            yield GaugeMetricFamily("lockstep_database_up", "Whether the database answers", 0)
            return
        yield GaugeMetricFamily("lockstep_database_up", "Whether the database answers", 1)
        jobs = GaugeMetricFamily("lockstep_jobs", "Jobs by phase", labels=["phase"])
        for phase in get_args(Phase):
            jobs.add_metric([phase], phases.get(phase, 0))
        yield jobs
        yield GaugeMetricFamily(
            "lockstep_submits_unanswered",
            "Jobs with a submit that is not answered: under way this moment, or its answer was lost",
            unanswered,
        )
        yield GaugeMetricFamily(
            "lockstep_event_streams", "Event streams that are open", self._app.broadcaster.listeners
        )
