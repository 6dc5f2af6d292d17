"""The node's watchdog: where no rank has finished a step for long, it finds the one that the others wait for.

Standard library only; a thread of local rank 0's wrapper. Each node looks at the heartbeats of its own ranks by its own
clock, and leaves word in the run directory once all of them stand still, with what their stacks say. When all nodes
have, the first one judges. An evaluation, a save, a wait for data and the time before the first step are no hang,
however long they take: they are told in the log. Nor does time count in which this process itself was stopped, as that
of a job which Slurm has suspended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim, rendezvous_file
from lockstep_slurm.job.writing import write_whole
from lockstep_worker import beat, sentences, stacks
from lockstep_worker.checkpoint.folder import names
from lockstep_worker.world import World

MINUTES = 15.0
"""For a built-in recipe, whose evaluations and saves are known; a script says it itself."""
PATIENT = 10.0
"""So many times the longest time between two steps so far is no hang either."""
_LOOK = 5.0
_AGAIN = 60.0
"""Seconds between two looks at ranks that stand still."""


def limit_of(spec: Mapping[str, Any]) -> float:
    """Seconds without a step of any rank after which the job ends; 0: never."""
    training = spec["training"]
    said = training.get("hang_minutes")
    return 60.0 * float((0.0 if training.get("script") else MINUTES) if said is None else said)


@dataclass(frozen=True)
class Standing:
    """A rank that stands still, as its node's watchdog sees it."""

    rank: int
    node: str
    local_rank: int
    steps: int
    state: str
    where: str
    seconds: float


def slowest(ranks: list[Standing]) -> tuple[Standing | None, bool]:
    """The rank that the others wait for, and whether any of them does not wait; None: one is at what is no hang.

    One that does not wait comes first, and of those the one that has done fewest steps.
    """
    if any(one.state in stacks.LEGAL for one in ranks):
        return None, True
    busy = [one for one in ranks if one.state != stacks.WAITING]
    return min(busy or ranks, key=lambda one: (one.steps, one.rank)), bool(busy)


