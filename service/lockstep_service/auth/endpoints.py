"""``/session``: the browser's way in, and out."""

from __future__ import annotations

from fastapi import APIRouter, Request, status

from lockstep_service.auth.boundary import by_token, same_origin, user_of
from lockstep_service.auth.schemas import SessionLink, SessionRequest, SessionUser
from lockstep_service.auth.service import same
from lockstep_service.boundary import App
from lockstep_service.errors import ForbiddenError, InvalidError, UnauthenticatedError, describe
from lockstep_service.wire import moment

router = APIRouter(prefix="/session", tags=["session"])


@router.get("", responses=describe(UnauthenticatedError))
def get_session(app: App, request: Request) -> SessionUser:
    """Who is signed in."""
    return SessionUser(user=user_of(app, request))


@router.post(
    "", status_code=status.HTTP_204_NO_CONTENT, responses=describe(UnauthenticatedError, ForbiddenError, InvalidError)
)
def open_session(app: App, request: Request, wanted: SessionRequest) -> None:
    """Signs a browser in, by a cookie that scripts cannot read."""
    same_origin(request, when_silent=True)
    if wanted.code is not None:
        if not app.links.take(wanted.code):
            raise UnauthenticatedError("This link was used already or is too old; `lockstep open` prints another.")
    elif not same((wanted.token or "").strip(), app.keys.token):
        raise UnauthenticatedError("This is not the service's token; `lockstep token` prints it.")
    request.session.update(app.sessions.begin())


@router.post(
    "/links",
    status_code=status.HTTP_201_CREATED,
    dependencies=[by_token],
    responses=describe(UnauthenticatedError, ForbiddenError),
)
def make_session_link(app: App) -> SessionLink:
    """A code that lets one browser in, once; for who has the token, and not for a session."""
    made = app.links.make()
    return SessionLink.model_validate({"code": made.code, "until": moment(made.until)})


@router.delete("", status_code=status.HTTP_204_NO_CONTENT, responses=describe(ForbiddenError))
def close_session(app: App, request: Request) -> None:
    """Signs the browser out; the session's cookie is worth nothing from here on."""
    same_origin(request, when_silent=True)
    app.sessions.close(request.session)
    request.session.clear()
