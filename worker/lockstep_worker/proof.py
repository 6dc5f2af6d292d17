"""What the threads of a rank's training are really allowed, against the plan: the wrapper's part of the proof.

Standard library only. The hook in the training (``inside``) says what it saw of its threads and how they were born. To
compare that with the plan, to read where the memory lies and to tell of it happens here, off the CPUs that compute.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lockstep_slurm.placement import Observation, Thread, Verdict, verify
from lockstep_slurm.placement.cpulist import parse
from lockstep_slurm.placement.verdict import DEVIATES
from lockstep_worker import seen
from lockstep_worker.births import MAIN, UNKNOWN
from lockstep_worker.placing import Placed
from lockstep_worker.sentences import Words
from lockstep_worker.world import World

PATIENCE = 60.0
"""Seconds after init, or after its last word, until a training whose steps are not seen is looked at from outside."""
LARGEST = 1 << 20
"""Bytes asked for in the buffer of the training's end; the kernel gives what it allows (net.core.wmem_max, twice)."""
DOCUMENT_LIMIT = 150_000
"""Bytes of a verdict's document, so that its record is one packet for the writer on any Linux."""
SAID = 4
"""Sentences of one verdict that are in the log as well."""
DRAIN = 10.0
"""Seconds to deal with what a training said before it ended."""

Tell = Callable[[bytes, str], None]


