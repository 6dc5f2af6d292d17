"""How the ranks of ``TcpTransport`` meet, over real sockets: who is let in, and what each is told when it fails."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from lockstep_worker.addresses import this_host
from lockstep_worker.errors import MeetingError
from lockstep_worker.gradients import connections
from lockstep_worker.gradients.connections import connect_all
from lockstep_worker.gradients.errors import GradientError
from support.gradients.threads import BaseOfRank, on_ranks


def test_strangers_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """One says nothing, one hangs up, one says something else, one guesses; the ranks meet all the same."""
    monkeypatch.setattr(connections, "GREETING", 1.0)
    strangers: list[socket.socket] = []

    def knock(rank: int, number: int, facts: list[Any]) -> None:
        if rank == 1 and number == 2:
            for said in (b"", None, b"GET / HTTP/1.1\r\n\r\n" * 4, connections.HELLO.pack(b"lockstep", 1, b"0" * 16)):
                place = facts[0]["made"]
                one = socket.create_connection((place["address"], place["port"]), 10)
                if said is None:
                    one.close()
                    continue
                strangers.append(one)
                one.sendall(said)

    def run(base: BaseOfRank) -> bytes:
        found = connect_all(base.rank, base.size, base.gather)
        (one,) = found.values()
        one.setblocking(True)
        one.sendall(b"hello")
        return one.recv(5, socket.MSG_WAITALL)

    assert on_ranks(2, run, then=knock) == [b"hello", b"hello"]
    for one in strangers:
        one.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(100) == b""
        one.close()


def pretends(base: BaseOfRank, port: int) -> None:
    """A rank that says it listens there, and that it has met the others."""
    for made in ({"host": this_host().document(), "address": "127.0.0.1"},
                 {"address": "127.0.0.1", "port": port, "secret": "00" * connections.SECRET}, None):  # fmt: skip
        base.gather({"made": made, "wrong": None})


def test_a_rank_that_does_not_come_is_named() -> None:
    def run(base: BaseOfRank) -> Any:
        if base.rank == 1:
            return pretends(base, 9)
        return connect_all(base.rank, base.size, base.gather, within=0.2)

    assert "rank 0 cannot exchange over TCP: of ranks 1 none came to 127.0.0.1 in time" in str(on_ranks(2, run)[0])


def test_what_goes_wrong_on_one_rank_is_raised_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on alone, into collectives that the others do not come to."""
    wrong = MeetingError("no route to anybody")

    def only_of_the_last(own: str, _hosts: Any) -> str:
        if own == "2":
            raise wrong
        return "127.0.0.1"

    monkeypatch.setattr(connections, "meeting_address", only_of_the_last)
    for found in on_ranks(3, lambda base: connect_all(base.rank, base.size, base.gather)):
        assert isinstance(found, GradientError)
        assert "rank 2 cannot exchange over TCP: no route to anybody" in str(found)


def test_whoever_listens_has_to_know_the_secret() -> None:
    """Somebody else at the address of a rank that has ended is not taken for it."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def impostor() -> None:
            one, _ = other.accept()
            with one:
                one.recv(connections.HELLO.size, socket.MSG_WAITALL)
                one.sendall(b"x" * connections.SECRET)

        thread = threading.Thread(target=impostor)
        thread.start()

        def run(base: BaseOfRank) -> Any:
            if base.rank == 0:
                return pretends(base, other.getsockname()[1])
            return connect_all(base.rank, base.size, base.gather, within=10)

        found = on_ranks(2, run)
        thread.join()
    assert "is not rank 0" in str(found[1])


def test_an_interface_that_is_not_there_is_named_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0,lo")
    for found in on_ranks(2, lambda base: connect_all(base.rank, base.size, base.gather)):
        assert "this host has no interface 'nosuch0'" in str(found)
