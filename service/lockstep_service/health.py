"""``/healthz`` and ``/readyz``: for whoever keeps the service running; no token needed, no secret told."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response, status

from lockstep_service.boundary import App
from lockstep_service.wire import Wire

router = APIRouter(tags=["health"])


class Health(Wire):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Wire):
    """Which parts work. Slurm is not among them: the service stays up while Slurm is down."""

    database: bool
    dispatch: bool | None
    """None where another process dispatches (``--role api``); that one has a ``/readyz`` of its own."""


@router.get("/healthz")
def healthz() -> Health:
    """Whether the process answers."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready"}})
def readyz(app: App, response: Response) -> Readiness:
    """Whether requests can be served and jobs are being dispatched."""
    dispatch = app.dispatching() if app.settings.role != "api" else None
    ready = Readiness(database=app.database.answers(), dispatch=dispatch)
    if not ready.database or ready.dispatch is False:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return ready
