"""``TcpTransport``: carries pieces over connections of its own, one to each other rank, in the exchange's own thread.

Each rank owns a share of every piece: it receives the others' contributions to it, sums them in the order of the ranks,
and sends the average to all (a reduce-scatter and an allgather, each byte sent as often as a ring does it). All ranks
begin the pieces in one order, so a piece is known by its number and nothing has to be agreed. What arrives of a piece
that this rank has not begun is kept until it does.

It costs the core that computes little: the thread that drives it is woken when what it expects is there, not packet by
packet (``SO_RCVLOWAT``), and what has come is handed to no other thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lockstep_worker.gradients.connections import connect_all
from lockstep_worker.gradients.dtypes import check_averaged
from lockstep_worker.gradients.errors import GradientError

MESSAGE = struct.Struct("<QQII")
"""What a message begins with: the piece's number, the bytes that follow, the checksum of its name, what they are."""
SHARE, AVERAGE = range(2)
"""A contribution to the receiver's share, or the sender's share as it is averaged."""
AT_ONCE = 1 << 19
"""Bytes to wait for at most before they are read: the rest of the window goes on meanwhile."""
WINDOW = 1 << 21
"""Bytes that a connection may have received and not read to begin with, where the kernel allows so many."""
SPARE = 64 << 20
"""Bytes of memory for contributions, above which only those of the present size are kept for the next piece."""

Bytes = memoryview


@dataclass
class _Piece:
    """One piece under way."""

    number: int
    check: int
    array: np.ndarray[Any, Any]
    bytes: Bytes
    """The same memory."""
    bounds: list[int]
    """Elements: share ``r`` is from ``bounds[r]`` to ``bounds[r + 1]``."""
    landed: Callable[[], None]
    shares: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    """Contributions to the own share, by rank."""
    owed: set[int] = field(default_factory=set)
    """Ranks whose share is not averaged here yet, this one among them."""
    unsent: int = 0
    """Messages that the kernel has not taken yet."""
    done: bool = False

    def share(self, rank: int) -> Bytes:
        """The bytes of a rank's share."""
        item = self.array.itemsize
        return self.bytes[self.bounds[rank] * item : self.bounds[rank + 1] * item]


class _Peer:
    """The connection to one rank: what is to be sent, and what is being received."""

    def __init__(self, rank: int, connection: socket.socket) -> None:
        self.rank = rank
        self.connection = connection
        self.outgoing: deque[tuple[list[Bytes], _Piece]] = deque()
        self.watched = select.EPOLLIN
        self.lowat = 1
        self.header = bytearray(MESSAGE.size)
        self.have = 0
        """Bytes of the header, or of the body once that is known."""
        self.body: Bytes | None = None
        self.message: tuple[int, int, int, Any] | None = None
        """Number, checksum, kind of what is being received; where a contribution goes."""
        self.gone = False
        """It has closed its end."""


