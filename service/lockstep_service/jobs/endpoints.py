"""``/jobs``: submitting, listing, looking at, cancelling and importing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response, status
from fastapi.responses import PlainTextResponse

from lockstep_service.auth.boundary import signed_in
from lockstep_service.boundary import App, Reading, Writing, conditional
from lockstep_service.errors import (
    NOT_MODIFIED,
    ConflictError,
    InvalidError,
    NotFoundError,
    Responses,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    describe,
)
from lockstep_service.jobs import importing, logs, service
from lockstep_service.jobs.schemas import EXAMPLE_ID, EXAMPLE_SPEC, ImportRequest, Job, JobPage, LogText
from lockstep_slurm.job.spec import JobSpec

router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[signed_in], responses=describe(UnauthenticatedError))

_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The job's address"}}
_CREATED: Responses = {201: {"headers": _LOCATION}}
_KNOWN: Responses = {
    200: {"model": Job, "description": "It was known already, and was read again", "headers": _LOCATION}
}

JobId = Annotated[str, Path(description="The job's id", examples=[EXAMPLE_ID], max_length=64)]


@router.get("", response_model=JobPage, responses=NOT_MODIFIED | describe(InvalidError))
def list_jobs(
    request: Request,
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before")] = None,
) -> Response:
    """Lists jobs, newest first."""
    return conditional(request, service.page(session, limit, cursor))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=_CREATED | describe(InvalidError, TooLargeError),
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": {"digits": {"value": EXAMPLE_SPEC}}}}}},
)
def submit_job(
    app: App,
    session: Writing,
    response: Response,
    spec: JobSpec,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="The same key with the same body answers the same job again"),
    ] = None,
) -> Job:
    """Stores a job; it is handed to Slurm right after. A refused spec stores nothing."""
    job = service.submit(app, session, spec, idempotency_key)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return job


@router.post(
    "/import",
    status_code=status.HTTP_201_CREATED,
    responses=_CREATED | _KNOWN | describe(InvalidError),
)
def import_run(app: App, response: Response, wanted: ImportRequest) -> Job:
    """Takes in a run that was made without the service, from its run directory."""
    job, known = importing.take_in(app, wanted.run_dir)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    if known:
        response.status_code = status.HTTP_200_OK
    return job


@router.get("/{id}", response_model=Job, responses=NOT_MODIFIED | describe(NotFoundError))
def get_job(request: Request, session: Reading, id: JobId) -> Response:  # noqa: A002 - the API's own word
    """One job, with its spec."""
    return conditional(request, service.show(session, id))


@router.post("/{id}/cancel", status_code=status.HTTP_202_ACCEPTED, responses=describe(NotFoundError, ConflictError))
def cancel_job(app: App, session: Writing, id: JobId) -> Job:  # noqa: A002
    """Asks for the job's end; one that Slurm has not heard of yet ends at once."""
    return service.cancel(app, session, id)


@router.get("/{id}/script", response_class=PlainTextResponse, responses=describe(NotFoundError))
def get_job_script(session: Reading, id: JobId) -> str:  # noqa: A002
    """The batch script, byte for byte as it was submitted."""
    return service.script(session, id)


@router.get("/{id}/logs", responses=describe(NotFoundError, UnavailableError))
def get_job_logs(
    session: Reading,
    id: JobId,  # noqa: A002
    offset: Annotated[int, Query(description="In bytes; negative: from the end")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_048_576, description="In bytes")] = 65_536,
    attempt: Annotated[int | None, Query(ge=1, description="By default the newest")] = None,
) -> LogText:
    """A piece of the job's log: standard output and error of the script and of all ranks."""
    return logs.read(session, id, offset=offset, limit=limit, attempt=attempt)
