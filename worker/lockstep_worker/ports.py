"""The TCP ports that a rank binds: from the site's range where there is one (standard library only)."""

from __future__ import annotations

import errno
import random
import re
import socket
from collections.abc import Iterator

from lockstep_worker.errors import MeetingError

_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


def parse_ports(text: str) -> range:
    """``20000-29999`` -> those ports. Raises ``ValueError``, which says what a range looks like."""
    match = _RANGE.fullmatch(text)
    first, last = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{text!r} is not a range of ports FIRST-LAST such as 20000-29999, within 1 to 65535")
    return range(first, last + 1)


def bound(address: str, ports: range | None) -> socket.socket:
    """A TCP socket bound to ``address`` and a port that nobody has, not yet listening; without a range, the kernel's.

    The search starts anywhere in the range, so that jobs that start together do not all run after the same port.
    To bind is the test: without SO_REUSEADDR it fails for a port that somebody listens on, one that somebody keeps
    (``kept``), and one on which a connection of an ended job still rests (TIME_WAIT, 60 s).
    Raises ``MeetingError`` when the whole range is taken, or the address is not to be had.
    """
    for port in _shuffled(ports):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.bind((address, port))
        except OSError as error:
            made.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # EACCES: a port of root's
                raise MeetingError(
                    f"{socket.gethostname()} cannot bind {address} port {port}: {error.strerror}"
                ) from error
        else:
            return made
    span = "that the kernel gives out" if ports is None else f"{ports[0]}-{ports[-1]}"
    raise MeetingError(
        f"{socket.gethostname()} has no free port {span} at {address}: each job takes three on the node of its rank 0, "
        f"and a port rests for a minute after its job; widen the site's range of ports"
    )


def kept(ports: range | None) -> socket.socket:
    """A port kept for whom this process starts: bound on every address, not listening, closed when the job is over.

    SO_REUSEADDR comes after the bind. So nobody who binds plainly gets the port, and the kernel gives it to no
    outgoing connection; but one who sets SO_REUSEADDR, as torch's TCPStore does (2.13, libuv and its own), can bind
    it and listen, since this socket does not. Two that are kept never meet: each is bound plainly first.
    """
    made = bound("0.0.0.0", ports)  # noqa: S104 - it never listens; torch's store binds every address
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _shuffled(ports: range | None) -> Iterator[int]:
    """Every port of the range once, from a random one on; 0, the kernel's choice, where there is no range."""
    if ports is None:
        yield 0
        return
    start = random.SystemRandom().randrange(len(ports))
    yield from ports[start:]
    yield from ports[:start]
