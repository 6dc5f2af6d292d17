"""``/events`` and ``/jobs/{id}/events``: server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import Event
from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

from lockstep_service.auth.boundary import signed_in
from lockstep_service.boundary import App
from lockstep_service.errors import NotFoundError, UnauthenticatedError, describe
from lockstep_service.events import service
from lockstep_service.events.schemas import JobEvent, JobsChanged
from lockstep_service.jobs.endpoints import JobId

router = APIRouter(tags=["events"], dependencies=[signed_in], responses=describe(UnauthenticatedError))

LastEventId = Annotated[str | None, Header(description="The id of the last event that was seen", max_length=128)]
_KEEP_ALIVE_SECONDS = 15
_SEND_TIMEOUT_SECONDS = 30
_GRACE_SECONDS = 1.5
"""More than the longest time that a stream waits for something to happen."""


def _stream(model: type[Any], description: str) -> dict[int | str, dict[str, Any]]:
    """The 200 of a stream, with the model of its data."""
    return {
        200: {
            "description": description,
            "content": {"text/event-stream": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}},
        }
    }


@router.get(
    "/events",
    response_class=EventSourceResponse,
    responses=_stream(JobsChanged, "Event `jobs` with `JobsChanged` whenever any job changed"),
)
async def stream_events(app: App, last_event_id: LastEventId = None) -> EventSourceResponse:
    """Which jobs change, as they change."""
    stopping = Event()
    return _response(service.all_jobs(app, last_event_id, stopping), stopping)


@router.get(
    "/jobs/{id}/events",
    response_class=EventSourceResponse,
    responses=_stream(JobEvent, "Events `job`, `metrics`, `log`, `end`; the data of each is the property of that name")
    | describe(NotFoundError),
)
async def stream_job_events(app: App, id: JobId, last_event_id: LastEventId = None) -> EventSourceResponse:  # noqa: A002
    """One job, as it changes; the stream closes after `end`."""
    stopping = Event()
    return _response(await service.one_job(app, id, last_event_id, stopping), stopping)


def _response(events: AsyncIterator[ServerSentEvent], stopping: Event) -> EventSourceResponse:
    """The stream; ``stopping`` is set when the server stops, and the stream ends itself soon after."""
    return EventSourceResponse(
        events,
        ping=_KEEP_ALIVE_SECONDS,
        send_timeout=_SEND_TIMEOUT_SECONDS,
        shutdown_event=stopping,
        shutdown_grace_period=_GRACE_SECONDS,
    )
