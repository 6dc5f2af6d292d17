"""The data of server-sent events that is not already a model of its own."""

from __future__ import annotations

from pydantic import Field

from lockstep_service.jobs.schemas import JobSummary, Last
from lockstep_service.wire import Wire


class JobsChanged(Wire):
    """Event `jobs`: this job changed."""

    id: str


class MetricsChanged(Wire):
    """Event `metrics`: new records came in."""

    revision: int
    last: Last


class LogGrew(Wire):
    """Event `log`: the newest log has this size now."""

    size: int = Field(description="Bytes")


class TimelineGrew(Wire):
    """Event `timeline`: the job's timeline has new entries."""

    latest: int = Field(description="The id of its newest entry")


class JobEvent(Wire):
    """What a job's stream carries: the data of each kind of event, by its name. Never sent as one object."""

    job: JobSummary
    metrics: MetricsChanged
    timeline: TimelineGrew
    log: LogGrew
    end: JobSummary