class TcpTransport:
    """Over TCP. ``base`` tells the ranks of each other: Horovod, or torch's process group.

    To make one is a collective of all ranks. Raises ``GradientError`` where they do not reach each other.
    """

    calls_back = True

    def __init__(self, base: Any) -> None:  # noqa: ANN401 - a transport
        self.rank: int = base.rank
        self.size: int = base.size
        self.carried_by: str = base.carried_by
        self.base = base
        self._peers: dict[int, _Peer] = {}
        self._epoll = select.epoll()
        self._number = 0
        self._new: deque[_Piece] = deque()
        self._pieces: dict[int, _Piece] = {}
        self._early: dict[int, dict[int, tuple[int, np.ndarray[Any, Any]]]] = {}
        """By number and rank: checksum and contribution to a piece that has not begun here."""
        self._spare: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._ended = False
        self._asleep = False
        self._woken = False
        self._error: GradientError | None = None
        self._driving = threading.Lock()
        """Held by the thread that drives."""
        self._ends = threading.Lock()
        """Held to wake it, and while what that takes is closed."""
        self._sleeper, self._waker = socket.socketpair()
        for end in (self._sleeper, self._waker):
            end.settimeout(0.0)
        self._epoll.register(self._sleeper, select.EPOLLIN)
        try:
            self._meet()
        except BaseException:
            self.close()
            raise

    def _meet(self) -> None:
        if self.size > 1:
            connections = connect_all(self.rank, self.size, self.gather)
            self._peers = {rank: _Peer(rank, one) for rank, one in connections.items()}
        self._by_number = {peer.connection.fileno(): peer for peer in self._peers.values()}
        for peer in self._peers.values():
            # The kernel makes room for as much as it has to wait for.
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, WINDOW)
            self._wait_for(peer, MESSAGE.size)
            self._epoll.register(peer.connection, peer.watched)

    def check(self, dtype: torch.dtype) -> None:
        """What NumPy can add."""
        check_averaged(dtype, "TCP")

    def gather(self, fact: Any) -> list[Any]:  # noqa: ANN401
        """By ``base``."""
        found: list[Any] = self.base.gather(fact)
        return found

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> _Piece:
        """Hands the piece to the thread that drives."""
        array = buffer.numpy()
        bounds = [len(array) * rank // self.size for rank in range(self.size + 1)]
        piece = _Piece(self._number, zlib.crc32(name.encode()), array, array.data.cast("B"), bounds, landed)
        self._number += 1
        self._new.append(piece)
        if self._asleep:
            self._rouse()
        return piece

    def is_done(self, handle: _Piece) -> bool:
        """Whether all shares are averaged here, and whatever others need of this rank is on its way."""
        return handle.done or self._error is not None

    def finish(self, handle: _Piece, buffer: Tensor) -> None:  # noqa: ARG002
        """Raises what went wrong."""
        if not handle.done and self._error is not None:
            raise self._error

    # -- of the thread that drives -------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Carries pieces, and sleeps while there is nothing to do, until one has ended or ``wake`` is called.

        Raises ``GradientError`` where another rank is not there any more.
        """
        if not self._driving.acquire(blocking=False):
            raise GradientError("another thread drives this transport: it serves one exchange at a time")
        try:
            while True:
                while self._new:
                    self._begin(self._new.popleft())
                if self._ended or self._woken:
                    self._ended = self._woken = False
                    return
                self._asleep = True
                events = [] if self._new or self._woken else self._epoll.poll()
                self._asleep = False
                for number, event in events:
                    self._serve(number, event)
        except GradientError as error:
            self._error = error
            raise
        except OSError as error:
            self._error = GradientError(f"the connections to the other ranks failed: {error}")
            raise self._error from error
        finally:
            self._driving.release()

    def wake(self) -> None:
        """Has ``drive`` return, now or when it is called next; by any thread."""
        self._woken = True
        self._rouse()

    def close(self) -> None:
        """Closes the connections."""
        with self._ends:
            self._epoll.close()
            for peer in self._peers.values():
                with contextlib.suppress(OSError):  # the other one was first
                    peer.connection.shutdown(socket.SHUT_RDWR)  # a forked child may hold it, too
            for one in (self._sleeper, self._waker, *(peer.connection for peer in self._peers.values())):
                one.close()

    def _rouse(self) -> None:
        with self._ends:
            if self._waker.fileno() >= 0:
                with contextlib.suppress(BlockingIOError):  # it is full: nobody can sleep there
                    self._waker.send(b"\0", socket.MSG_NOSIGNAL)

    def _serve(self, number: int, event: int) -> None:
        peer = self._by_number.get(number)
        if peer is None:
            with contextlib.suppress(BlockingIOError):
                self._sleeper.recv(4096)
            return
        if event & ~select.EPOLLOUT:
            self._receive(peer)
        if event & select.EPOLLOUT and not peer.gone:
            self._send(peer)

    def _begin(self, piece: _Piece) -> None:
        piece.owed = set(range(self.size))
        piece.unsent = 2 * len(self._peers)
        self._pieces[piece.number] = piece
        for peer in self._peers.values():
            self._post(peer, piece, SHARE, piece.share(peer.rank))
        if not self._peers:
            piece.owed.clear()  # one rank's average is its own
            self._advanced(piece)
        for rank, (check, share) in self._early.pop(piece.number, {}).items():
            self._contributed(piece, rank, check, share)

    def _contributed(self, piece: _Piece, rank: int, check: int, share: np.ndarray[Any, Any]) -> None:
        own = piece.array[piece.bounds[self.rank] : piece.bounds[self.rank + 1]]
        if check != piece.check or share.nbytes != own.nbytes:
            raise GradientError(
                f"rank {rank} exchanges another piece than this rank ({share.nbytes} bytes in place of {own.nbytes}): "
                "they are not at the same step of the same plan"
            )
        piece.shares[rank] = share.view(own.dtype)
        if len(piece.shares) < self.size - 1:
            return
        self._sum(piece.shares, own)
        for one in piece.shares.values():
            self._keep(one)
        piece.shares.clear()
        for peer in self._peers.values():
            self._post(peer, piece, AVERAGE, piece.share(self.rank))
        piece.owed.discard(self.rank)
        self._advanced(piece)

    def _sum(self, shares: dict[int, np.ndarray[Any, Any]], own: np.ndarray[Any, Any]) -> None:
        """In the order of the ranks, whoever was first: the same bits in every run."""
        in_order = [shares.get(rank, own) for rank in range(self.size)]
        # The first two may change places: where this rank is one of them, its own share takes the sum.
        total = own if self.rank < 2 else in_order[0]
        with np.errstate(all="ignore"):  # what is not finite is the training's to judge
            np.add(in_order[0], in_order[1], out=total)
            for one in in_order[2:]:
                np.add(total, one, out=total)
            np.multiply(total, own.dtype.type(1.0 / self.size), out=own)

    def _advanced(self, piece: _Piece) -> None:
        if not piece.owed and not piece.unsent:
            del self._pieces[piece.number]
            piece.done = self._ended = True
            piece.landed()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _post(self, peer: _Peer, piece: _Piece, kind: int, body: Bytes) -> None:
        if peer.gone:
            raise GradientError(f"rank {peer.rank} has ended, and this rank has gradients to exchange with it")
        header = MESSAGE.pack(piece.number, len(body), piece.check, kind)
        peer.outgoing.append(([memoryview(header), body], piece))
        if len(peer.outgoing) == 1:
            self._send(peer)

    def _send(self, peer: _Peer) -> None:
        while peer.outgoing:
            parts, piece = peer.outgoing[0]
            try:
                sent = peer.connection.sendmsg(parts, (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise GradientError(f"the connection to rank {peer.rank} failed: {error}") from error
            while parts and sent >= len(parts[0]):
                sent -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][sent:]
                break
            peer.outgoing.popleft()
            piece.unsent -= 1
            self._advanced(piece)
        watched = select.EPOLLIN | (select.EPOLLOUT if peer.outgoing else 0)
        if watched != peer.watched:
            peer.watched = watched
            self._epoll.modify(peer.connection, watched)

    def _receive(self, peer: _Peer) -> None:
        """Reads until there is nothing more."""
        while True:
            body = peer.body
            if body is None:
                wanted = MESSAGE.size - peer.have
                got = self._read(peer, [memoryview(peer.header)[peer.have :]])
            else:
                left = body[peer.have :]
                wanted = len(left) + MESSAGE.size
                got = self._read(peer, [left, memoryview(peer.header)])
            if got == 0:
                break
            peer.have += got
            if body is None:
                if peer.have == MESSAGE.size:
                    self._expect(peer)
            elif peer.have >= len(body):
                self._received(peer)
                if peer.have == MESSAGE.size:
                    self._expect(peer)
            if got < wanted:
                break
        self._wait_for(peer, MESSAGE.size - peer.have if peer.body is None else len(peer.body) - peer.have)

    def _read(self, peer: _Peer, into: list[Bytes]) -> int:
        """Bytes; 0 where there are none at present, or never again."""
        try:
            got = peer.connection.recvmsg_into(into)[0]
        except BlockingIOError:
            return 0
        except OSError as error:
            raise GradientError(f"the connection to rank {peer.rank} failed: {error}") from error
        if got == 0:
            peer.gone = True
            self._epoll.unregister(peer.connection)
            if peer.outgoing or any(peer.rank in piece.owed for piece in self._pieces.values()):
                raise GradientError(f"rank {peer.rank} has ended in the middle of a step")
        return got

    def _expect(self, peer: _Peer) -> None:
        """A header is complete: where its body goes."""
        number, size, check, kind = MESSAGE.unpack(peer.header)
        peer.have = 0
        if kind == AVERAGE:
            piece = self._pieces.get(number)
            if piece is None or len(piece.share(peer.rank)) != size:
                raise GradientError(f"rank {peer.rank} has averaged another piece than this rank has begun")
            peer.body, peer.message = piece.share(peer.rank), (number, check, kind, piece)
        else:
            share = self._memory(size)
            peer.body, peer.message = share.data, (number, check, kind, share)
        if size == 0:
            self._received(peer)

    def _received(self, peer: _Peer) -> None:
        assert peer.message is not None
        assert peer.body is not None
        number, check, kind, where = peer.message
        peer.have -= len(peer.body)
        peer.body = peer.message = None
        if kind == AVERAGE:
            where.owed.discard(peer.rank)
            self._advanced(where)
        elif number in self._pieces:
            self._contributed(self._pieces[number], peer.rank, check, where)
        else:
            self._early.setdefault(number, {})[peer.rank] = check, where

    def _wait_for(self, peer: _Peer, size: int) -> None:
        """It is woken by so many bytes, or by ``AT_ONCE``."""
        lowat = max(1, min(size, AT_ONCE))
        if lowat != peer.lowat and not peer.gone:
            peer.lowat = lowat
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowat)

    # -- memory --------------------------------------------------------------------------------------------------------

    def _memory(self, size: int) -> np.ndarray[Any, Any]:
        found = self._spare.get(size)
        return found.pop() if found else np.empty(size, np.uint8)

    def _keep(self, share: np.ndarray[Any, Any]) -> None:
        if sum(size * len(found) for size, found in self._spare.items()) + share.nbytes > SPARE:
            # What is of other sizes is of plans that were tried.
            self._spare = {size: found for size, found in self._spare.items() if size == share.nbytes}
        self._spare.setdefault(share.nbytes, []).append(share.view(np.uint8))