class Watchdog:
    """One node's; ``start()`` and ``stop()``."""

    def __init__(self, run: Path, own: Claim, world: World, folder: Path, limit: float) -> None:
        self._run = run
        self._own = own
        self._world = world
        self._folder = folder
        self._limit = limit
        self._look = min(_LOOK, limit / 10)
        self._stop = threading.Event()
        self._told: str | None = None
        self._said: set[tuple[int, str]] = set()
        """What the log has of the ranks that stand still now."""
        first = world.rank - world.local_rank
        self._ranks = [(local, first + local) for local in range(world.local_size)]
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watches from now on. Signals are for the main thread, whose wait they interrupt."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def stop(self) -> None:
        """The training has ended. It is not waited for: it may hang in the run directory."""
        self._stop.set()

    def _watch(self) -> None:
        awake = since = 0.0
        looked, before = time.monotonic(), None
        again, complained = 0.0, False
        while not self._stop.wait(self._look):
            now = time.monotonic()
            awake, looked = awake + min(now - looked, 2 * self._look), now
            beats = [beat.read(self._folder / f"{local}.beat") for local, _ in self._ranks]
            known = [one for one in beats if one is not None and one.steps and not one.ended]
            moves = beats != before or len(known) < len(beats)
            if moves:
                since, before, again = awake, beats, 0.0
            if moves or awake - since < max(self._limit, PATIENT * max(one.longest for one in known)):
                try:
                    self._withdraw()
                    complained = False
                except OSError as error:
                    if not complained:
                        self._say(f"ranks go on, and the word that they stand still is not removed yet: {error}")
                    complained = True
                continue
            try:
                if awake >= again:
                    again = awake + min(_AGAIN, self._limit)
                    self._tell(known, awake - since)
                if self._world.rank == 0:
                    self._judge()
                self._heed(before)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._say(f"ranks stand still, and that cannot be told in {self._run}: {error}")

    # -- what a node tells -------------------------------------------------------------------------------------------

    def _tell(self, beats: list[beat.Seen], seconds: float) -> None:
        """Leaves word of each of this node's ranks."""
        found = []
        for (local, rank), one in zip(self._ranks, beats):  # noqa: B905 - Python 3.9
            text = stacks.ask(one.pid, self._folder / f"{local}.stacks")
            frames = stacks.main_thread(text)
            where = stacks.place(frames)
            if stacks.is_stopped(one.pid):
                where = "its process is stopped by a signal"
            standing = Standing(rank, self._world.node, local, one.steps, stacks.state(frames), where, seconds)
            found.append(standing.__dict__)
            lines = [*text.splitlines(), *stacks.threads(one.pid)]
            write_whole(self._folder / f"{local}.seen", "\n".join(lines))
        self._told = json.dumps({"version": 1, "ranks": found})
        write_whole(self._word(self._world.node), self._told)

    def _withdraw(self) -> None:
        """Takes back the word that was left, if one was; it counts as left until the file system has removed it."""
        if self._told is not None:
            self._word(self._world.node).unlink(missing_ok=True)
            self._told = None
            self._said.clear()

    def _word(self, node: str) -> Path:
        return rendezvous_file(self._run, self._own.attempt).with_name(f"{self._own.attempt}.still.{node}.json")

    # -- the judgement -----------------------------------------------------------------------------------------------

    @property
    def _verdict(self) -> Path:
        return rendezvous_file(self._run, self._own.attempt).with_name(f"{self._own.attempt}.hung.json")

    def _judge(self) -> None:
        """The first node's: once all nodes stand still."""
        here = os.listdir(self._verdict.parent)  # noqa: PTH208 - a listing is not cached for long
        words = [self._word(node) for node in self._own.nodes]
        if any(word.name not in here for word in words):
            return
        ranks = [Standing(**one) for word in words for one in json.loads(word.read_text(encoding="utf-8"))["ranks"]]
        found, others_wait = slowest(ranks)
        if found is None:
            busy = next(one for one in ranks if one.state in stacks.LEGAL)
            if (busy.rank, busy.state) not in self._said:
                self._said.add((busy.rank, busy.state))
                who = f"rank {busy.rank} on {busy.node}"
                self._say(sentences.goes_on(who, busy.state, busy.where, busy.seconds))
            return
        saved = [name.step for name in names(self._run / "checkpoints")]
        sentence = sentences.hung(
            f"rank {found.rank} on {found.node}",
            step=found.steps + 1,
            seconds=found.seconds,
            where=found.where,
            others_wait=others_wait and len(ranks) > 1,
            saved=max(saved, default=None),
        )
        write_whole(self._verdict, json.dumps({"version": 1, "sentence": sentence, **found.__dict__}))

    def _heed(self, beats: list[beat.Seen | None] | None) -> None:
        """Ends the rank that the verdict names, if it is one of this node's and still stands where it stood."""
        if self._verdict.name not in os.listdir(self._verdict.parent):  # noqa: PTH208
            return
        verdict = json.loads(self._verdict.read_text(encoding="utf-8"))
        local = verdict["local_rank"]
        if verdict["node"] != self._world.node or beats is None:
            return
        now = beat.read(self._folder / f"{local}.beat")
        if now is None or now != beats[local] or now.steps != verdict["steps"]:
            return
        write_whole(self._folder / f"{local}.hung", verdict["sentence"])
        os.kill(now.pid, signal.SIGKILL)
        self._stop.set()

    def _say(self, sentence: str) -> None:
        print(f"lockstep: {sentence}", file=sys.stderr, flush=True)


def word(folder: Path, world: World) -> str | None:
    """Why the watchdog has ended this rank, whose stacks are put into its log; None: it has not."""
    try:
        sentence = (folder / f"{world.local_rank}.hung").read_text(encoding="utf-8")
    except OSError:
        return None
    seen = folder / f"{world.local_rank}.seen"
    lines = seen.read_text(encoding="utf-8", errors="replace").splitlines() if seen.exists() else []
    print(f"lockstep: {sentence}", file=sys.stderr)
    for line in lines:
        print(f"lockstep: stacks of rank {world.rank}: {line}", file=sys.stderr)
    sys.stderr.flush()
    return sentence
