"""``Stopping``: a rank's part when its training is told to stop, saves and ends (standard library only).

The training decides with the other ranks behind which step (``checkpoint.state``); the wrapper keeps what came before
it could listen, says in the exit record how it ended, and leaves the batch script the word that it may go on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import STOPPED, Claim, stopped_file
from lockstep_slurm.job.writing import write_whole
from lockstep_worker.checkpoint import told
from lockstep_worker.checkpoint.folder import names
from lockstep_worker.placing import Placed
from lockstep_worker.world import World

CPUS = "LOCKSTEP_CHECKPOINT_CPUS"
"""The variable that says where a training writes its checkpoints."""


class Stopping:
    """What one rank was told, and what came of it."""

    def __init__(self, run: Path, world: World, spec: Mapping[str, Any]) -> None:
        self._run = run
        self._spec = spec
        self._world = world
        self._file: Path | None = None
        self._numbers: list[int] = []
        self.goes_on = False
        """Whether the training has stopped to go on later, and has saved."""

    def note(self, number: int) -> None:
        """A signal came; called by its handler."""
        if number in told.LISTENS_TO and number not in self._numbers:
            self._numbers.append(number)
            if self._file is not None:
                self._write(number)

    def variables(self, folder: Path, placed: Placed) -> dict[str, str]:
        """What the training has to know: where signals are noted, and where it may write without being in the way."""
        self._file = folder / f"told-{self._world.local_rank}"
        for number in self._numbers:
            self._write(number)
        own = placed.own
        aside = [cpu for cpu in placed.helpers if cpu in own.cpus] or own.communication.cpus or own.loader
        return {told.FILE: str(self._file), CPUS: ",".join(map(str, aside))}

    def ignored(self) -> tuple[int, ...]:
        """The signals that the training ignores until it listens: the one that Slurm then sends, not to end it."""
        return (signal.SIGUSR1,) if self._spec.get("checkpoint") is not None else ()

    def outcome(self, own: Claim, returncode: int) -> tuple[int, str | None]:
        """The return code that tells how the training ended, and a sentence where it was told to stop."""
        if returncode == 128 + signal.SIGTERM:
            step = self._saved(own)
            if step is None:
                return (-signal.SIGTERM if signal.SIGTERM in self._numbers else returncode), None
            self._leave_word(signal.SIGTERM)
            return -signal.SIGTERM, (
                f"rank {self._world.rank} on {self._world.node} was ended by signal 15 (SIGTERM), and what was done up "
                f"to step {step} is saved"
            )
        if returncode == STOPPED and (step := self._noted()) is not None:
            self.goes_on = True
            self._leave_word(signal.SIGUSR1)
            again = ", to go on as the next attempt"
            if not self._spec.get("resources", {}).get("requeue", True):
                again = "; resources.requeue is false, so it is not put back into the queue"
            return returncode, f"told that its time was over, it has saved step {step} and ended{again}"
        return returncode, None  # a script's own code means what it means to that script

    def _noted(self) -> int | None:
        return None if self._file is None else told.saved(self._file)

    def _saved(self, own: Claim) -> int | None:
        """The step that is saved: as the training noted, else of this attempt's newest checkpoint; None: nothing is."""
        if (step := self._noted()) is not None:
            return step
        found = [name.step for name in names(self._run / "checkpoints") if name.attempt == own.attempt]
        return max(found, default=None)

    def _leave_word(self, number: int) -> None:
        world = self._world
        if world.rank != 0 or world.slurm_job_id is None:
            return
        try:
            file = stopped_file(self._run, world.slurm_job_id, world.restart_count)
            write_whole(file, f"{signal.Signals(number).name}\n")
        except OSError as error:
            print(f"lockstep: the job is not put back into the queue: {error}", file=sys.stderr, flush=True)

    def _write(self, number: int) -> None:
        assert self._file is not None
        try:
            told.note(self._file, number)
        except OSError as error:
            print(f"lockstep: rank {self._world.rank}: a signal is not noted: {error}", file=sys.stderr, flush=True)
