"""The node's writer process: takes reports from the node's ranks, writes the spool, ships it (standard library only).

A process of its own, so that no disk, network or service can slow a rank: where this one stalls, the ranks' sockets
fill up and they drop and count. Started by local rank 0 as ``python -m lockstep_worker.writer``; it lives until the
control pipe on its standard input ends *and* its ranks have closed their sockets.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lockstep_slurm.job.rundir import spool_file
from lockstep_worker.node import remove_folder
from lockstep_worker.sampling import Sampler
from lockstep_worker.shipping import Shipper
from lockstep_worker.spool import MAX_RECORD, Spool

FLUSH_AFTER = 0.2
"""Seconds that a report may wait in memory."""
BUFFER = 8192
"""Reports in memory; when it is full the sockets are not read until the file system takes some."""
BATCH = 1024
"""Reports in one write."""
LINGER = 5.0
"""Seconds that ranks may still report once the wrapper died without a word."""
SHIP_AT_END = 5.0
"""Seconds to ship the remainder after the last rank has closed."""
CLOSING = b"end\n"
ACKNOWLEDGEMENT = 8
"""Bytes of the number, little endian, that tells a connection how many of its reports are in the file by now."""


class Writer:
    """The loop: sockets in, lines out, memory bounded."""

    def __init__(self, listener: socket.socket, control: int, spool: Spool, sampler: Sampler) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, "listener")
        self._selector.register(control, selectors.EVENT_READ, "control")
        self._listener = listener
        self._spool = spool
        self._sampler = sampler
        self._connections: set[socket.socket] = set()
        self._waiting: list[tuple[bytes, socket.socket | None]] = []
        """Reports, each with the connection that it came by; None for the writer's own."""
        self._written: dict[socket.socket, int] = {}
        """How many of each connection's reports are in the file."""
        self._flush_at = 0.0
        self._closing = False
        self._dropped = 0
        self._ends_at: float | None = None
        self.orphaned = False
        """Whether the wrapper died without a word."""

    def run(self) -> None:
        """Returns once the wrapper is done and every rank has closed, or ``LINGER`` seconds after the wrapper died."""
        while not self._done():
            paused = len(self._waiting) >= BUFFER
            for key, _ in self._selector.select(FLUSH_AFTER):
                if key.data == "control":
                    self._control(key.fd)
                elif key.data == "listener":
                    self._accept()
                elif not paused or self._closing:
                    self._receive(key.fileobj, dropping=paused)  # type: ignore[arg-type]
            if paused:
                time.sleep(
                    FLUSH_AFTER
                )  # the file system refuses: its answer is asked for again, and nothing else can be done
            else:
                self._take(self._sampler.sample())
            if self._waiting and (time.monotonic() >= self._flush_at or len(self._waiting) >= BATCH):
                self._flush()
        give_up_at = time.monotonic() + LINGER
        while not self._flush() and time.monotonic() < give_up_at:
            time.sleep(FLUSH_AFTER)
        if lost := len(self._waiting) + self._dropped:
            print(f"lockstep: {lost} records could not be written to {self._spool.path}", file=sys.stderr, flush=True)

    def _done(self) -> bool:
        if self._closing and not self._connections:
            return True
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    def _control(self, descriptor: int) -> None:
        if os.read(descriptor, 64) == CLOSING:
            self._closing = True
            return
        self._selector.unregister(descriptor)
        if not self._closing:
            self._closing = self.orphaned = True
            self._ends_at = time.monotonic() + LINGER

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)  # noqa: FBT003
        self._connections.add(connection)
        self._written[connection] = 0
        self._selector.register(connection, selectors.EVENT_READ, "rank")

    def _receive(self, connection: socket.socket, *, dropping: bool) -> None:
        """Takes what a rank has sent, as far as there is room.

        Once the wrapper is done there may be none for ever: then it is counted, so that the rank's leave is still seen.
        """
        try:
            while dropping or len(self._waiting) < BUFFER:
                try:
                    packet = connection.recv(MAX_RECORD)
                except ConnectionResetError:
                    # It closed, or was killed, with acknowledgements unread: told once, before what it had sent.
                    continue
                if not packet:
                    break
                if dropping:
                    self._dropped += 1
                    continue
                if Sampler.is_note(packet):
                    self._take(self._sampler.note(connection, packet))
                else:
                    self._take([packet], connection)
            else:
                return
        except BlockingIOError:
            return
        self._selector.unregister(connection)
        self._connections.discard(connection)
        del self._written[connection]
        self._sampler.forget(connection)
        connection.close()

    def _take(self, packets: Sequence[bytes], connection: socket.socket | None = None) -> None:
        """Keeps packets for the next write."""
        if packets and not self._waiting:
            self._flush_at = time.monotonic() + FLUSH_AFTER
        self._waiting.extend((packet, connection) for packet in packets)

    def _flush(self) -> bool:
        """Writes what waits; returns whether nothing does any more."""
        while self._waiting and self._spool.append([packet for packet, _ in self._waiting[:BATCH]]):
            self._acknowledge([connection for _, connection in self._waiting[:BATCH]])
            del self._waiting[:BATCH]
        self._flush_at = time.monotonic() + FLUSH_AFTER
        return not self._waiting

    def _acknowledge(self, connections: Sequence[socket.socket | None]) -> None:
        """Tells ranks how many of their reports are written: they keep the others, in case this process dies."""
        here = {one for one in connections if one is not None and one in self._written}
        for connection in connections:
            if connection in here:
                self._written[connection] += 1
        for connection in here:
            # One that does not read, or has gone, is told with a later one, or needs no telling.
            with contextlib.suppress(OSError):
                connection.send(
                    self._written[connection].to_bytes(ACKNOWLEDGEMENT, "little"),
                    socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL,
                )


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A SOCK_SEQPACKET listener at ``path``, whose folder is private; removed at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        try:
            listener.listen(1024)
            listener.setblocking(False)  # noqa: FBT003
            yield listener
        finally:
            path.unlink(missing_ok=True)


def main() -> int:
    """Runs until the node's ranks are done; exit 0 even if the service took nothing: the spool has it all."""
    parser = argparse.ArgumentParser(prog="lockstep_worker.writer", description="The node's writer process.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="go on where a writer that has died left off")
    options = parser.parse_args()
    # Slurm signals every process of a step; the writer outlives the ranks, and ends by its control pipe.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    spool = Spool(spool_file(options.run, options.attempt, options.node), options.attempt, again=options.again)
    shipper = Shipper(options.run, spool.path)
    if options.again:
        options.socket.unlink(missing_ok=True)
    with listening(options.socket) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        shipper.start()
        writer = Writer(listener, sys.stdin.fileno(), spool, Sampler(options.node, numbers=spool.usage))
        writer.run()
    if writer.orphaned:
        remove_folder(options.socket.parent)  # the wrapper that would have done so is dead
    spool.close()
    if not shipper.finish(SHIP_AT_END) and shipper.error is not None:
        print(
            f"lockstep: the service did not take all records ({shipper.error}); they are in {spool.path}",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
