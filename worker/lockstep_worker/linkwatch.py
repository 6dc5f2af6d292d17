"""The watch of one node's link: a process beside local rank 0 that notices when another node falls silent.

It holds idle TCP connections and leaves the watching to the kernels: one sends keepalive probes, and the other side's
answers them even while its processes are stopped, busy or suspended. Every node has a connection to the first one and
to its successor in a ring, so that two know each of them (docs/decisions/0005). Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import hmac
import json
import os
import random
import resource
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Tuple  # noqa: UP035 - 3.9

from lockstep_slurm.job.writing import write_whole
from lockstep_worker.links import End, Facts, conclusion, leave_word
from lockstep_worker.ports import bound
from lockstep_worker.surroundings import controller_answers, gateway_of, has_carrier, is_there
from lockstep_worker.waiting import PATIENCE as MEETING_PATIENCE

LINE_LIMIT = 4096
"""Bytes of one message."""
GREETING = 10.0
"""Seconds within which a new connection must have said who it is."""
STRANGERS = 256
"""So many connections beyond the job's nodes may be without a greeting at a time; each costs a descriptor."""
SECOND_LOOK = 5.0
"""Seconds that a new connection to a silent node may take, before the node is given up; three SYNs fit into it."""
BYE = b"bye\n"
UNREACHABLE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
"""What the kernel says of another host, and not of this one."""
_LAST_ACK_RECEIVED = 56
"""Where linux/tcp.h has it in tcp_info."""


Connection = Tuple[asyncio.StreamReader, asyncio.StreamWriter]  # noqa: UP006 - 3.9 evaluates this line


class Gone(Exception):  # noqa: N818 - no error: the other side's watch has ended, and its host says so
    """The other side's host answers, and there is no watch on it any more."""


class Peer:
    """Another node that this one is connected to."""

    def __init__(self, end: End, port: int, writer: asyncio.StreamWriter) -> None:
        self.end = end
        self.port = port
        """Where the node's own watch listens."""
        self.writer = writer

    def silence(self) -> float:
        """Seconds since the other side's kernel last said anything; infinite where the connection is no more."""
        connection = self.writer.get_extra_info("socket")
        try:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        except OSError:
            return float("inf")
        milliseconds: int = struct.unpack_from("I", told, _LAST_ACK_RECEIVED)[0]
        return milliseconds / 1000


