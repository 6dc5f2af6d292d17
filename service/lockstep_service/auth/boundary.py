"""Who a request comes from, as dependencies of endpoints."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from lockstep_service.auth.service import same, token_hash
from lockstep_service.boundary import App, Application
from lockstep_service.errors import ForbiddenError, UnauthenticatedError
from lockstep_service.jobs import repository

NOT_THE_JOBS = "The token is not this job's; each job has its own, in its report.json."
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_service_token = HTTPBearer(
    auto_error=False, scheme_name="token", description="The service's token; a browser has a session cookie instead"
)
_job_token = HTTPBearer(
    auto_error=False, scheme_name="job token", description="The token of one job, write-only, from its report.json"
)


def user_of(app: Application, request: Request) -> str:
    """The user that the request comes from; ``UnauthenticatedError`` if it is nobody's."""
    if (token := _given_token(request)) is not None:
        if same(token, app.keys.token):
            return app.keys.user
        raise UnauthenticatedError("The token is not this service's; it is in the file `token` of the service's home.")
    if (user := app.sessions.user(request.session)) is not None:
        # A page of another port of this host sends the cookie along, too: what it cannot read it may not ask either.
        same_origin(request, when_silent=request.method in _SAFE)
        return user
    raise UnauthenticatedError("Give the service's token as `Authorization: Bearer ...`, or open a session.")


def is_known(app: Application, request: Request) -> bool:
    """Whether the request has the service's token or a session; what else is to be said of it is said later."""
    if (token := _given_token(request)) is not None:
        return same(token, app.keys.token)
    return app.sessions.user(request.session) is not None


def _given_token(request: Request) -> str | None:
    """The token that the request brings; None for none: then its cookie says who it comes from, and nothing else."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def same_origin(request: Request, *, when_silent: bool = False) -> None:
    """Refuses a request that a page of another origin made. ``when_silent``: what holds when no header tells."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        allowed = site in {"same-origin", "none"}
    elif origin is not None:
        allowed = urlsplit(origin).netloc == request.headers.get("Host")
    else:
        allowed = when_silent
    if not allowed:
        raise ForbiddenError("The request comes from a page of another origin.")


async def _signed_in(
    app: App,
    request: Request,
    _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_service_token)],
) -> None:
    user_of(app, request)


async def _by_token(
    app: App,
    request: Request,
    _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_service_token)],
) -> None:
    user_of(app, request)
    if _given_token(request) is None:
        raise ForbiddenError("A session cannot do this; give the service's token as `Authorization: Bearer ...`.")


def _job_writer(
    app: App,
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_job_token)],
) -> str:
    if given is None:
        raise UnauthenticatedError("Give the job's own token as `Authorization: Bearer ...`; it is in its report.json.")
    job_id, hashed = str(request.path_params["id"]), token_hash(given.credentials)
    if not same(hashed, app.writers.of(job_id) or ""):
        # Given back before the endpoint takes one of its own: as many ranks as there are connections would wait for
        # ever.
        with app.database.reading() as session:
            kept = repository.token_hash(session, job_id) or ""
        if not same(hashed, kept):
            raise ForbiddenError(NOT_THE_JOBS)
        app.writers.learn(job_id, kept)
    return hashed


signed_in = Depends(_signed_in)
by_token = Depends(_by_token)
job_writer = Depends(_job_writer)
JobWriter = Annotated[str, job_writer]
"""The hash of the token that a rank has sent, which was its job's when it was last looked up."""
