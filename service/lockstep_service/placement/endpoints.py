"""``/jobs/{id}/placement``: where ranks and threads were to sit, and where they do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lockstep_service.auth.boundary import signed_in
from lockstep_service.boundary import Reading, conditional
from lockstep_service.errors import NOT_MODIFIED, NotFoundError, UnauthenticatedError, describe
from lockstep_service.jobs.endpoints import JobId
from lockstep_service.placement import service
from lockstep_service.placement.schemas import JobPlacement

router = APIRouter(
    prefix="/jobs", tags=["placement"], dependencies=[signed_in], responses=describe(UnauthenticatedError)
)


@router.get("/{id}/placement", response_model=JobPlacement, responses=NOT_MODIFIED | describe(NotFoundError))
def get_job_placement(
    request: Request,
    session: Reading,
    id: JobId,  # noqa: A002 - the API's own word
    *,
    attempt: Annotated[int | None, Query(ge=1, description="By default the newest")] = None,
    node: Annotated[str | None, Query(max_length=255, pattern="^[!-~]+$", description="Of this node alone")] = None,
    brief: Annotated[bool, Query(description="Without machines, plans and threads: results and sentences")] = False,
) -> Response:
    """Each node's machine, its plan, and what the kernel says of every thread of every rank."""
    return conditional(request, service.read(session, id, attempt=attempt, node=node, brief=brief))