class Watch:
    """One node's watch. ``run()`` returns the sentence about a cut link, or None when the training ended first."""

    def __init__(self, options: argparse.Namespace, listening: socket.socket) -> None:
        self.run_directory: Path = options.run
        self.attempt: int = options.attempt
        self.patience: float = options.patience
        self.nodes: list[str] = options.nodes.split(",")
        self.index: int = options.index
        self.own = End(self.nodes[self.index], options.interface, options.address)
        self.interval = max(1, round(self.patience / 12))
        self.peers: dict[str, Peer] = {}
        """The nodes that are connected, by name."""
        self.silent: dict[str, End] = {}
        """Those that fell silent and have not come back yet."""
        self._followed: set[str] = set()
        self._greeting = 0
        """Connections that have not said yet who they are."""
        self.sentence: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.nonce = ""
        self._listening = listening
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, ended: asyncio.Event) -> str | None:
        """Watches until ``ended`` is set or a node is given up."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self.nonce = secrets.token_hex(16) if self.index == 0 else ""
        server = await asyncio.start_server(
            self._accept, sock=self._listening, limit=LINE_LIMIT, backlog=min(len(self.nodes) + 16, 4096)
        )
        self._port = server.sockets[0].getsockname()[1]
        if self.index == 0:
            published = {"version": 1, **asdict(self.own), "port": self._port, "nonce": self.nonce}
            write_whole(self._file(), json.dumps(published))
        else:
            self._spawn(self._follow_first())
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(ended.wait()), self.sentence]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        server.close()
        for task in list(self._tasks):
            task.cancel()
        if self.sentence.done():
            return self.sentence.result()
        for peer in self.peers.values():
            with contextlib.suppress(OSError, RuntimeError):
                peer.writer.write(BYE)
                peer.writer.close()
        await asyncio.sleep(0)
        return None

    # -- connections ----------------------------------------------------------------------------------------------

    async def _follow_first(self) -> None:
        """Finds the first node's watch and stays connected to it."""
        path, waited = self._file(), 0.0
        # A listing, because a network file system caches that a name is absent.
        while path.name not in os.listdir(path.parent):  # noqa: PTH208
            pause = 0.2 + random.random() * min(1.0, len(self.nodes) / 64)  # noqa: S311 - not all at once
            waited += pause
            if waited > MEETING_PATIENCE:
                self._say("the first node's watch never came, so nobody notices a cut link before Horovod or Slurm do")
                return
            await asyncio.sleep(pause)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.nonce = found["nonce"]
        await self._stay(End(found["node"], found["interface"], found["address"]), int(found["port"]))

    async def _stay(self, end: End, port: int) -> None:
        """Stays connected to a node; one that cannot be reached any more is given up, one that has left is not."""
        if end.node in self._followed:
            return
        self._followed.add(end.node)
        with contextlib.suppress(Gone):
            reader, writer = await self._connect_first(end, port)
            while True:
                hello = {"nonce": self.nonce, **asdict(self.own), "port": self._port}
                writer.write(json.dumps(hello).encode() + b"\n")
                await self._hear(Peer(end, port, writer), reader)
                # Silent: it is connected to anew, which the kernel may have given up while this process was stopped.
                reader, writer = await self._connect_again(end, port)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a new connection in a task of our own: asyncio's complains aloud when it is cancelled (3.11)."""
        if self._greeting >= len(self.nodes) + STRANGERS:
            writer.close()  # whoever has a right to be here comes again
            return
        self._greeting += 1
        self._spawn(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A node that has connected: it says who it is, then nothing more until it leaves."""
        try:
            said = json.loads(await asyncio.wait_for(reader.readline(), GREETING))
            known = isinstance(said, dict) and hmac.compare_digest(str(said.get("nonce")), self.nonce)
            if not known or not self.nonce or said["node"] not in self.nodes:
                raise ValueError("a stranger")
            peer = Peer(End(said["node"], str(said["interface"]), str(said["address"])), int(said["port"]), writer)
        except (asyncio.TimeoutError, OSError, ValueError, KeyError, TypeError, RecursionError):  # noqa: UP041 - 3.9
            writer.close()  # somebody else's, or a second look
            return
        finally:
            self._greeting -= 1
        with contextlib.suppress(Gone):
            if self.index == 0:
                self._introduce(peer)
            await self._hear(peer, reader)
            # Silent: a new connection tells whether its host can be reached; if so, it will come again by itself.
            _, again = await self._connect_again(peer.end, peer.port)
            again.close()

    def _introduce(self, peer: Peer) -> None:
        """The first node's: tells a node who its successor in the ring is, and its predecessor who it is."""
        place = self.nodes.index(peer.end.node)
        self.peers[peer.end.node] = peer
        for before, after in ((place - 1, place), (place, place + 1)):
            if before >= 1 and after < len(self.nodes):
                first, second = self.peers.get(self.nodes[before]), self.peers.get(self.nodes[after])
                if first is not None and second is not None:
                    next_one = {**asdict(second.end), "port": second.port}
                    first.writer.write(json.dumps(next_one).encode() + b"\n")

    async def _hear(self, peer: Peer, reader: asyncio.StreamReader) -> None:
        """Returns when a connected node has been silent for too long; raises ``Gone`` when it leaves."""
        connection = peer.writer.get_extra_info("socket")
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self.interval),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, self.interval),
            # The time counts and not the number of probes; what waits to be sent gives up at the same time.
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.patience * 1000)),
        ):
            connection.setsockopt(level, option, value)
        self.peers[peer.end.node] = peer
        self.silent.pop(peer.end.node, None)
        try:
            while True:
                line = await reader.readline()
                if line in (b"", BYE):
                    raise Gone
                told = json.loads(line)
                self._spawn(self._stay(End(told["node"], told["interface"], told["address"]), int(told["port"])))
        except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
            raise Gone from None  # its host answers
        except OSError:  # ETIMEDOUT, or what a router said meanwhile
            if self.peers.get(peer.end.node) is peer:
                self.silent[peer.end.node] = peer.end
        finally:
            if self.peers.get(peer.end.node) is peer:  # and it has not come again meanwhile
                del self.peers[peer.end.node]
            peer.writer.close()

    async def _connect_first(self, end: End, port: int) -> Connection:
        """The first connection to a node. One that was never heard cannot have fallen silent: it goes unwatched.

        Its queue of connections may be full for a while, or something between the nodes may drop what is sent to the
        watch's port, and the training needs neither.
        """
        ends = time.monotonic() + self.patience
        while True:
            try:
                return await self._open(end, port, SECOND_LOOK)
            except (ConnectionRefusedError, ConnectionResetError):
                raise Gone from None
            except (OSError, asyncio.TimeoutError) as error:  # noqa: UP041 - 3.9
                if time.monotonic() >= ends:
                    why = str(error) or "no answer"
                    self._say(f"the link to {end.node} ({end.address}) is not watched: no connection to it ({why})")
                    raise Gone from None
            await asyncio.sleep(self.patience / 60 * (1 + random.random()))  # noqa: S311 - not all at once

    async def _connect_again(self, end: End, port: int) -> Connection:
        """A connection to a node that fell silent; ``Gone`` where its host answers. Where nothing does, it is given up.

        What this host itself is short of (descriptors, ports) says nothing of another one.
        """
        ends = time.monotonic() + SECOND_LOOK
        while True:
            try:
                return await self._open(end, port, max(1.0, ends - time.monotonic()))
            except (ConnectionRefusedError, ConnectionResetError):
                raise Gone from None
            except asyncio.TimeoutError:  # noqa: UP041 - 3.9
                unreachable = True
            except OSError as error:
                unreachable = error.errno in UNREACHABLE or not has_carrier(self.own.interface)
                if not unreachable:
                    self._say(f"the link to {end.node} ({end.address}) is not watched any more: {error}")
                    raise Gone from None
            if time.monotonic() >= ends:
                await self._give_up(end)
                raise Gone from None
            await asyncio.sleep(0.5)

    async def _open(self, end: End, port: int, seconds: float) -> Connection:
        opened = asyncio.open_connection(end.address, port, local_addr=(self.own.address, 0), limit=LINE_LIMIT)
        return await asyncio.wait_for(opened, seconds)

    # -- conclusions ----------------------------------------------------------------------------------------------

    async def _give_up(self, end: End) -> None:
        """Finds out whose link it is, and ends the watch with a sentence about it."""
        silent = {**self.silent, end.node: end}
        for peer in self.peers.values():
            if peer.silence() > self.patience - 2 * self.interval:
                silent[peer.end.node] = peer.end
        carrier = has_carrier(self.own.interface)
        heard = [name for name, peer in self.peers.items() if peer.silence() <= 3 * self.interval]
        gateway = gateway_of(self.own.interface)
        answers: bool | None = None
        controller: bool | None = None
        if carrier and not heard:
            if gateway is not None:
                answers = await is_there(gateway, silent_for=self.patience)
            else:
                controller = await asyncio.get_running_loop().run_in_executor(None, controller_answers)
        if not self.sentence.done():
            facts = Facts(
                own=self.own, silent=tuple(silent.values()), heard=tuple(heard), patience=self.patience,
                carrier=carrier, gateway=gateway, gateway_answers=answers, controller_answers=controller,
            )  # fmt: skip
            self.sentence.set_result(conclusion(facts))

    # -- the rest -------------------------------------------------------------------------------------------------

    def _file(self) -> Path:
        return self.run_directory / "rendezvous" / f"{self.attempt}-links.json"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, message: str) -> None:
        print(f"lockstep: {self.own.node}: {message}", file=sys.stderr, flush=True)


async def _main(options: argparse.Namespace) -> str | None:
    ended = asyncio.Event()
    # The wrapper's end of the pipe closes with it, whatever becomes of it.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    given = options.descriptor
    listening = bound(options.address, None) if given is None else socket.socket(fileno=given)
    return await Watch(options, listening).run(ended)


def main() -> int:
    """Watches until standard input says that the training is over; leaves word and exits 69 when a link is cut."""
    parser = argparse.ArgumentParser(prog="lockstep_worker.linkwatch", description="Watches this node's link.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="the node's own folder, where its ranks meet")
    parser.add_argument("--patience", type=float, required=True, help="seconds")
    parser.add_argument("--nodes", required=True, help="the names of all nodes, in order")
    parser.add_argument("--index", type=int, required=True, help="which of them this is")
    parser.add_argument("--interface", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--descriptor", type=int, help="an inherited socket that is bound to that address")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sentence = asyncio.run(_main(options))
    if sentence is None:
        return 0
    print(f"lockstep: {sentence}", file=sys.stderr, flush=True)
    leave_word(options.folder, sentence)
    return 69


if __name__ == "__main__":
    sys.exit(main())
