"""``Output``: what a training prints, passed on unchanged, with a copy for the process that searches it.

Standard library only. Only for a job with ``training.patterns``, or under a launcher that does not say which rank a
line is of (``label``): else the training writes to the log itself. The copy is handed on without waiting: a search that
cannot keep up loses lines, and the training loses no time. Searching is a process of its own because Python's ``re``
lets no other thread run while it matches.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from lockstep_slurm.job.bootstrap import python_module
from lockstep_worker.errors import WorkerError

CHUNK = 32 * 1024
"""Bytes that are passed on at once, and the longest message to the searching process, but for its first byte."""
BEHIND = 1 << 20
"""Bytes that may wait for the searching process (the kernel may allow less)."""
DRAIN = 20.0
"""Seconds that the log may take what a training that has ended left in its pipe."""
SEARCH = 10.0
"""Seconds that the searching process has for what is left, once the output has ended."""
OUT, ERR, LOST = b"o", b"e", b"l"


class Output:
    """The pipes of one training, whose ends are ``stdout`` and ``stderr``; ``start`` when it runs, then ``finish``."""

    def __init__(self, label: bytes = b"") -> None:
        self._label = label
        own, self.stdout = os.pipe()
        self._pumps = [(own, 1, OUT)]
        self.stderr = self.stdout
        if not os.path.sameopenfile(1, 2):
            # One file for both keeps one pipe for both, so that the order of the lines stays.
            own, self.stderr = os.pipe()
            self._pumps.append((own, 2, ERR))
        self._search: subprocess.Popen[bytes] | None = None
        self._copy: socket.socket | None = None
        self._sending = threading.Lock()
        self._lost: dict[bytes, tuple[int, bool]] = {}
        self._threads: list[threading.Thread] = []

    @property
    def pid(self) -> int | None:
        """The searching process."""
        return None if self._search is None else self._search.pid

    def start(self, arguments: Mapping[str, Any] | None, environment: Mapping[str, str]) -> None:
        """Closes the training's ends here, and passes on; with arguments for it, it starts the searching process."""
        for descriptor in {self.stdout, self.stderr}:
            os.close(descriptor)
        if arguments is not None:
            self._start_search(arguments, environment)
        self._threads = [threading.Thread(target=self._pump, args=pump, daemon=True) for pump in self._pumps]
        # A signal is for the main thread, whose wait it interrupts: one that takes a thread would wait with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            raise WorkerError(
                f"the training's output cannot be passed on: {error}; raise the limit of processes"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _start_search(self, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BEHIND)
            try:
                self._search = subprocess.Popen(
                    python_module("lockstep_worker.patterns", json.dumps(arguments)),
                    stdin=theirs.fileno(),
                    env=dict(environment),
                    # A group of its own: a terminal's Ctrl-C is for the training.
                    preexec_fn=lambda: os.setpgid(0, 0),  # noqa: PLW1509 - there are no threads yet
                )
            except OSError as error:  # the training runs already, and goes on without figures from its output
                print(f"lockstep: training.patterns are not searched: {error}", file=sys.stderr, flush=True)
                ours.close()
                return
        self._copy = ours

    def finish(self) -> None:
        """Waits, not for ever, until all is passed on and searched; every process that could still write has ended."""
        for thread in self._threads:
            thread.join(DRAIN)
        if any(thread.is_alive() for thread in self._threads) and select.select([], [2], [], 0)[1]:
            os.write(2, b"lockstep: the log takes no more; the last lines of the training are lost\n")
        with self._sending:
            if self._copy is not None:
                select.select([], [self._copy], [], SEARCH if self._lost else 0)
                with contextlib.suppress(OSError):  # what it lost is its own to say, and it says nothing any more
                    self._tell_lost(self._copy)
                self._copy.close()  # the end of the output, to the searching process
                self._copy = None
        if self._search is not None:
            try:
                self._search.wait(SEARCH)
            except subprocess.TimeoutExpired:
                self._search.kill()
                self._search.wait()

    def _pump(self, source: int, sink: int, name: bytes) -> None:
        """From the training's pipe to the log, a copy to the search; ends with the pipe, or with the log."""
        begun = b""
        try:
            while chunk := os.read(source, CHUNK):
                if self._label:
                    lines, begun = self._labelled(begun + chunk)
                    _write(sink, lines)
                else:
                    _write(sink, chunk)
                self._hand_on(name, chunk)
            if begun:
                _write(sink, self._label + begun + b"\n")
        except OSError as error:
            # The training hears of it as it would without us, by the line below: its next print fails.
            print(f"lockstep: the log takes no more of the training's output: {error}", file=sys.stderr, flush=True)
        finally:
            os.close(source)

    def _labelled(self, text: bytes) -> tuple[bytes, bytes]:
        """Whole lines, each with the rank before it, and what is left; a line without an end is cut at ``CHUNK``."""
        *lines, begun = text.split(b"\n")
        if len(begun) > CHUNK:
            lines, begun = [*lines, begun], b""
        return b"".join(b"%b%b\n" % (self._label, line) for line in lines), begun

    def _hand_on(self, name: bytes, chunk: bytes) -> None:
        """Sends a copy at once, or counts its lines as lost."""
        with self._sending:
            if self._copy is None:
                return
            try:
                self._tell_lost(self._copy)
                self._copy.send(name + chunk, socket.MSG_DONTWAIT)
            except BlockingIOError:
                lines = chunk.count(b"\n") + chunk.count(b"\r") or 1
                self._lost[name] = (self._lost.get(name, (0, True))[0] + lines, not chunk.endswith((b"\n", b"\r")))
            except OSError:
                self._copy.close()
                self._copy = None  # it has ended, and has said why

    def _tell_lost(self, copy: socket.socket) -> None:
        """Sends how many lines are missing of which output, and whether what follows begins within one."""
        for name, (lines, within) in list(self._lost.items()):
            copy.send(LOST + json.dumps([name.decode(), lines, within]).encode(), socket.MSG_DONTWAIT)
            del self._lost[name]


def _write(sink: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:  # whoever shares the log with us may have set it so
            select.select([], [sink], [])
