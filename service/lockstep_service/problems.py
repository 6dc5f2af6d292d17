"""From whatever went wrong to an RFC 9457 answer: our own errors, validation, the framework's, and the unforeseen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from lockstep_service.errors import InvalidError, ProblemItem, ServiceError, plain, problem
from lockstep_slurm.job.spec import JobSpec

_log = logging.getLogger(__name__)
_VALUELESS = frozenset({"missing", "json_invalid", "model_attributes_type"})


def install(api: FastAPI) -> None:
    """Makes every error of ``api`` a problem document."""

    @api.exception_handler(ServiceError)
    def _ours(_request: Request, error: ServiceError) -> JSONResponse:
        return error.response()

    @api.exception_handler(RequestValidationError)
    def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return invalid(error.errors()).response()

    @api.exception_handler(HTTPException)
    def _framework(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        detail = f"{request.method} {request.url.path}: {error.detail}"
        if isinstance(bad := error.__cause__, UnicodeDecodeError):
            byte = f"byte 0x{bad.object[bad.start]:02x} at position {bad.start}"
            return InvalidError.at("", f"The body is not UTF-8: {byte}; send JSON in UTF-8.").response()
        return problem(
            status, status.phrase, detail, kind=status.name.lower().replace("_", "-"), headers=_headers(error)
        )

    @api.exception_handler(Exception)
    def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            ServiceError.title,
            f"{type(error).__name__}; the service's log has the whole of it.",
            kind="internal",
        )


def _headers(error: HTTPException) -> dict[str, str] | None:
    return dict(error.headers) if error.headers else None


def invalid(errors: Sequence[Mapping[str, Any]]) -> InvalidError:
    """Validation errors, as pydantic lists them, in words."""
    items = [_item(error) for error in errors]
    return InvalidError(
        "; ".join(f"{item.where}: {item.message}" if item.where else item.message for item in items), items
    )


def _item(error: Mapping[str, Any]) -> ProblemItem:
    path = [part for part in error["loc"] if part not in {"body", "query", "path", "header"}]
    if error["type"] == "json_invalid":
        # FastAPI gives the position of a JSON error as the last part of its place.
        reason = error.get("ctx", {}).get("error", "error")
        return ProblemItem(
            where="", message=f"The body is not JSON: {reason} at character {error['loc'][-1]}.", value=None
        )
    where = ".".join(
        str(part) for part in path if not (isinstance(part, str) and part.startswith(("literal[", "constrained-")))
    )
    value = None if error["type"] in _VALUELESS else plain(error.get("input"))
    return ProblemItem(where=where, message=_words(error, path, value), value=value)


def _words(error: Mapping[str, Any], path: list[Any], value: object) -> str:  # noqa: PLR0911 - one return a kind
    context = error.get("ctx") or {}
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            known = _known_keys(path[:-1])
            return f"is not a key that exists here{'; there are: ' + ', '.join(known) if known else ''}"
        case "literal_error" | "enum":
            return f"is {value!r}, but has to be one of {context.get('expected', 'the known ones')}".replace(
                " or ", ", "
            )
        case "greater_than_equal":
            return f"is {value!r}, but has to be at least {context['ge']}"
        case "greater_than":
            return f"is {value!r}, but has to be more than {context['gt']}"
        case "less_than_equal":
            return f"is {value!r}, but may be at most {context['le']}"
        case "less_than":
            return f"is {value!r}, but has to be less than {context['lt']}"
        case "string_pattern_mismatch":
            return f"is {value!r}, which does not have the form {context['pattern']}"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
        case _:
            return str(error["msg"])


def _known_keys(path: list[Any]) -> list[str]:
    """The keys of the ``JobSpec`` at ``path``."""
    model: type[BaseModel] = JobSpec
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *get_args(field.annotation)]
        models = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
