"""``/events`` and ``/jobs/{id}/events``: server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from anyio import Event
from fastapi import APIRouter, Header, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from lockstep_service.auth.boundary import is_known, signed_in
from lockstep_service.boundary import App, Application
from lockstep_service.errors import NotFoundError, UnauthenticatedError, describe
from lockstep_service.events import service
from lockstep_service.events.schemas import JobEvent, JobsChanged
from lockstep_service.jobs.endpoints import JobId

router = APIRouter(tags=["events"], dependencies=[signed_in], responses=describe(UnauthenticatedError))

LastEventId = Annotated[str | None, Header(description="The id of the last event that was seen", max_length=128)]
_KEEP_ALIVE_SECONDS = 15
_SEND_TIMEOUT_SECONDS = 30
_MODELS = {name: field.annotation.__name__ for name, field in JobEvent.model_fields.items() if field.annotation}
_GRACE_SECONDS = 1.5
"""More than the longest time that a stream waits for something to happen."""


def _stream(description: str, events: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    """The 200 of a stream, with the schema of its ``events``: their names, and the models of their data."""
    text = {"type": "string", "contentMediaType": "application/json"}
    items = [
        {
            "type": "object",
            "required": ["event", "data", "id"],
            "properties": {
                "event": {"const": name},
                "id": {"type": "string"},
                "data": text | {"contentSchema": {"$ref": f"#/components/schemas/{model}"}},
            },
        }
        for name, model in events.items()
    ]
    return {200: {"description": description, "content": {"text/event-stream": {"itemSchema": {"oneOf": items}}}}}


@router.get(
    "/events",
    response_class=EventSourceResponse,
    responses=_stream("Event `jobs` whenever any job changed", {"jobs": JobsChanged.__name__}),
)
async def stream_events(app: App, request: Request, last_event_id: LastEventId = None) -> EventSourceResponse:
    """Which jobs change, as they change."""
    stopping = Event()
    return _response(_while_known(app, request, service.all_jobs(app, last_event_id, stopping)), stopping)


@router.get(
    "/jobs/{id}/events",
    response_class=EventSourceResponse,
    responses=_stream("Events by name; the stream closes after `end`", _MODELS) | describe(NotFoundError),
)
async def stream_job_events(
    app: App,
    request: Request,
    id: JobId,  # noqa: A002
    last_event_id: LastEventId = None,
) -> EventSourceResponse:
    """One job, as it changes; the stream closes after `end`."""
    stopping = Event()
    return _response(_while_known(app, request, await service.one_job(app, id, last_event_id, stopping)), stopping)


async def _while_known(
    app: Application, request: Request, events: AsyncGenerator[ServerSentEvent]
) -> AsyncGenerator[ServerSentEvent]:
    """``events``, until who reads them has signed out: of what comes then nothing is told any more."""
    async with aclosing(events):
        async for event in events:
            if not is_known(app, request):
                return
            yield event


def _response(events: AsyncIterator[ServerSentEvent], stopping: Event) -> EventSourceResponse:
    """The stream; ``stopping`` is set when the server stops, and the stream ends itself soon after."""
    return EventSourceResponse(
        events,
        ping=_KEEP_ALIVE_SECONDS,
        send_timeout=_SEND_TIMEOUT_SECONDS,
        shutdown_event=stopping,
        shutdown_grace_period=_GRACE_SECONDS,
    )
