"""What stands before every route: the host names, the limit of a body's size, the headers that keep a browser safe."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lockstep_service.errors import ServiceError, TooLargeError, TooSlowError, UnknownHostError, plain

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


class OwnNames:
    """Refuses requests by any host name but ``names``, in words that say what to set."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._check = TrustedHostMiddleware(self._own, names, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - what ASGI says
        if scope["type"] != "http":
            await self._check(scope, receive, send)
            return

        async def not_starlettes_words(message: Message) -> None:
            if _OWN in scope:
                await send(message)

        await self._check(scope, receive, not_starlettes_words)
        if _OWN not in scope:
            called = plain(_PORT.sub("", Headers(scope=scope).get("host", "")))
            refused = UnknownHostError(
                f"This service is not called {called!r}. If it should be, by a proxy of yours for one, start it with "
                "that name in LOCKSTEP_ALLOWED_HOSTS."
            )
            await refused.response()(scope, receive, send)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_OWN] = True
        await self._app(scope, receive, send)


_OWN = "lockstep.own_name"
_PORT = re.compile(r":\d+$")
STRANGER_LIMIT = 64 * 1024
"""Bytes of a body of somebody who has not said who they are: it is read before that is found out."""
GRACE_SECONDS = 20.0
LEAST_RATE = 16 * 1024
"""Bytes a second that a body has to come with, on the whole and after the grace."""


class BodyLimit:
    """Answers 413 to a body that is too long and 408 to one that comes too slowly, without reading the rest of it.

    ``limit``: bytes; ``except_for``: other limits, by how the path ends, for those whose body is read once it is known
    whose it is. ``known``: whether the request of this scope is of somebody who may send anything else.
    """

    def __init__(
        self, app: ASGIApp, limit: int, except_for: Mapping[str, int], known: Callable[[Scope], bool] = lambda _: True
    ) -> None:
        self._app = app
        self._limit = limit
        self._except_for = dict(except_for)
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - what ASGI says
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._limit_for(scope), receive, send)
        told = Headers(scope=scope).get("content-length", "0")
        if told.isascii() and told.isdigit() and int(told) > body.limit:
            body.refused = body.too_long()
        else:
            with suppress(_Refused):
                await self._app(scope, body.receive, body.send)
        if body.refused is not None and not body.answered:
            await body.refused.response()(scope, receive, send)

    def _limit_for(self, scope: Scope) -> int:
        found = next((size for end, size in self._except_for.items() if scope["path"].endswith(end)), None)
        if found is not None:
            return found
        return self._limit if self._known(scope) else min(self._limit, STRANGER_LIMIT)


class _Body:
    """One request's body as it comes in, and whether it was refused on its way."""

    def __init__(self, limit: int, receive: Receive, send: Send) -> None:
        self.limit = limit
        self.refused: ServiceError | None = None
        self.answered = False
        self._receive = receive
        self._send = send
        self._got = 0
        self._waited = 0.0
        self._whole = False

    def too_long(self) -> TooLargeError:
        """What is said of a body that is longer than allowed."""
        return TooLargeError(f"The body is longer than {self.limit} bytes; send less at once.")

    async def receive(self) -> Message:
        """The next piece."""
        if self._whole:
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(GRACE_SECONDS + self._got / LEAST_RATE - self._waited):
                message = await self._receive()
        except TimeoutError:
            took = self._waited + time.monotonic() - began
            self.refused = TooSlowError(f"Of the body came {self._got} bytes in {took:.0f} s; send it again.")
            raise _Refused from None
        finally:
            self._waited += time.monotonic() - began
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._got > self.limit:
                self.refused = self.too_long()
                raise _Refused
        return message

    async def send(self, message: Message) -> None:
        """Passes the answer on, unless it is what the application makes of a body that was cut off here."""
        if self.refused is None or self.answered:
            self.answered = True
            await self._send(message)


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """The rest of the body is not read."""
