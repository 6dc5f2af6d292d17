"""``Saver``: writes one snapshot at a time, in a thread that sits where the training does not compute.

The training hands it a snapshot and goes on. Hashing and writing release the interpreter, so the thread asks for it
only between two chunks of 1 MiB.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lockstep
from lockstep_worker import births
from lockstep_worker.checkpoint import folder as folders
from lockstep_worker.checkpoint.file import write
from lockstep_worker.checkpoint.folder import Name
from lockstep_worker.checkpoint.snapshot import Snapshot, memory_of
from lockstep_worker.errors import FencedError

ROLE = "checkpoint"
"""The thread's role in the verdict."""
CPUS = "LOCKSTEP_CHECKPOINT_CPUS"
"""The variable that says where it runs."""
SAID_AFTER = 30.0
"""Seconds after which a training that waits for a save says so."""


class Saver:
    """Saves into ``folder``; ``check`` raises ``FencedError`` when a newer attempt has been claimed."""

    def __init__(
        self, folder: Path, *, keep: int, best: bool, check: Callable[[], None], scores: dict[Name, float | None]
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._best = best
        self._check = check
        self._scores = scores
        known = [score for score in scores.values() if score is not None]
        self.best_score: float | None = max(known, default=None)
        """Of what is on the disk or being written; None: nothing with a score is."""
        self.snapshot = Snapshot()
        self.last: Name | None = None
        """The newest checkpoint that this attempt has saved whole."""
        self.fenced: FencedError | None = None
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written, which no other may overwrite."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, name: Name, held: float, **known: Any) -> None:  # noqa: ANN401 - the manifest's fields
        """Writes what is in ``snapshot``; ``held`` is how long the training was held up for it, in seconds."""
        self.wait()
        before, score = self.best_score, known.get("score")
        if score is not None and (before is None or score > before):
            self.best_score = score
        arguments = (name, held, known, before)
        self._thread = threading.Thread(target=self._save, args=arguments, name="lockstep-checkpoint")
        # Not waited for where Python ends: a file system that hangs must not keep a training that has failed.
        self._thread.daemon = True
        self._thread.start()

    def wait(self) -> None:
        """Until what is being written is on the disk, or has failed."""
        if self._thread is not None:
            self._thread.join(SAID_AFTER)
            if self._thread.is_alive():
                print(
                    f"lockstep: a checkpoint has been on its way to {self._folder} for more than {SAID_AFTER:.0f} s; "
                    "the training waits for it", file=sys.stderr, flush=True,
                )  # fmt: skip
                self._thread.join()
            self._thread = None

    def _save(self, name: Name, held: float, known: dict[str, Any], best_before: float | None) -> None:
        births.register(ROLE)
        if cpus := [int(cpu) for cpu in os.environ.get(CPUS, "").split(",") if cpu]:
            os.sched_setaffinity(0, cpus)
        began = time.perf_counter()
        body = memory_of(self.snapshot.buffer)
        try:
            size = folders.save(
                self._folder,
                name,
                lambda stream: write(
                    stream, body, step=name.step, attempt=name.attempt, tensors=self.snapshot.places, **known
                ),
                self._check,
            )
        except FencedError as error:
            self.fenced = error
            return
        except OSError as error:
            self.best_score = best_before  # what is not on the disk is not to be beaten
            self._failed(name, error)
            return
        self.last = name
        lockstep.report(
            kind="checkpoint", step=name.step, bytes=size, seconds=time.perf_counter() - began, held_s=held,
            path=name.file,
        )  # fmt: skip
        self._prune(name, known.get("score"))

    def _failed(self, name: Name, error: OSError) -> None:
        why = error.strerror or str(error)
        print(
            f"lockstep: the checkpoint of step {name.step} could not be saved into {self._folder}: {why}; the training "
            "goes on, and what was saved before is kept", file=sys.stderr, flush=True,
        )  # fmt: skip
        lockstep.report(kind="checkpoint", step=name.step, error=why)

    def _prune(self, name: Name, score: float | None) -> None:
        """Only behind a save that is on the disk, so that there is always a good one."""
        self._scores[name] = score if self._best else None
        stays = folders.kept(self._scores, self._keep)
        gone = [one for one in self._scores if one not in stays]
        try:
            if gone:
                self._check()  # a newer attempt may be about to read them
            folders.remove(self._folder, gone)
        except FencedError as error:
            self.fenced = error
            return
        except OSError as error:
            print(f"lockstep: an old checkpoint stays: {error}", file=sys.stderr, flush=True)
        for one in gone:
            del self._scores[one]
