"""A TCP connection of each rank to each other one: where they listen, how they meet, and who is let in.

What carries facts between the ranks tells all of them each one's address, port and secret. Whoever connects says the
secret of the rank that listens, and is answered with its own: a stranger knows neither.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lockstep_worker.addresses import Host, meeting_address, this_host
from lockstep_worker.errors import MeetingError
from lockstep_worker.gradients.errors import GradientError

INTERFACES = ("GLOO_SOCKET_IFNAME", "HOROVOD_GLOO_IFACE")
"""Variables that name the interface, or several with commas between them, of which the first counts."""
WITHIN = 60.0
"""Seconds in which all ranks have to meet."""
GREETING = 5.0
"""Seconds that one that has connected has to say who it is."""
SECRET = 16
"""Bytes."""
MAGIC = b"lockstep"
HELLO = struct.Struct(f"<{len(MAGIC)}sI{SECRET}s")
"""What this is, the rank that connects, the secret of the one that listens."""
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 8}
"""A host that is gone without a word is noticed after three minutes, if nothing was on its way to it."""

Gather = Callable[[Any], Sequence[Any]]


def connect_all(rank: int, size: int, gather: Gather, within: float = WITHIN) -> dict[int, socket.socket]:
    """Connections to all other ranks, by rank, that do not block. ``gather`` tells a fact to all ranks.

    A collective of all ranks. Raises ``GradientError`` on all of them where one does not meet the others within so many
    seconds, or cannot be reached.
    """
    with ExitStack() as undone:
        found: dict[int, socket.socket] = {}
        with socket.socket() as listener:
            secret = secrets.token_bytes(SECRET)
            hosts = _agreed(gather, _host)
            places = _agreed(gather, lambda: {**_listen(listener, rank, hosts), "secret": secret.hex()})
            meeting = _Meeting(rank, size, secret, places, time.monotonic() + within)
            _agreed(gather, lambda: found.update(meeting.meet(listener, undone)))
        undone.pop_all()
    return found


def _agreed(gather: Gather, make: Callable[[], Any]) -> Sequence[Any]:
    """What each rank has made, by rank; what went wrong on one of them is raised on all."""
    made, failed = None, None
    try:
        made = make()
    except (OSError, MeetingError, GradientError) as error:
        failed = error
    facts = gather({"made": made, "wrong": None if failed is None else str(failed)})
    for other, fact in enumerate(facts):
        if fact["wrong"] is not None:
            raise GradientError(f"rank {other} cannot exchange over TCP: {fact['wrong']}") from failed
    return [fact["made"] for fact in facts]


def _host() -> dict[str, Any]:
    """This host, and the address of the interface that the environment names; None where it names none."""
    here = this_host()
    named = next((os.environ[name].split(",")[0].strip() for name in INTERFACES if os.environ.get(name)), None)
    address = next((one.address for one in here.interfaces if one.name == named), None)
    if named and address is None:
        raise GradientError(f"this host has no interface {named!r} (it has {here.describe()})")
    return {"host": here.document(), "address": address}


def _listen(listener: socket.socket, rank: int, hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where this rank listens: the address that is named, else the one by which the other hosts reach this one."""
    address = hosts[rank]["address"] or meeting_address(
        str(rank), {str(other): Host.parse(fact["host"]) for other, fact in enumerate(hosts)}
    )
    try:
        listener.bind((address, 0))
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        raise GradientError(f"cannot listen at {address}: {error}") from error
    return {"address": address, "port": listener.getsockname()[1]}


class _Meeting:
    """One rank's part of it: it connects to those before it, and lets those behind it in."""

    def __init__(
        self, rank: int, size: int, secret: bytes, places: Sequence[Mapping[str, Any]], deadline: float
    ) -> None:
        self._rank, self._secret, self._places, self._deadline = rank, secret, places, deadline
        self._awaited = set(range(rank + 1, size))

    def meet(self, listener: socket.socket, undone: ExitStack) -> dict[int, socket.socket]:
        """The connections, which ``undone`` closes."""
        found = {other: undone.enter_context(self._reach(other)) for other in range(self._rank)}
        while self._awaited:
            other, one = self._let_in(listener)
            if one is not None:
                found[other] = undone.enter_context(one)
                self._awaited.discard(other)
                one.sendall(bytes.fromhex(self._places[other]["secret"]))
        for other in range(self._rank):
            self._expect_answer(other, found[other])
        for one in found.values():
            one.settimeout(0.0)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                one.setsockopt(socket.IPPROTO_TCP, option, value)
        return found

    def _reach(self, other: int) -> socket.socket:
        place = self._places[other]
        try:
            found = socket.create_connection((place["address"], place["port"]), _left(self._deadline))
            try:
                found.sendall(HELLO.pack(MAGIC, self._rank, bytes.fromhex(place["secret"])))
            except OSError:
                found.close()
                raise
        except OSError as error:
            raise GradientError(
                f"rank {other} is not reached at {place['address']}:{place['port']}: {error}; see that nodes reach "
                "each other's ports there, or take another transport"
            ) from error
        return found

    def _let_in(self, listener: socket.socket) -> tuple[int, socket.socket | None]:
        """The next that has connected, and its rank; None for one who does not know the secret."""
        one = None
        try:
            if time.monotonic() < self._deadline:
                listener.settimeout(_left(self._deadline))
                one, _ = listener.accept()
        except OSError:  # nobody came: as below
            one = None
        if one is None:
            missing = ", ".join(map(str, sorted(self._awaited)))
            raise GradientError(
                f"of ranks {missing} none came to {listener.getsockname()[0]} in time; see that nodes reach each "
                "other's ports there, or take another transport"
            )
        try:
            magic, rank, said = HELLO.unpack(_exactly(one, HELLO.size, min(_left(self._deadline), GREETING)))
        except OSError:  # a stranger that says nothing, or hangs up
            one.close()
            return -1, None
        if magic != MAGIC or not hmac.compare_digest(said, self._secret) or rank not in self._awaited:
            one.close()
            return -1, None
        return rank, one

    def _expect_answer(self, other: int, one: socket.socket) -> None:
        """Whoever listens there has to know this rank's secret, as only ranks do."""
        try:
            answer = _exactly(one, SECRET, _left(self._deadline))
        except OSError as error:
            raise GradientError(f"rank {other} has not answered: {error}") from error
        if not hmac.compare_digest(answer, self._secret):
            raise GradientError(f"whoever listens at {one.getpeername()} is not rank {other}")


def _exactly(one: socket.socket, size: int, seconds: float) -> bytes:
    """So many bytes. Raises ``OSError`` where they do not come."""
    ends = time.monotonic() + seconds
    found = b""
    while len(found) < size:
        one.settimeout(_left(ends))
        more = one.recv(size - len(found))
        if not more:
            raise ConnectionResetError("the connection was closed")
        found += more
    return found


def _left(deadline: float) -> float:
    """Seconds; a little even where there are none, since 0 would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.01)
