"""The request boundary: what an endpoint is given, one transaction a request, conditional answers, body limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from lockstep_service.auth.service import Keys
from lockstep_service.clusters.answers import Answers
from lockstep_service.database import Database
from lockstep_service.errors import TooLargeError
from lockstep_service.events.broadcaster import Broadcaster
from lockstep_service.metrics.cache import FiguresCache
from lockstep_service.settings import Settings
from lockstep_slurm.client.protocol import SlurmClient


@dataclass
class Application:
    """What the parts of the running service share."""

    settings: Settings
    database: Database
    broadcaster: Broadcaster
    client: SlurmClient
    keys: Keys
    figures: FiguresCache = field(default_factory=FiguresCache)
    answers: Answers = field(default_factory=Answers)
    url: Callable[[], str | None] = lambda: None
    """Where compute nodes reach the service; None before it listens."""
    wake: Callable[[], None] = lambda: None
    """Tells dispatch that there is something to do."""
    dispatching: Callable[[], bool] = field(default=lambda: True)
    """Whether the dispatch loops are alive."""


def _application(request: Request) -> Application:
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
    """The request's body; ``TooLargeError`` as soon as it is longer than ``limit`` bytes."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise TooLargeError(f"The body is longer than {limit} bytes; send less at once.")
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
