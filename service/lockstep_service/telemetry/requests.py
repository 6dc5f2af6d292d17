"""``Requests``: gives each request an id, times it, and writes one line of the log for it."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lockstep_service.telemetry.logs import about_job, about_request
from lockstep_service.telemetry.measures import Measures

HEADER = "X-Request-ID"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_JOB = re.compile(r"/jobs/([0-9a-f-]{36})(?:/|$)")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other is a stranger's, who is not to fill the metrics with words of his own."""
_log = logging.getLogger("lockstep_service.requests")


class Requests:
    """The outermost layer. An id that the caller gave is kept, so that a proxy's log and ours can be laid together."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - what ASGI says
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _GIVEN.fullmatch(given) else secrets.token_hex(8)
        # Never taken back: each request is a task with a context of its own, and what handles an unforeseen error,
        # outside of this layer, is to know the request as well.
        about_request(request_id)
        if found := _JOB.search(scope["path"]):
            about_job(found[1])
        began = time.perf_counter()
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start" and not answered:
                answered = True
                MutableHeaders(scope=message)[HEADER] = request_id
                self._note(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if not answered:
                self._note(scope, 500, time.perf_counter() - began)
            raise

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        operation = getattr(scope.get("route"), "name", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._measures.request_seconds.labels(method, operation, str(status)).observe(seconds)
        # As it came, percent signs and all, and without the query: what a person types there is nobody's to keep.
        path = scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        _log.info(
            "%s %s %d %.1f ms",
            scope["method"],
            path,
            status,
            seconds * 1000,
            extra={"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 6)},
        )
