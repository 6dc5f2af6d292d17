"""``/jobs/{id}/timeline``: what happened to a job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lockstep_service.auth.boundary import signed_in
from lockstep_service.boundary import Reading, conditional
from lockstep_service.errors import NOT_MODIFIED, InvalidError, NotFoundError, UnauthenticatedError, describe
from lockstep_service.jobs.endpoints import JobId
from lockstep_service.timeline import service
from lockstep_service.timeline.schemas import Timeline

router = APIRouter(
    prefix="/jobs", tags=["timeline"], dependencies=[signed_in], responses=describe(UnauthenticatedError)
)


@router.get("/{id}/timeline", response_model=Timeline, responses=NOT_MODIFIED | describe(NotFoundError, InvalidError))
def get_job_timeline(
    request: Request,
    session: Reading,
    id: JobId,  # noqa: A002 - the API's own word
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries on a page")] = 200,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before")] = None,
) -> Response:
    """What happened to the job, one sentence each, in the order in which the service learnt of it."""
    return conditional(request, service.read(session, id, limit, cursor))
