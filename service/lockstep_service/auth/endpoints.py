"""``/session``: the browser's way in, and out."""

from __future__ import annotations

from fastapi import APIRouter, Request, status

from lockstep_service.auth import service
from lockstep_service.auth.boundary import same_origin, user_of
from lockstep_service.auth.schemas import SessionRequest, SessionUser
from lockstep_service.boundary import App
from lockstep_service.errors import ForbiddenError, InvalidError, UnauthenticatedError, describe

router = APIRouter(prefix="/session", tags=["session"])


@router.get("", responses=describe(UnauthenticatedError))
def get_session(app: App, request: Request) -> SessionUser:
    """Who is signed in."""
    return SessionUser(user=user_of(app, request))


@router.post(
    "", status_code=status.HTTP_204_NO_CONTENT, responses=describe(UnauthenticatedError, ForbiddenError, InvalidError)
)
def open_session(app: App, request: Request, wanted: SessionRequest) -> None:
    """Signs a browser in with the service's token, by a cookie that scripts cannot read."""
    same_origin(request, when_silent=True)
    request.session.update(service.sign_in(app.keys, wanted.token))


@router.delete("", status_code=status.HTTP_204_NO_CONTENT, responses=describe(ForbiddenError))
def close_session(request: Request) -> None:
    """Signs the browser out."""
    same_origin(request, when_silent=True)
    request.session.clear()
