"""The request boundary: what an endpoint is given, one transaction a request, conditional answers, body limits."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from lockstep_service.auth.links import Links
from lockstep_service.auth.service import Keys
from lockstep_service.auth.sessions import Sessions
from lockstep_service.auth.writers import Writers
from lockstep_service.clusters.answers import Answers
from lockstep_service.database import Database
from lockstep_service.dispatch.outbox import OutboxState
from lockstep_service.dispatch.watched import Watch
from lockstep_service.errors import MalformedError, TooLargeError
from lockstep_service.events.broadcaster import Broadcaster
from lockstep_service.events.looks import Looks
from lockstep_service.jobs.attempts import Claims
from lockstep_service.jobs.forecasts import Forecasts
from lockstep_service.jobs.intake import Intake
from lockstep_service.jobs.progress import KeysInProgress
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.metrics.room import Room
from lockstep_service.settings import Settings
from lockstep_service.telemetry.measures import Measures
from lockstep_slurm.client.protocol import SlurmClient
from lockstep_slurm.site import rules
from lockstep_slurm.site.model import Site


@dataclass
class Application:
    """What the parts of the running service share."""

    settings: Settings
    database: Database
    broadcaster: Broadcaster
    client: SlurmClient
    keys: Keys
    links: Links
    sessions: Sessions
    site: Site
    figures: FiguresCache = field(default_factory=FiguresCache)
    answers: Answers = field(default_factory=Answers)
    writers: Writers = field(default_factory=Writers)
    claims: Claims = field(default_factory=Claims)
    taking_in: Room = field(default_factory=Room)
    looks: Looks[Any] = field(default_factory=Looks)
    watch: Watch = field(default_factory=Watch)
    """What the reconcile loop remembers from cycle to cycle."""
    measures: Measures = field(default_factory=Measures)
    forecasts: Forecasts = field(default_factory=Forecasts)
    keys_in_progress: KeysInProgress = field(default_factory=KeysInProgress)
    outbox: OutboxState = field(init=False)
    intake: Intake = field(init=False)
    url: Callable[[], str | None] = lambda: None
    """Where compute nodes reach the service; None before it listens."""
    umask: int | None = None
    """Of jobs: that with which the service was started; None: this process's own."""
    wake_submit: Callable[[], None] = lambda: None
    """Tells dispatch that there is a new job."""
    wake: Callable[[], None] = lambda: None
    """Tells dispatch that there is something to do."""
    want_nodes: Callable[[], None] = lambda: None
    """Tells dispatch that what the cluster last said of its nodes is too old."""
    dispatching: Callable[[], bool] = field(default=lambda: True)
    """Whether the dispatch loops are alive."""

    def __post_init__(self) -> None:
        """What follows from the settings."""
        self.outbox = OutboxState(rate=self.settings.submit_rate)
        self.intake = Intake(self.database)

    @property
    def runs(self) -> Path:
        """Where run directories are made, absolute."""
        folder = self.settings.runs or rules.runs_folder(self.site, self.keys.user) or self.settings.home / "runs"
        return folder.absolute()

    @property
    def python(self) -> str:
        """The interpreter of ranks whose spec brings none."""
        return self.settings.python or self.site.python or sys.executable


# Not for a thread of the pool: to go there and back takes longer than the look.
async def _application(request: Request) -> Application:
    application: Application = request.app.state.application
    return application


App = Annotated[Application, Depends(_application)]


def _reading(app: App) -> Iterator[Session]:
    with app.database.reading() as session:
        yield session


def _writing(app: App) -> Iterator[Session]:
    with app.database.writing() as session:
        yield session


# scope="function": the transaction ends before the answer leaves, so that what was answered is what is stored.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body; ``TooLargeError`` as soon as it is longer than ``limit`` bytes.

    ``MalformedError`` where its sender has gone before the end: no failure of ours, and nobody hears the answer.
    """
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise TooLargeError(f"The body is longer than {limit} bytes; send less at once.")
    except ClientDisconnect:
        raise MalformedError(f"The body ended after {len(body)} bytes, before it was whole; send it again.") from None
    return bytes(body)


async def _raw_body(request: Request, app: App) -> bytes:
    return await read_body(request, app.settings.records_limit)


RawBody = Annotated[bytes, Depends(_raw_body)]


def conditional(request: Request, model: BaseModel) -> Response:
    """``model`` as JSON with its ETag, or 304 when the caller has it already."""
    body = model.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("If-None-Match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)
