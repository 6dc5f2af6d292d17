"""What stands before every route: the limit of a body's size, and the headers that keep a browser safe."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lockstep_service.errors import TooLargeError

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Sets the same strict headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - what ASGI says
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class BodyLimit:
    """Answers 413 to a body that is longer than ``limit`` bytes, without reading the rest of it."""

    def __init__(self, app: ASGIApp, limit: int, except_for: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._except_for = dict(except_for)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - what ASGI says
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next((size for end, size in self._except_for.items() if scope["path"].endswith(end)), self._limit)
        refusal = TooLargeError(f"The body is longer than {limit} bytes; send less at once.")
        told = Headers(scope=scope).get("content-length", "0")
        if told.isascii() and told.isdigit() and int(told) > limit:
            await refusal.response()(scope, receive, send)
            return
        got = 0
        answered = False

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                if got > limit:
                    raise _Exceeded
            return message

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _Exceeded:
            if answered:
                raise
            await refusal.response()(scope, receive, send)


class _Exceeded(Exception):  # noqa: N818 - never leaves this module
    """More body than allowed."""
