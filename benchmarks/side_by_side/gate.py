"""The gate: lets the ranks of one arm train a slice of steps at a time, and holds them still in between."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.errors import LockstepError

READY_WITHIN = 180.0
"""Seconds for all ranks of an arm to have imported torch and met; several arms start at the same time."""
ANSWER_WITHIN = 240.0
"""Seconds for one slice."""
_POLL = 0.2


class ArmError(LockstepError):
    """An arm that did not come up, or did not go on; the message has the last words of its log."""


@dataclass(frozen=True)
class Hello:
    """What a rank says of itself once it is ready to train."""

    rank: int
    pid: int
    cpus: tuple[int, ...]
    """Its main thread's affinity mask."""
    threads: int
    """torch's threads within an operation."""
    variables: dict[str, str]


@dataclass(frozen=True)
class Slice:
    """Some steps of all ranks of an arm."""

    seconds: float
    """Of the timed steps, on the rank that took longest."""
    losses: tuple[tuple[float, ...], ...]
    """By rank, of all steps."""


class Gate:
    """The ranks of one arm. Between slices they are stopped (SIGSTOP), so that no thread of theirs takes a CPU."""

    def __init__(self, path: Path, ranks: int, trouble: Callable[[], str | None]) -> None:
        """``trouble`` says why the arm will never come or answer, or None while it may."""
        self.path = path
        self._ranks = ranks
        self._trouble = trouble
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(ranks)
        self._listening.settimeout(_POLL)
        self._lines: dict[int, _Lines] = {}
        self.hellos: tuple[Hello, ...] = ()

    def meet(self) -> None:
        """Waits until every rank is ready, and stops them. Raises ``ArmError``."""
        deadline = time.monotonic() + READY_WITHIN
        hellos: list[Hello] = []
        while len(hellos) < self._ranks:
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                self._check(deadline, f"{len(hellos)} of {self._ranks} ranks were ready after {READY_WITHIN:.0f} s")
                continue
            lines = _Lines(connection)
            said = self._answer(lines)
            hello = Hello(said["rank"], said["pid"], tuple(said["cpus"]), said["threads"], said["variables"])
            self._lines[hello.rank] = lines
            hellos.append(hello)
        if sorted(self._lines) != list(range(self._ranks)):
            # A Horovod that was told nothing of the other ranks makes each of them a training of its own.
            raise ArmError(f"{self._ranks} ranks came, and called themselves {sorted(h.rank for h in hellos)}")
        self.hellos = tuple(sorted(hellos, key=lambda one: one.rank))
        self._signal(signal.SIGSTOP)

    def train(self, steps: int, warm: int) -> Slice:
        """One slice. Raises ``ArmError``."""
        answers = self._ask({"steps": steps, "warm": warm})
        self._signal(signal.SIGSTOP)
        return Slice(max(one["seconds"] for one in answers), tuple(tuple(one["losses"]) for one in answers))

    def end(self) -> tuple[str, ...]:
        """Lets the training end; returns each rank's digest of its parameters. Raises ``ArmError``."""
        return tuple(one["parameters_sha256"] for one in self._ask({"end": True}))

    def close(self) -> None:
        """Closes every connection: a rank that still waits ends, once it may run."""
        self._listening.close()
        for lines in self._lines.values():
            lines.close()
        self._signal(signal.SIGCONT)

    def _ask(self, what: dict[str, Any]) -> list[dict[str, Any]]:
        self._signal(signal.SIGCONT)
        for rank in sorted(self._lines):
            self._lines[rank].write(what)
        return [self._answer(self._lines[rank]) for rank in sorted(self._lines)]

    def _answer(self, lines: _Lines) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_WITHIN
        while True:
            try:
                found = lines.read()
            except TimeoutError:
                self._check(deadline, f"a rank did not answer within {ANSWER_WITHIN:.0f} s")
                continue
            if found is None:
                raise ArmError(self._trouble() or "a rank hung up")
            return found

    def _check(self, deadline: float, otherwise: str) -> None:
        if trouble := self._trouble():
            raise ArmError(trouble)
        if time.monotonic() > deadline:
            raise ArmError(otherwise)

    def _signal(self, number: signal.Signals) -> None:
        for hello in self.hellos:
            try:
                os.kill(hello.pid, number)
            except ProcessLookupError:
                continue  # it has ended, which its connection tells


class _Lines:
    """JSON objects, one a line, over a stream."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_POLL)
        self._rest = b""

    def write(self, what: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(what).encode() + b"\n")

    def read(self) -> dict[str, Any] | None:
        """The next object, None at the end; ``TimeoutError`` when there is no whole one yet."""
        while b"\n" not in self._rest:
            more = self._connection.recv(65536)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._connection.close()