class Proof:
    """One rank's: hears its training, and tells the node's writer what became of the plan."""

    def __init__(
        self, world: World, placed: Placed, spec: Mapping[str, Any], tell: Tell, misplaced: Callable[[str], None]
    ) -> None:
        self._world = world
        self._placed = placed
        self._backend = spec.get("communication", {}).get("backend", "gloo")
        self._fails = spec.get("placement", {}).get("on_mismatch", "warn") == "fail"
        self._tell = tell
        self._misplaced = misplaced
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        self._theirs: socket.socket | None = theirs
        self.theirs = theirs.fileno()
        """The training's end, which it inherits."""
        self._pid = 0
        self._births: dict[int, tuple[int, str]] = {}
        self._heard: set[str] = set()
        self._libraries: tuple[str, ...] = ()
        self._thread: threading.Thread | None = None
        self.why: Words | None = None
        """What the training said of its end."""

    def settings(self, parent: int, folder: Path) -> str:
        """What the hook in the training has to know, for its environment; ``parent`` is this process.

        ``folder`` is the node's, in which its heartbeat and its stacks are looked for.
        """
        own = self._placed.own
        settings = {
            "socket": self.theirs,
            "rank": self._world.rank,
            "backend": self._backend,
            "born_on": own.communication.gloo or own.communication.cpus,
            "workers_on": own.loader or own.compute,
            "standing": str(folder / str(self._world.local_rank)),
        }
        return f"{parent} {json.dumps(settings)}"

    def tell_placement(self, document: Mapping[str, Any]) -> None:
        """The node's plan as a record: local rank 0's."""
        values = {"node": self._world.node, "document": _text(document)}
        self._tell(self._record("placement", values), "the node's placement")

    def start(self, pid: int) -> None:
        """Listens to the training ``pid``, which has just been started, in a thread of its own."""
        self._pid = pid
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None
        self._thread = threading.Thread(target=self._listen, name="proof", daemon=True)
        # A signal is for the main thread, whose wait it interrupts: one that takes a thread would wait with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def finish(self) -> None:
        """The training has ended: deals with what it has said, and says so if it has never said anything."""
        if self._thread is not None:
            self._ours.shutdown(socket.SHUT_RD)  # what has come is still read (unix(7)), then the end
            self._thread.join(DRAIN)
        self._ours.close()
        if not self._heard:
            self._judge(self._observation("steps", (), {}))

    def _listen(self) -> None:
        waits_until = time.monotonic() + PATIENCE
        while True:
            # Before its communication has started, a training may load for as long as it likes.
            waits = "init" in self._heard and "steps" not in self._heard
            self._ours.settimeout(max(waits_until - time.monotonic(), 0.01) if waits else None)
            try:
                packet = self._ours.recv(LARGEST)
            except socket.timeout:  # noqa: UP041 - 3.9
                self._look_from_outside()
                continue
            if not packet:
                return
            waits_until = time.monotonic() + PATIENCE
            try:
                self._take(json.loads(packet))
            except Exception as error:  # whatever it is, what the training says next is still to be heard
                self._say(f"what its training said of its threads cannot be read: {error!r}")

    def _take(self, told: Mapping[str, Any]) -> None:
        if "trouble" in told:
            return  # the training has said it itself, in the log
        if "why" in told:
            self.why = Words.parse(told["why"])
            return
        self._births.update({int(tid): (birth[0], birth[1]) for tid, birth in told["births"].items()})
        self._libraries = tuple(told.get("libraries", ()))
        threads = [Thread(tid, role, name, parse(cpus), last) for tid, role, name, cpus, last in told["threads"]]
        threads += self._workers(told["workers"])
        self._judge(self._observation(told["when"], threads, told["variables"]))

    def _look_from_outside(self) -> None:
        """A training that makes no steps that the hook knows of is looked at by its births so far."""
        try:
            found = list(seen.threads(self._pid))
        except OSError:
            found = []  # it has just ended
        if found:
            known = self._births
            threads = [
                Thread(
                    one.tid,
                    MAIN if one.tid == self._pid else known[one.tid][1] if known.get(one.tid, (0,))[0] == one.start
                    else UNKNOWN,
                    one.name,
                    parse(one.cpus),
                    one.last,
                )
                for one in found
            ]  # fmt: skip
            self._judge(self._observation("steps", threads, {}))
        self._heard.add("steps")

    @staticmethod
    def _workers(pids: list[int]) -> list[Thread]:
        found = ((pid, seen.thread(f"/proc/{pid}", pid)) for pid in pids)
        return [Thread(pid, "loader", one.name, parse(one.cpus), one.last) for pid, one in found if one is not None]

    def _observation(self, when: str, threads: Any, variables: Mapping[str, str]) -> Observation:  # noqa: ANN401
        policy, pages = seen.memory(self._pid)
        return Observation(
            rank=self._world.rank,
            local_rank=self._world.local_rank,
            pid=self._pid,
            when=when,
            threads=tuple(threads),
            # Of a training that has just ended, this process's: it is in the same step.
            allowed=parse(seen.cpuset(self._pid) or seen.cpuset(os.getpid())),
            memory_policy=policy,
            pages=pages,
            variables=dict(variables),
            libraries=self._libraries,
        )

    def _judge(self, observation: Observation) -> None:
        """Compares, tells, and ends the training where the spec wants that."""
        self._heard.add(observation.when)
        placed, world = self._placed, self._world
        verdict = verify(
            placed.own,
            observation,
            node=world.node,
            grant=placed.grant,
            variables=placed.variables,
            size=world.size,
        )
        values = {
            "node": world.node,
            "local_rank": world.local_rank,
            "when": verdict.when,
            "result": verdict.result,
            "deviations": len(verdict.deviations),
            "document": document_of(verdict),
        }
        self._tell(self._record("verdict", values), "the verdict on its threads")
        own = [sentence for sentence in verdict.deviations if sentence not in placed.grant]
        for sentence in own[:SAID]:
            self._say(sentence)
        if len(own) > SAID:
            self._say(f"and {len(own) - SAID} more deviations, which are in the verdict's record")
        if verdict.result == DEVIATES and self._fails and observation.threads:
            more = len(verdict.deviations) - 1
            self._misplaced(
                f"placement.on_mismatch is fail, and {verdict.deviations[0]}"
                f"{f' (and {more} more deviations)' if more else ''}"
            )

    def _say(self, sentence: str) -> None:
        who = f"rank {self._world.rank}"
        print(f"lockstep: {'' if sentence.startswith(who) else f'{who}: '}{sentence}", file=sys.stderr, flush=True)

    def _record(self, kind: str, values: Mapping[str, Any]) -> bytes:
        record = {
            "rank": self._world.rank, "time": round(time.time(), 6), "kind": kind, "step": None, "values": values,
        }  # fmt: skip
        return _text(record).encode()


def document_of(verdict: Verdict) -> str:
    """A verdict's document as JSON; of one that is too long for a record, threads that are as planned are left out.

    ``left_out`` then says how many.
    """
    document = verdict.document()
    text = _text(document)
    if len(text) > DOCUMENT_LIMIT:
        each = len(text) // max(1, len(verdict.threads)) + 1
        room = DOCUMENT_LIMIT // each
        # Those that deviate first, then the few of each role, then the many.
        few = sorted(document["threads"], key=lambda one: (not one["deviation"], one["role"] == "compute"))
        document["threads"], document["left_out"] = few[:room], max(0, len(few) - room)
        text = _text(document)
    return text


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
