"""From whatever went wrong to an RFC 9457 answer: our own errors, validation, the framework's, and the unforeseen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lockstep_service.errors import InvalidError, ProblemItem, ServiceError, plain, problem
from lockstep_slurm.job.words import place, sentence

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
    value = None if error["type"] in _VALUELESS else plain(error.get("input"))
    return ProblemItem(where=place(path), message=sentence(error, path), value=value)
