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
GREETING = 2.0
"""Seconds that one that has connected has to say who it is."""
SECRET = 16
"""Bytes."""
MAGIC = b"lockstep"
HELLO = struct.Struct(f"<{len(MAGIC)}sI{SECRET}s")
"""What this is, the rank that connects, the secret of the one that listens."""
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 8}
"""A host that is gone without a word is noticed after three minutes."""

Gather = Callable[[Any], Sequence[Any]]


def connect_all(rank: int, size: int, gather: Gather, within: float = WITHIN) -> dict[int, socket.socket]:
    """Connections to all other ranks, by rank, that do not block. ``gather`` tells a fact to all ranks.

    A collective of all ranks. Raises ``GradientError`` where they do not meet within so many seconds.
    """
    with ExitStack() as kept:
        address = _own_address(rank, gather)
        listener = kept.enter_context(_listening(address))
        secret = secrets.token_bytes(SECRET)
        places = gather({"address": address, "port": listener.getsockname()[1], "secret": secret.hex()})
        deadline = time.monotonic() + within
        with ExitStack() as undone:
            found: dict[int, socket.socket] = {}
            for other in range(rank):
                found[other] = undone.enter_context(_reach(rank, other, places[other], deadline))
            while len(found) < size - 1:
                who, one = _let_in(listener, secret, {other for other in range(rank + 1, size) if other not in found},
                                   deadline)  # fmt: skip
                if one is not None:
                    found[who] = undone.enter_context(one)
                    one.sendall(bytes.fromhex(places[who]["secret"]))
            for other in range(rank):
                _expect_answer(found[other], secret, other, deadline)
            undone.pop_all()
    for one in found.values():
        one.settimeout(0.0)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            one.setsockopt(socket.IPPROTO_TCP, option, value)
    return found


def _own_address(rank: int, gather: Gather) -> str:
    """Of the interface that the environment names, else of the one that the others reach this host by."""
    here = this_host()
    named = next((os.environ[name].split(",")[0].strip() for name in INTERFACES if os.environ.get(name)), None)
    address = next((one.address for one in here.interfaces if one.name == named), None)
    wrong = f"it has no interface {named!r} (it has {here.describe()})" if named and address is None else None
    facts = gather({"host": here.document(), "address": address, "wrong": wrong})
    for other, fact in enumerate(facts):
        if fact["wrong"]:
            raise GradientError(f"rank {other} cannot be reached over TCP: {fact['wrong']}")
    if address is not None:
        return address
    try:
        return meeting_address(str(rank), {str(other): Host.parse(fact["host"]) for other, fact in enumerate(facts)})
    except MeetingError as error:
        raise GradientError(f"rank {rank} cannot be reached over TCP: {error}") from error


def _listening(address: str) -> socket.socket:
    try:
        return socket.create_server((address, 0), backlog=socket.SOMAXCONN)
    except OSError as error:
        raise GradientError(f"cannot listen at {address}: {error}") from error


def _reach(rank: int, other: int, place: Mapping[str, Any], deadline: float) -> socket.socket:
    try:
        found = socket.create_connection((place["address"], place["port"]), _left(deadline))
        found.sendall(HELLO.pack(MAGIC, rank, bytes.fromhex(place["secret"])))
    except OSError as error:
        raise GradientError(
            f"rank {rank} does not reach rank {other} at {place['address']}:{place['port']}: {error}; see that nodes "
            "reach each other's ports there, or take another transport"
        ) from error
    return found


def _let_in(
    listener: socket.socket, secret: bytes, awaited: set[int], deadline: float
) -> tuple[int, socket.socket | None]:
    """The next that has connected, and its rank; None for one who does not know the secret."""
    listener.settimeout(_left(deadline))
    try:
        one, _ = listener.accept()
    except OSError as error:
        missing = ", ".join(map(str, sorted(awaited)))
        raise GradientError(
            f"of the ranks {missing} none came to {listener.getsockname()[0]} in time: {error}; see that nodes reach "
            "each other's ports there, or take another transport"
        ) from error
    try:
        magic, rank, said = HELLO.unpack(_exactly(one, HELLO.size, min(_left(deadline), GREETING)))
    except OSError:  # a stranger that says nothing, or hangs up
        one.close()
        return -1, None
    if magic != MAGIC or not hmac.compare_digest(said, secret) or rank not in awaited:
        one.close()
        return -1, None
    return rank, one


def _expect_answer(one: socket.socket, secret: bytes, other: int, deadline: float) -> None:
    """Whoever listens there has to know this rank's secret, as only ranks do."""
    try:
        answer = _exactly(one, SECRET, _left(deadline))
    except OSError as error:
        raise GradientError(f"rank {other} has not answered: {error}") from error
    if not hmac.compare_digest(answer, secret):
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
