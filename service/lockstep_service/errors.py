"""Every error that the service answers with: one base class, rendered as RFC 9457 and part of the OpenAPI document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from lockstep_service.wire import Wire

MEDIA_TYPE = "application/problem+json"


class ProblemItem(Wire):
    """One thing that is wrong with the request."""

    where: str = Field(
        description="Dotted path of the field, such as `training.model`; empty for the request as a whole"
    )
    message: str
    value: Any = Field(description="What was given there; null where that cannot be shown")


class Problem(Wire):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank#invalid",
                    "title": "The request is not valid",
                    "status": 422,
                    "detail": "training.model: is 'resnet51', but has to be one of 'digits-cnn', 'resnet50'",
                    "errors": [
                        {
                            "where": "training.model",
                            "message": "is 'resnet51', but has to be one of 'digits-cnn', 'resnet50'",
                            "value": "resnet51",
                        }
                    ],
                }
            ]
        }
    )

    type: str = Field(description="Which kind of problem; stays the same when wording changes")
    title: str
    status: int
    detail: str = Field(description="What was wrong, with which value, and what to do")
    errors: list[ProblemItem]


class ServiceError(Exception):
    """The base: a subclass gives the status and title, an instance says what happened to whom."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    title: str = "Something went wrong in the service"
    kind: str = "internal"
    headers: dict[str, str] | None = None

    def __init__(self, detail: str, errors: list[ProblemItem] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []

    def response(self) -> JSONResponse:
        """The problem as an answer."""
        return problem(self.status, self.title, self.detail, kind=self.kind, errors=self.errors, headers=self.headers)


class InvalidError(ServiceError):
    """The request cannot be taken as it is."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    title = "The request is not valid"
    kind = "invalid"

    @classmethod
    def at(cls, where: str, message: str, value: object = None) -> InvalidError:
        """One thing wrong, at one place."""
        return cls(
            f"{where}: {message}" if where else message, [ProblemItem(where=where, message=message, value=plain(value))]
        )

    @classmethod
    def at_all(cls, found: Sequence[tuple[str, str, object]]) -> InvalidError:
        """Several things wrong, each (place, message, value)."""
        items = [ProblemItem(where=where, message=message, value=plain(value)) for where, message, value in found]
        return cls("; ".join(f"{item.where}: {item.message}" for item in items), items)

    def beneath(self, place: str) -> InvalidError:
        """The same, where what is wrong is in something at ``place``."""
        return InvalidError.at_all(
            [(f"{place}.{item.where}" if item.where else place, item.message, item.value) for item in self.errors]
        )


class MalformedError(ServiceError):
    """The body could not even be read."""

    status = HTTPStatus.BAD_REQUEST
    title = "The request could not be read"
    kind = "malformed"


class UnknownHostError(ServiceError):
    """The request's Host header has a name that is none of this service's."""

    status = HTTPStatus.BAD_REQUEST
    title = "Not a name of this service"
    kind = "unknown-host"


class UnauthenticatedError(ServiceError):
    """Nobody, or the wrong token."""

    status = HTTPStatus.UNAUTHORIZED
    title = "Not signed in"
    kind = "unauthenticated"
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012


class ForbiddenError(ServiceError):
    """Known, but not for this."""

    status = HTTPStatus.FORBIDDEN
    title = "Not allowed"
    kind = "forbidden"


class NotFoundError(ServiceError):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND
    title = "Not found"
    kind = "not-found"


class ConflictError(ServiceError):
    """It cannot be done in the state that the thing is in."""

    status = HTTPStatus.CONFLICT
    title = "Not possible in this state"
    kind = "conflict"


class InProgressError(ConflictError):
    """The same request is being answered now."""

    title = "Being answered now"
    kind = "in-progress"
    headers = {"Retry-After": "1"}  # noqa: RUF012


class TooLargeError(ServiceError):
    """More bytes than the service takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    title = "Too large"
    kind = "too-large"


class BusyError(ServiceError):
    """More at once than the service takes; the same request will do later."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    title = "Too much at once"
    kind = "busy"
    headers = {"Retry-After": "1"}  # noqa: RUF012


class TooSlowError(ServiceError):
    """A body that does not come."""

    status = HTTPStatus.REQUEST_TIMEOUT
    title = "Too slow"
    kind = "too-slow"


class UnavailableError(ServiceError):
    """Something that is needed does not answer just now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    title = "Not possible just now"
    kind = "unavailable"
    headers = {"Retry-After": "5"}  # noqa: RUF012


def problem(  # what RFC 9457 has
    status: int,
    title: str,
    detail: str,
    *,
    kind: str,
    errors: list[ProblemItem] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An ``application/problem+json`` answer."""
    body = Problem(type=f"about:blank#{kind}", title=title, status=int(status), detail=detail, errors=errors or [])
    return JSONResponse(body.model_dump(mode="json"), status_code=int(status), headers=headers, media_type=MEDIA_TYPE)


Responses = dict[int | str, dict[str, Any]]
NOT_MODIFIED: Responses = {304: {"description": "Nothing changed since the ETag that was sent"}}


def describe(*errors: type[ServiceError]) -> Responses:
    """The ``responses`` of an endpoint that may raise these, for the OpenAPI document."""
    return {
        int(error.status): {
            "description": error.title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for error in errors
    }


def plain(value: object, limit: int = 200) -> object:
    """``value`` as JSON can carry it, long texts cut: for showing what was given."""
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        shown = value.encode("utf-8", "backslashreplace").decode()
        return shown if len(shown) <= limit else shown[:limit] + "…"
    if isinstance(value, list) and len(value) <= 8:
        return [plain(item, 60) for item in value]
    return None
