"""Ports come from the range, busy ones are passed over, and one that is kept is torch's to take."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from lockstep_worker.errors import MeetingError
from lockstep_worker.ports import bound, kept, parse_ports


def free_range(count: int) -> range:
    """``count`` neighbouring ports that nobody has just now."""
    for first in range(24000, 32000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("0.0.0.0", port))
            except OSError:
                continue
            return range(first, first + count)
    pytest.fail("no free ports")


def number(made: socket.socket) -> int:
    port: int = made.getsockname()[1]
    return port


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def test_a_range_is_read_and_anything_else_refused() -> None:
    assert parse_ports("20000-29999") == range(20000, 30000)
    assert parse_ports("7-7") == range(7, 8)
    for text in ("", "20000", "0-5", "5-1", "1-65536", "a-b", "1-2-3", "-5-7", "1 - 2", "٣-٤"):
        with pytest.raises(ValueError, match="is not a range of ports FIRST-LAST such as 20000-29999"):
            parse_ports(text)


def test_every_port_of_the_range_is_found_and_then_none(stack: contextlib.ExitStack) -> None:
    ports = free_range(6)
    busy = stack.enter_context(socket.socket())
    busy.bind(("127.0.0.1", ports[2]))
    busy.listen()
    taken = [number(stack.enter_context(bound("127.0.0.1", ports))) for _ in range(3)]
    taken += [number(stack.enter_context(kept(ports))) for _ in range(2)]
    assert sorted(taken) == [port for port in ports if port != ports[2]]
    with pytest.raises(MeetingError, match=rf"no free port {ports[0]}-{ports[-1]} at 127\.0\.0\.1"):
        bound("127.0.0.1", ports)


def test_searches_start_anywhere() -> None:
    ports = free_range(50)
    starts = set()
    for _ in range(20):
        with bound("127.0.0.1", ports) as made:
            starts.add(number(made))
    assert len(starts) > 5


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(MeetingError, match=r"cannot bind 192\.0\.2\.254 port"):
        bound("192.0.2.254", None)


def test_nobody_gets_a_kept_port_but_who_reuses_addresses(stack: contextlib.ExitStack) -> None:
    port = number(stack.enter_context(kept(None)))
    plain = stack.enter_context(socket.socket())
    with pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    reusing = stack.enter_context(socket.socket())
    reusing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reusing.bind(("0.0.0.0", port))
    reusing.listen()


@pytest.mark.parametrize("use_libuv", [True, False])
def test_torchs_stores_take_their_kept_ports_many_at_once(*, use_libuv: bool) -> None:
    ports = free_range(40)

    def meet(_: int) -> int:
        with kept(ports) as place:
            port = number(place)
            store = TCPStore("127.0.0.1", port, 1, is_master=True, timeout=timedelta(seconds=30), use_libuv=use_libuv)
            store.set("port", str(port))
            assert TCPStore("127.0.0.1", port, timeout=timedelta(seconds=30)).get("port") == str(port).encode()
            return port

    with ThreadPoolExecutor(8) as pool:
        met = list(pool.map(meet, range(16)))
    assert all(port in ports for port in met)
