"""``TcpTransport`` on ranks that are threads of this process, over real sockets: sums, orders, and who is let in."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.exchange import Exchange
from lockstep_worker.gradients.tcp import AT_ONCE, MESSAGE, TcpTransport
from lockstep_worker.gradients.transport import transport_name
from support.gradients.threads import BaseOfRank, on_ranks


def over_tcp(size: int, do: Callable[[TcpTransport], Any]) -> list[Any]:
    def run(base: BaseOfRank) -> Any:
        transport = TcpTransport(base)
        try:
            return do(transport)
        finally:
            transport.close()

    return on_ranks(size, run)


def averaged(transport: TcpTransport, pieces: Sequence[np.ndarray[Any, Any]], credit: int) -> None:
    """Averages them in place, so many at a time."""
    waiting = list(enumerate(pieces))
    under_way: list[tuple[Any, torch.Tensor]] = []
    while waiting or under_way:
        while waiting and len(under_way) < credit:
            number, piece = waiting.pop(0)
            buffer = torch.from_numpy(piece)
            under_way.append((transport.start(buffer, f"piece {number}", lambda: None), buffer))
        transport.drive()
        for one in [one for one in under_way if transport.is_done(one[0])]:
            transport.finish(*one)
            under_way.remove(one)


def noise(rank: int, lengths: Sequence[int], dtype: str) -> list[np.ndarray[Any, Any]]:
    dice = np.random.default_rng(rank)
    return [dice.standard_normal(length).astype(dtype) for length in lengths]


LENGTHS = (1, 2, 7, 4096, 100_003)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_average_is_the_sum_in_the_order_of_the_ranks(size: int, dtype: str) -> None:
    def run(transport: TcpTransport) -> list[np.ndarray[Any, Any]]:
        pieces = noise(transport.rank, LENGTHS, dtype)
        averaged(transport, pieces, credit=2)
        return pieces

    found = over_tcp(size, run)
    every = [noise(rank, LENGTHS, dtype) for rank in range(size)]
    for place in range(len(LENGTHS)):
        total = every[0][place].copy()
        for rank in range(1, size):
            total += every[rank][place]
        total *= total.dtype.type(1 / size)
        for rank in range(size):
            np.testing.assert_array_equal(found[rank][place], total)


@pytest.mark.parametrize("credit", [1, 3, 50])
def test_ranks_may_be_far_ahead_of_each_other(credit: int) -> None:
    """Each begins its pieces at moments of its own, so contributions come to pieces that have not begun."""

    def run(transport: TcpTransport) -> list[np.ndarray[Any, Any]]:
        dice = random.Random(transport.rank)
        pieces = noise(transport.rank, [1000] * 40, "float32")
        for at in range(0, 40, credit):
            if dice.random() < 0.5:
                time.sleep(dice.random() * 0.01)
            averaged(transport, pieces[at : at + credit], credit)
        return pieces

    found = over_tcp(3, run)
    for one, two, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_a_piece_is_larger_than_what_a_connection_holds() -> None:
    def run(transport: TcpTransport) -> np.ndarray[Any, Any]:
        piece = np.full(40 * AT_ONCE // 4 + 3, float(transport.rank), np.float32)
        averaged(transport, [piece], credit=1)
        return piece

    for found in over_tcp(2, run):
        assert (found == 0.5).all()


def test_it_sleeps_while_there_is_nothing_to_do() -> None:
    begun = threading.Event()

    def run(transport: TcpTransport) -> float:
        piece = np.ones(1000, np.float32)
        if transport.rank == 1:
            begun.wait(60)
            time.sleep(0.3)  # so long the other one has to wait
        began = time.thread_time()
        begun.set()
        averaged(transport, [piece], credit=1)
        return time.thread_time() - began

    assert over_tcp(2, run)[0] < 0.1


def test_wake_ends_a_sleep() -> None:
    def run(transport: TcpTransport) -> None:
        waker = threading.Timer(0.05, transport.wake)
        waker.start()
        transport.drive()
        waker.join()
        transport.wake()
        transport.drive()  # one that came before it slept counts as well

    assert over_tcp(2, run) == [None, None]


def test_a_rank_that_ends_in_the_middle_of_a_step_is_named() -> None:
    def run(transport: TcpTransport) -> None:
        if transport.rank != 1:
            averaged(transport, [np.ones(1000, np.float32)], credit=1)

    found = over_tcp(3, run)
    assert found[1] is None
    for one in (found[0], found[2]):
        assert isinstance(one, GradientError)
    # The first one to hear of it ends as well.
    assert any("rank 1 has ended" in str(one) or "connection to rank 1" in str(one) for one in (found[0], found[2]))


def test_a_rank_that_has_finished_does_not_disturb_the_others() -> None:
    """One closes its connections as soon as it has all, while others still wait for each other."""

    def run(transport: TcpTransport) -> float:
        piece = np.full(300_000, float(transport.rank), np.float32)
        averaged(transport, [piece], credit=1)
        return float(piece.max())

    for _ in range(5):
        assert over_tcp(4, run) == [1.5] * 4


def test_a_rank_that_ends_before_it_has_read_everything_is_noticed() -> None:
    """It has sent all that this one needs; what this one owes it stays unsent for ever."""
    large = np.ones(64 * AT_ONCE // 4, np.float32)

    def run(transport: TcpTransport) -> None:
        if transport.rank == 0:
            return averaged(transport, [large.copy()], credit=1)
        # By hand: its own contribution and average, and not a byte is read but that it is at the end of.
        piece = large.copy()
        transport.start(torch.from_numpy(piece), "piece 0", lambda: None)
        peer = transport._peers[0]
        peer.connection.setblocking(True)
        begun = transport._new.popleft()
        for kind, share in ((0, begun.share(0)), (1, begun.share(1))):
            peer.connection.sendall(MESSAGE.pack(0, len(share), begun.check, kind))
            peer.connection.sendall(share)
        peer.connection.shutdown(socket.SHUT_WR)
        heard.wait(60)
        return None

    heard = threading.Event()

    def first(base: BaseOfRank) -> Any:
        transport = TcpTransport(base)
        try:
            return run(transport)
        finally:
            if base.rank == 0:
                heard.set()
            transport.close()

    found = on_ranks(2, first)
    assert "rank 1 has ended in the middle of a step" in str(found[0])


def test_a_transport_is_driven_by_one_thread_at_a_time() -> None:
    def run(transport: TcpTransport) -> None:
        other = threading.Thread(target=transport.drive)
        other.start()
        while not transport._asleep:
            time.sleep(0.001)
        with pytest.raises(GradientError, match="another thread drives this transport"):
            transport.drive()
        transport.wake()
        other.join()

    assert over_tcp(2, run) == [None, None]


def test_one_rank_has_its_average_at_once() -> None:
    def run(transport: TcpTransport) -> list[float]:
        piece = np.arange(5, dtype=np.float32)
        averaged(transport, [piece], credit=1)
        return piece.tolist()

    assert over_tcp(1, run) == [[0, 1, 2, 3, 4]]


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_carried_without_a_word() -> None:
    def run(transport: TcpTransport) -> np.ndarray[Any, Any]:
        piece = np.full(8, np.inf if transport.rank else -np.inf, np.float32)
        averaged(transport, [piece], credit=1)
        return piece

    assert all(np.isnan(found).all() for found in over_tcp(2, run))


@pytest.mark.parametrize(("length", "name"), [(2000, "a"), (1000, "b")])
def test_other_pieces_than_the_others_have_are_refused(length: int, name: str) -> None:
    def run(transport: TcpTransport) -> None:
        odd = transport.rank == 1
        buffer = torch.ones(length if odd else 1000)
        transport.start(buffer, name if odd else "a", lambda: None)
        transport.drive()

    found = over_tcp(2, run)
    assert all(isinstance(one, GradientError) for one in found)
    assert any("they are not at the same step of the same plan" in str(one) for one in found)


def test_bfloat16_is_refused() -> None:
    def run(transport: TcpTransport) -> None:
        transport.check(torch.float32)
        with pytest.raises(GradientError, match=r"gradients of torch\.bfloat16 are not averaged over TCP"):
            transport.check(torch.bfloat16)
        assert transport_name(transport) == "tcp"

    assert over_tcp(1, run) == [None]


# -- the exchange whose thread drives it -------------------------------------------------------------------------------


def test_an_exchange_that_is_closed_in_the_middle_of_a_step_ends_once_its_pieces_have_come() -> None:
    def run(base: BaseOfRank) -> tuple[bool, float]:
        exchange = Exchange(TcpTransport(base))
        buffer = torch.full((100_000,), float(base.rank))
        exchange.adopt([buffer], ["piece"], [0], [1], 2)
        exchange.begin()
        exchange.ready([0])
        return exchange.close(60), float(buffer[0])

    for _ in range(5):
        assert on_ranks(2, run) == [(True, 0.5)] * 2


def test_whoever_waits_for_a_piece_is_told_that_another_rank_has_ended() -> None:
    def run(base: BaseOfRank) -> None:
        exchange = Exchange(TcpTransport(base))
        exchange.adopt([torch.ones(1000)], ["piece"], [0], [1], 1)
        if base.rank == 0:
            exchange.begin()
            exchange.ready([0])
            exchange.wait(seconds=60)
        exchange.close(60)

    found = on_ranks(2, run)
    assert isinstance(found[0], GradientError)
    assert "rank 1 has ended" in str(found[0])
