"""From whatever went wrong to an RFC 9457 answer: our own errors, validation, the framework's, and the unforeseen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from lockstep_service.errors import InvalidError, ProblemItem, ServiceError, UnavailableError, plain, problem
from lockstep_service.telemetry.logs import request_id
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.words import place, sentence

_log = logging.getLogger(__name__)
_VALUELESS = frozenset({"missing", "json_invalid", "model_attributes_type"})


def install(api: FastAPI) -> None:
    """Makes every error of ``api`` a problem document."""

    @api.exception_handler(ServiceError)
    def _ours(_request: Request, error: ServiceError) -> JSONResponse:
        return error.response()

    @api.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        of = _body_model(request)
        return _together([_of_request(found, of) for found in error.errors()]).response()

    @api.exception_handler(HTTPException)
    def _framework(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        detail = f"{request.method} {request.url.path}: {error.detail}"
        if isinstance(error.__cause__, RecursionError):
            return InvalidError.at("", "The body is nested too deeply.").response()
        if isinstance(bad := error.__cause__, UnicodeDecodeError):
            byte = f"byte 0x{bad.object[bad.start]:02x} at position {bad.start}"
            return InvalidError.at("", f"The body is not UTF-8: {byte}; send JSON in UTF-8.").response()
        if isinstance(bad := error.__cause__, ValueError):
            return InvalidError.at("", f"The body cannot be read: {bad!s:.200}").response()
        headers = dict(error.headers) if error.headers else {}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names the methods of the first route that has the path; there is one for each method.
            headers["Allow"] = ", ".join(sorted(allowed(request)))
            detail = f"{request.method} {request.url.path} does not exist; this path has: {headers['Allow']}"
        return problem(status, status.phrase, detail, kind=status.name.lower().replace("_", "-"), headers=headers)

    @api.exception_handler(DataError)
    def _unstorable(request: Request, error: DataError) -> JSONResponse:
        _log.warning("%s %s: %s", request.method, request.url.path, error.orig)
        return InvalidError.at("", f"It has a value that cannot be stored: {error.orig!s:.200}").response()

    _install_unforeseen(api)


def _install_unforeseen(api: FastAPI) -> None:
    @api.exception_handler(OperationalError)
    def _database(request: Request, error: OperationalError) -> JSONResponse:
        _log.error("%s %s: the database: %s", request.method, request.url.path, error.orig)
        return UnavailableError(
            f"The database cannot do it just now ({error.orig}); nothing was changed as far as it is known. Send it "
            "again, a submission with the same Idempotency-Key."
        ).response()

    @api.exception_handler(Exception)
    def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            ServiceError.title,
            f"{type(error).__name__}; the service's log has the whole of it, as request {request_id()}.",
            kind="internal",
        )


def allowed(request: Request) -> set[str]:
    """The methods that the API has for this path; for one that is none of the API's, those of the dashboard."""
    # By the document, and computed with it once: there is a route for each method, and no public way to list them all.
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    # A path without parameters goes before those with some (OpenAPI 3.1, Paths Object).
    for template, operations in sorted(paths.items(), key=lambda path: path[0].count("{")):
        if compile_path(template)[0].match(request.url.path):
            return {method.upper() for method in operations}
    return {"GET", "HEAD"}


def invalid(errors: Sequence[Mapping[str, Any]]) -> InvalidError:
    """What is wrong with a spec, as pydantic lists it, in words."""
    return _together([_item(error, error["loc"], JobSpec) for error in errors])


def _together(items: list[ProblemItem]) -> InvalidError:
    return InvalidError(
        "; ".join(f"{item.where}: {item.message}" if item.where else item.message for item in items), items
    )


def _body_model(request: Request) -> type[BaseModel]:
    """Whose keys the body of this request has; where it has no model, and so no finding on a key, a spec's."""
    field = getattr(request.scope.get("route"), "body_field", None)
    of = field.field_info.annotation if field is not None else None
    return of if isinstance(of, type) and issubclass(of, BaseModel) else JobSpec


def _of_request(error: Mapping[str, Any], of: type[BaseModel]) -> ProblemItem:
    if error["type"] == "json_invalid":
        # FastAPI gives the position of a JSON error as the last part of its place.
        reason = error.get("ctx", {}).get("error", "error")
        return ProblemItem(
            where="", message=f"The body is not JSON: {reason} at character {error['loc'][-1]}.", value=None
        )
    if error["type"] == "missing" and error["loc"] == ("body",):
        return ProblemItem(where="", message="The body is missing; it has to be JSON.", value=None)
    if isinstance(error.get("input"), bytes) and error["loc"] == ("body",):
        # FastAPI parses a body as JSON only where its header says that it is.
        message = "The body is not said to be JSON; send it with the header Content-Type: application/json."
        return ProblemItem(where="", message=message, value=None)
    return _item(error, error["loc"][1:], of)  # the first part is FastAPI's: body, query, path or header


def _item(error: Mapping[str, Any], path: Sequence[int | str], of: type[BaseModel]) -> ProblemItem:
    value = None if error["type"] in _VALUELESS else plain(error.get("input"))
    return ProblemItem(where=place(path), message=sentence(error, path, of), value=value)
