"""``Connection``: HTTP as uvicorn speaks it, and nobody is waited for without end.

uvicorn ends a connection that is silent between two requests, and nothing else (0.38 to 0.54): who sends a request
byte by byte, or reads an answer so, keeps a connection and its memory for ever, and a head may have any length.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""From a request's first byte, or the connection's beginning, to the end of its head."""
READ_SECONDS = 30.0
"""How long a reader may take none of what waits for it; and how long its kernel may leave our bytes unanswered."""
HEAD_LIMIT = 64 * 1024
"""Bytes of a request's line and headers."""


class Connection(HttpToolsProtocol):
    """A connection; its deadlines are those of what is waited for at the moment."""

    head_seconds = HEAD_SECONDS
    read_seconds = READ_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = True
        self._body_open = False
        self._ended_here = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request's head."""
        super().connection_made(transport)
        with suppress(OSError, AttributeError):  # a Unix socket has none
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.read_seconds * 1000)
            )
        self._wait(self.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Takes bytes; any that belong to a head have until its deadline to become one, and may only be so many."""
        if self._in_head and self._deadline is None:
            self._wait(self.head_seconds)
        self._ended_here = False
        super().data_received(data)
        if not self._in_head or self._ended_here:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_LIMIT and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """The head is there; how long the body may take is the application's matter (``guards``)."""
        self._in_head, self._body_open = False, True
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is there."""
        super().on_message_complete()
        self._in_head, self._body_open, self._ended_here = True, False, True
        self._stop_waiting()

    def on_response_complete(self) -> None:
        """The answer is sent; where it did not wait for the body, the rest of that has its time to come."""
        super().on_response_complete()
        if self._body_open and not self.transport.is_closing():
            self._wait(self.head_seconds)

    def pause_writing(self) -> None:
        """More waits for the reader than fits."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader reads."""
        super().resume_writing()
        self._read_again()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came after the last answer; a reader who has not even read that is not waited for any longer."""
        super().timeout_keep_alive_handler()
        if self._unread is None:
            self._unread = self.loop.call_later(self.read_seconds, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        self._read_again()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._head_bytes and not answering:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
