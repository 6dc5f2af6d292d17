"""``/jobs/{id}/metrics`` and ``/jobs/{id}/records``: figures out, records in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from lockstep_service.auth.boundary import JobWriter, job_writer, signed_in
from lockstep_service.boundary import App, RawBody, Reading, Writing, conditional
from lockstep_service.errors import (
    NOT_MODIFIED,
    BusyError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    TooLargeError,
    UnauthenticatedError,
    describe,
)
from lockstep_service.jobs.endpoints import JobId
from lockstep_service.metrics import service
from lockstep_service.metrics.record import Batch
from lockstep_service.metrics.schemas import Acknowledgement, Metrics


async def _in_its_turn(app: App) -> AsyncIterator[None]:
    """Lets in as many as there is room for, before any of their bodies is read."""
    with app.taking_in.entered(app.settings.records_at_once):
        yield


router = APIRouter(prefix="/jobs", tags=["metrics"], responses=describe(UnauthenticatedError))

_ENCODINGS: dict[str, Any] = {"enum": ["identity", "gzip", "x-gzip", ""]}


def _sent(
    app: App,
    id: JobId,  # noqa: A002
    body: RawBody,
    content_encoding: Annotated[str, Header(description="Of the body", json_schema_extra=_ENCODINGS)] = "identity",
) -> tuple[Batch, Collection[int]]:
    # Before the transaction: neither is to hold up whoever else has something to store.
    batch = service.unpack(body, content_encoding, app.settings.records_plain_limit)
    return batch, app.claims.seen(app.database, id, batch.attempts)


_NDJSON: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "One record a line (docs/records.md)"},
                "example": '{"v":1,"attempt":1,"rank":0,"seq":7,"time":1764000000,"kind":"end","step":6,"values":{}}\n',
            }
        },
    }
}


@router.get(
    "/{id}/metrics",
    dependencies=[signed_in],
    response_model=Metrics,
    responses=NOT_MODIFIED | describe(NotFoundError),
)
def get_job_metrics(
    request: Request,
    app: App,
    session: Reading,
    id: JobId,  # noqa: A002
    *,
    points: Annotated[int, Query(ge=2, le=10_000, description="At most so many per series; peaks stay visible")] = 600,
    joined: Annotated[
        bool,
        Query(
            description="One line of each figure over all attempts: of steps that a later attempt did again, as it did "
            "them. By default each attempt has its own"
        ),
    ] = False,
) -> Response:
    """Every series of the job, aggregated over its ranks, and the newest figures of each rank."""
    return conditional(request, service.metrics(app, session, id, points, joined=joined))


@router.post(
    "/{id}/records",
    dependencies=[job_writer, Depends(_in_its_turn, scope="function")],
    openapi_extra=_NDJSON,
    responses=describe(BusyError, ForbiddenError, InvalidError, MalformedError, TooLargeError),
)
def post_records(
    app: App,
    session: Writing,
    id: JobId,  # noqa: A002
    writer: JobWriter,
    sent: Annotated[tuple[Batch, Collection[int]], Depends(_sent)],
) -> Acknowledgement:
    """Stores a rank's records, all of them or none; sending one twice stores it once. Takes the job's own token."""
    batch, seen = sent
    return service.store(app, session, id, writer, batch, seen=seen)
