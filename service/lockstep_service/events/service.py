"""What goes over a stream: what changed since the reader's last event, never a backlog of every change."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from anyio import Event, sleep, to_thread
from sse_starlette import ServerSentEvent

from lockstep_service.boundary import Application
from lockstep_service.events.schemas import JobsChanged, LogGrew, MetricsChanged, TimelineGrew
from lockstep_service.jobs import repository, service, view
from lockstep_service.jobs.logs import newest_size
from lockstep_service.jobs.schemas import JobSummary, Last
from lockstep_service.timeline import repository as timeline
from lockstep_service.wire import moment

_PACE_SECONDS = 0.5
"""Between two looks for one reader: at most two events of a kind a second."""
_LOG_SECONDS = 1.0
"""Between two looks at the log's size."""
_IDLE_SECONDS = 5.0
"""Between two looks into the database for a job that nobody tells of; a dispatch in another process tells of less."""
_OVERLAP = timedelta(seconds=60)
"""How far a reader that comes back is told again: a change may be committed later than it was made."""
_MOST_MISSED = 500


@dataclass(frozen=True)
class Seen:
    """What a reader knows, by its event id.

    The job's change (microseconds), the records' revision, the log's size, the timeline's newest entry.
    """

    job: int = -1
    revision: int = -1
    log: int = -1
    timeline: int = -1

    @classmethod
    def of(cls, event_id: str | None) -> Seen:
        """From an event id; nothing is known by an id that is none of ours."""
        parts = (event_id or "").split("-")
        if len(parts) == 4 and all(part.isascii() and part.isdigit() and len(part) <= 16 for part in parts):
            return cls(*(int(part) for part in parts))
        return cls()

    def __str__(self) -> str:
        return "-".join(str(max(known, 0)) for known in (self.job, self.revision, self.log, self.timeline))


@dataclass(frozen=True)
class _Look:
    seen: Seen
    job: JobSummary
    last: Last
    final: bool
    run: Path


def _look(app: Application, job_id: str, before: _Look | None = None) -> _Look:
    """How the job stands; ``before``: what the last look found."""
    with app.database.reading() as session:
        row = service.existing(session, job_id)
        size = newest_size(Path(row.run_dir))
        changed = _microseconds(row.changed_at)
        # Nothing is added to a timeline without the job being changed.
        if before is not None and before.seen.job == changed:
            newest = before.seen.timeline
        else:
            newest = timeline.latest(session, job_id)
        seen = Seen(changed, row.revision, size, newest)
        return _Look(seen, view.summary(row), view.last(row), row.final, Path(row.run_dir))


async def one_job(
    app: Application, job_id: str, last_event_id: str | None, stopping: Event
) -> AsyncGenerator[ServerSentEvent]:
    """The stream of one job; ``NotFoundError`` before it begins when there is none."""
    await to_thread.run_sync(_look, app, job_id)
    return _follow(app, job_id, Seen.of(last_event_id), stopping)


async def _follow(app: Application, job_id: str, known: Seen, stopping: Event) -> AsyncGenerator[ServerSentEvent]:
    with app.broadcaster.subscribe(job_id) as subscription, app.looks.following(job_id):
        while not stopping.is_set():
            look: _Look = await app.looks.at(job_id, subscription.told_at, partial(_look, app, job_id))
            looked_at, size = time.monotonic(), look.seen.log
            if look.seen.job != known.job:
                known = replace(known, job=look.seen.job)
                yield _event("job", look.job.model_dump_json(), known)
            if look.seen.revision != known.revision:
                known = replace(known, revision=look.seen.revision)
                data = MetricsChanged(revision=look.seen.revision, last=look.last)
                yield _event("metrics", data.model_dump_json(), known)
            if look.seen.timeline != known.timeline and look.seen.timeline > 0:
                known = replace(known, timeline=look.seen.timeline)
                yield _event("timeline", TimelineGrew(latest=look.seen.timeline).model_dump_json(), known)
            if look.seen.log != known.log and (look.seen.log > 0 or known.log > 0):
                known = replace(known, log=look.seen.log)
                yield _event("log", LogGrew(size=look.seen.log).model_dump_json(), known)
            if look.final:
                yield _event("end", look.job.model_dump_json(), known)
                return
            await sleep(_PACE_SECONDS)
            idle = _LOG_SECONDS if app.settings.role == "api" else _IDLE_SECONDS
            while not stopping.is_set() and not await subscription.changes(_LOG_SECONDS):
                # Nobody tells of a log that grows; looking at it by itself costs no question to the database.
                if time.monotonic() - looked_at >= idle or await to_thread.run_sync(newest_size, look.run) != size:
                    break


async def all_jobs(app: Application, last_event_id: str | None, stopping: Event) -> AsyncGenerator[ServerSentEvent]:
    """The stream of the list: which jobs changed."""
    since = Seen.of(f"{last_event_id}-0-0-0").job if last_event_id else -1
    with app.broadcaster.subscribe(None) as subscription:
        missed = await to_thread.run_sync(_changed_since, app, since) if since >= 0 else []
        asked_at = time.time_ns() // 1000
        while not stopping.is_set():
            for job_id in missed:
                yield ServerSentEvent(JobsChanged(id=job_id).model_dump_json(), event="jobs", id=str(asked_at))
            await sleep(_PACE_SECONDS)
            asked_at = time.time_ns() // 1000
            changes = await subscription.changes(_LOG_SECONDS - _PACE_SECONDS)
            missed = list(dict.fromkeys(change.job_id for change in changes))


def _changed_since(app: Application, microseconds: int) -> list[str]:
    since = moment(microseconds / 1_000_000)
    if since is None:
        return []
    with app.database.reading() as session:
        return list(repository.changed_since(session, since - _OVERLAP, _MOST_MISSED))


def _event(kind: str, data: str, known: Seen) -> ServerSentEvent:
    return ServerSentEvent(data, event=kind, id=str(known))


def _microseconds(when: datetime) -> int:
    return round(when.timestamp() * 1_000_000)
