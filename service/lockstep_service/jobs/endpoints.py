"""``/jobs``: submitting, previewing, listing, looking at, controlling and importing."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response, status
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
from lockstep_service.jobs import batch, control, importing, logs, preview, service
from lockstep_service.jobs.batch_schemas import Batch, BatchRequest
from lockstep_service.jobs.following import Following
from lockstep_service.jobs.preview_schemas import Preview
from lockstep_service.jobs.schemas import EXAMPLE_ID, EXAMPLE_SPEC, ImportRequest, Job, JobPage, LogText
from lockstep_service.jobs.service import Origin
from lockstep_slurm.job import forms
from lockstep_slurm.job.spec import JobSpec

router = APIRouter(prefix="/jobs", tags=["jobs"], dependencies=[signed_in], responses=describe(UnauthenticatedError))

_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "The job's address"}}
_CREATED: Responses = {201: {"headers": _LOCATION}}
_KNOWN: Responses = {
    200: {"model": Job, "description": "It was known already, and was read again", "headers": _LOCATION}
}

# More than an id has, for the sake of clear words about a wrong one; a NUL is what PostgreSQL takes in no text.
_PATTERN = "^[!-~]+$"
_SPEC_EXAMPLE = {"requestBody": {"content": {"application/json": {"examples": {"digits": {"value": EXAMPLE_SPEC}}}}}}
_CHANGES_EXAMPLES = {
    "exactly": {"summary": "Exactly as it was", "value": {}},
    "changed": {
        "summary": "With another batch size and without its time limit",
        "value": {"training": {"batch_size": 64}, "resources": {"time": None}},
    },
}

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="The same key with the same body answers the same job again; with another body 422, and 409 while "
        "the first request with it is being answered",
    ),
]


async def _following(
    after: Annotated[
        str | None,
        Query(
            max_length=64,
            pattern=_PATTERN,
            description="The id of a job that has to end well before this one may start",
            examples=[EXAMPLE_ID],
        ),
    ] = None,
    *,
    after_any: Annotated[bool, Query(description="Start after any end of that job, a bad one as well")] = False,
) -> Following | None:
    return Following(after, after_any) if after is not None else None


After = Annotated[Following | None, Depends(_following)]
JobId = Annotated[str, Path(description="The job's id", examples=[EXAMPLE_ID], max_length=64, pattern=_PATTERN)]


def _created(job: Job) -> Response:
    # As it is: the framework would read, check and write it once more, for longer than it took to store it.
    return Response(
        job.model_dump_json(),
        status_code=status.HTTP_201_CREATED,
        media_type="application/json",
        headers={"Location": f"/api/v1/jobs/{job.id}"},
    )


@router.get("", response_model=JobPage, responses=NOT_MODIFIED | describe(InvalidError))
def list_jobs(
    request: Request,
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=64, pattern=_PATTERN, description="`next_cursor` of the page before")
    ] = None,
) -> Response:
    """Lists jobs, newest first."""
    return conditional(request, service.page(session, limit, cursor))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=Job,
    responses=_CREATED | describe(ConflictError, InvalidError, TooLargeError, UnavailableError),
    openapi_extra=_SPEC_EXAMPLE,
)
def submit_job(app: App, spec: JobSpec, after: After, *, idempotency_key: Key = None) -> Response:
    """Stores a job; it is handed to Slurm right after. A refused spec stores nothing."""
    return _created(service.store(app, spec, idempotency_key, Origin(after)))


@router.post(
    "/batch",
    status_code=status.HTTP_201_CREATED,
    response_model=Batch,
    responses=describe(ConflictError, InvalidError, TooLargeError, UnavailableError),
)
def submit_batch(app: App, wanted: BatchRequest, after: After, *, idempotency_key: Key = None) -> Response:
    """Stores many jobs by one transaction: all, or none where one is refused; `errors` says which, and where."""
    stored = batch.store(app, wanted, idempotency_key, Origin(after))
    return Response(stored.model_dump_json(), status_code=status.HTTP_201_CREATED, media_type="application/json")


@router.post(
    "/preview",
    responses=describe(InvalidError, TooLargeError, UnavailableError),
    openapi_extra=_SPEC_EXAMPLE,
)
def preview_job(app: App, spec: JobSpec, after: After) -> Preview:
    """What a submission would come to: the script, the placement, and what Slurm says of it. Nothing is stored."""
    return preview.preview(app, spec, after)


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


@router.post(
    "/{id}/rerun",
    status_code=status.HTTP_201_CREATED,
    response_model=Job,
    responses=_CREATED | describe(NotFoundError, ConflictError, InvalidError, TooLargeError, UnavailableError),
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": _CHANGES_EXAMPLES}}}},
)
def rerun_job(
    app: App,
    id: JobId,  # noqa: A002
    after: After,
    *,
    from_checkpoint: Annotated[
        str | None,
        Query(
            alias="from",
            pattern=forms.CHECKPOINT,
            description="The new job goes on from this checkpoint of the old one: its last, that of its best "
            "evaluation, or that of a step",
            examples=["last"],
        ),
    ] = None,
    changes: Annotated[
        dict[str, Any] | None,
        Body(description="What is to be different: a merge patch of the spec (RFC 7396), in which null removes a key"),
    ] = None,
    idempotency_key: Key = None,
) -> Response:
    """Submits a job's spec again, as a new job: exactly as it was, or with changes; anew, or from a checkpoint."""
    spec, origin = control.rerun(app, id, changes, after, from_checkpoint)
    return _created(service.store(app, spec, idempotency_key, origin))


@router.post("/{id}/hold", status_code=status.HTTP_202_ACCEPTED, responses=describe(NotFoundError, ConflictError))
def hold_job(app: App, session: Writing, id: JobId) -> Job:  # noqa: A002
    """Keeps a job from starting until it is released, whether Slurm has heard of it or not."""
    return control.hold(app, session, id)


@router.post("/{id}/release", status_code=status.HTTP_202_ACCEPTED, responses=describe(NotFoundError, ConflictError))
def release_job(app: App, session: Writing, id: JobId) -> Job:  # noqa: A002
    """Lets a held job start when its turn comes."""
    return control.release(app, session, id)


@router.post("/{id}/requeue", status_code=status.HTTP_202_ACCEPTED, responses=describe(NotFoundError, ConflictError))
def requeue_job(app: App, session: Writing, id: JobId) -> Job:  # noqa: A002
    """Ends a running job's attempt and puts the job back into Slurm's queue, for another attempt."""
    return control.requeue(app, session, id)


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
