"""``State``: what a training is made of, where it stands, and its checkpoints: ``lockstep.checkpoint.of(...)``.

All ranks do the same with it, at the same steps. Whether to save or to stop behind a step is added up of all ranks
while that step is computed, so nobody waits for it, and all do it behind the same one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

import lockstep
from lockstep_slurm.job.rundir import STOPPED
from lockstep_worker.checkpoint import folder as folders
from lockstep_worker.checkpoint import own, randomness
from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import Manifest, read, read_manifest
from lockstep_worker.checkpoint.folder import Name
from lockstep_worker.checkpoint.origin import Origin
from lockstep_worker.checkpoint.putting import misfit, put
from lockstep_worker.checkpoint.ranks import Ranks, agreed
from lockstep_worker.checkpoint.saver import Saver
from lockstep_worker.checkpoint.settings import Settings
from lockstep_worker.checkpoint.told import Told, note_saved
from lockstep_worker.checkpoint.tree import flatten
from lockstep_worker.claim import check_fence
from lockstep_worker.errors import FencedError
from lockstep_worker.gradients.optimizer import DistributedOptimizer

GO_ON_LATER, STOP, SAVE = range(3)
"""The places of the counts that the ranks add up."""


class State:
    """A training's state; ``with`` it, or ``close()`` it. Made by ``lockstep.checkpoint.of``."""

    def __init__(
        self,
        things: Mapping[str, Any],
        ranks: Ranks,
        folder: Path | None,
        settings: Settings,
        origin: Origin | None = None,
    ) -> None:
        self._generators = {name: one for name, one in things.items() if isinstance(one, torch.Generator)}
        self._things = {name: one for name, one in things.items() if name not in self._generators}
        for name, one in self._things.items():
            if not callable(getattr(one, "state_dict", None)) or not callable(getattr(one, "load_state_dict", None)):
                raise CheckpointError(
                    f"{name} is a {type(one).__qualname__}: what is saved has state_dict() and load_state_dict(), or "
                    "is a torch.Generator"
                )
        self._ranks = ranks
        self._folder = folder
        self._settings = settings
        self._run = Path(run) if (run := os.environ.get("LOCKSTEP_RUN")) else None
        self.step = 0
        """Steps completed so far, those of earlier attempts included."""
        self.resumed_at: int | None = None
        """The step at which this attempt went on; None: it began anew."""
        self._attempt = int(os.environ.get("LOCKSTEP_ATTEMPT", "1"))
        self._saver: Saver | None = None
        self._saved_step = 0
        self._in_step = False
        """Whether a step is being computed: what a training has then is not yet the state of a whole number of them."""
        self._wants: tuple[float | None] | None = None
        """The score with which to save behind this step."""
        self._random: Mapping[str, Any] | None = None
        self._told: Told | None = None
        self._clock = time.monotonic()
        self._is_open = folder is not None
        if folder is None:
            return
        flatten(self._objects())  # what cannot be saved is told before hours of training
        if not self._resume(folder) and origin is not None:
            self._begin_from(origin)
        self._told = Told()
        self._ask()

    # -- what a training calls ---------------------------------------------------------------------------------------

    def steps(self, total: int) -> Iterator[int]:
        """The steps from where this training stands up to ``total``, counted from 0; one round of the loop is a step.

        Behind each it saves, or saves and ends the training, where the ranks agreed on that; where all are done, the
        end is saved, too. It ends the training by ``SystemExit``: code 85 when the job's time is over and it goes on
        later, 143 when somebody ends it. A loop that is left by ``break`` leaves its step uncounted.
        """
        if self._random is not None:
            # Once more: what was built since may have drawn numbers.
            randomness.restore(self._random, self._generators)
            self._random = None
        while self.step < total:
            self._in_step = True
            try:
                yield self.step
            finally:
                self._in_step = False
            self._done()
        if self._is_open and self._saved_step != self.step:
            self._save(None)

    def evaluated(self, score: float) -> None:
        """Tells how good the state is, the higher the better; the best so far is saved, behind this step, and kept.

        Called on all ranks; rank 0's ``score`` counts. A training that looks at a loss gives it with a minus.
        """
        lockstep.evaluated(self.step + self._in_step)
        if not self._is_open or not self._settings.best:
            return
        if self._ranks.gather(b"best" if self._is_best(score) else b"")[0]:
            self._wants = (float(score),)
            self._save_if_wanted()
        lockstep.evaluated(self.step + self._in_step)  # the slowest rank's evaluation was waited for

    def save(self) -> None:
        """Saves behind this step; called on all ranks. Waits for a save that is under way, and not for this one."""
        if self._is_open:
            self._wants = self._wants or (None,)
            self._save_if_wanted()

    def close(self) -> None:
        """Waits for what is being written. Behind it nothing is saved any more."""
        if not self._is_open:
            return
        self._is_open = False
        self._ranks.end_sum()
        self._leave()
        self._ranks.end()
        self._heed_the_fence()

    def __enter__(self) -> State:  # noqa: PYI034 - Python 3.9 has no Self
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """``close()``; where the training failed, what was being written is still written."""
        if kind is None:
            self.close()
        elif self._is_open:
            self._is_open = False
            self._leave()

    # -- going on ----------------------------------------------------------------------------------------------------

    def _resume(self, folder: Path) -> bool:
        """Puts back the newest checkpoint that every rank can read; the saver knows all that can be.

        Returns whether there is one.
        """
        found: list[list[int]] = []
        if self._ranks.rank == 0:
            folders.remove_partials(folder)
            found = [[name.attempt, name.step] for name in folders.names(folder)]
        names = [Name(*pair) for pair in json.loads(self._ranks.gather(json.dumps(found).encode())[0])]
        if names and (self._run is None or names[0].attempt >= self._attempt):
            # Only in a folder that others use as well: ours are newer than theirs, and never of the same name.
            self._attempt = names[0].attempt + 1
        refused: list[Name] = []
        unread: str | None = None
        for name in names:
            problem, is_unread, found_here = "", False, None
            try:
                found_here = self._read(folder / name.file)
            except CheckpointError as error:
                problem, is_unread = str(error), isinstance(error.__cause__, OSError)
            told = [json.loads(one) for one in self._ranks.gather(json.dumps([problem, is_unread]).encode())]
            problem = next((said for said, _ in told if said), "")
            if not problem and found_here is not None:
                self._put_back(*found_here)
                break
            refused.append(name)
            unread = unread or next((said for said, cannot in told if cannot), None)
            if self._ranks.rank == 0:
                print(f"lockstep: not resumed from: {problem}", file=sys.stderr, flush=True)
        else:
            if unread is not None:
                raise CheckpointError(
                    f"{unread}; none of {len(names)} checkpoints in {folder} can be used, and to begin anew would be "
                    "to lose them: start again where all nodes can read them, or remove them"
                )
            if names and self._ranks.rank == 0:
                print(
                    f"lockstep: none of {len(names)} checkpoints in {folder} can be used, so the training begins anew; "
                    "they are left there", file=sys.stderr, flush=True,
                )  # fmt: skip
        if self._ranks.rank == 0:
            self._saver = Saver(
                folder,
                keep=self._settings.keep,
                best=self._settings.best,
                check=self._check,
                scores=self._scores(folder, [name for name in names if name not in refused]),
            )
        return self.resumed_at is not None

    def _begin_from(self, origin: Origin) -> None:
        """Puts back another job's checkpoint, which rank 0 chooses. Raises ``CheckpointError`` on all ranks alike."""
        chosen = agreed(self._ranks, (lambda: str(origin.file())) if self._ranks.rank == 0 else str)[0]
        found: list[tuple[Manifest, Any]] = []

        def look() -> str:
            found.append(self._read(Path(chosen), of_another=True))
            return ""

        agreed(self._ranks, look)
        self._put_back(*found[0])

    def _read(self, path: Path, *, of_another: bool = False) -> tuple[Manifest, Any]:
        manifest, state = read(path)
        if manifest.job != self._job and not of_another:
            raise CheckpointError(f"{path} is of another training: of job {manifest.job}, and this is {self._job}")
        if not isinstance(state, dict) or not {"objects", "own"} <= state.keys():
            raise CheckpointError(f"{path} has no state of a training")
        return manifest, state

    @property
    def _job(self) -> str | None:
        return None if self._run is None else self._run.name

    def _scores(self, folder: Path, names: list[Name]) -> dict[Name, float | None]:
        """Of this job's checkpoints that can be read; others are not its to remove, and never push one of its out."""
        scores: dict[Name, float | None] = {}
        for name in names:
            try:
                manifest = read_manifest(folder / name.file)
            except CheckpointError:
                continue  # older than what was taken
            if manifest.job == self._job:
                scores[name] = manifest.score
        return scores

    def _put_back(self, manifest: Manifest, state: Mapping[str, Any]) -> None:
        objects = state["objects"]
        if objects.keys() != self._things.keys():
            raise CheckpointError(
                f"the checkpoint of step {manifest.step} was saved with {', '.join(sorted(objects))}, and is to be "
                f"resumed with {', '.join(sorted(self._things))}"
            )
        for name, thing in self._things.items():
            try:
                put(thing, objects[name])
            except (RuntimeError, ValueError, KeyError) as error:
                why = misfit(thing, objects[name]) or error
                raise CheckpointError(f"the checkpoint of step {manifest.step} does not fit {name}: {why}") from error
        said = f"goes on from the checkpoint of step {manifest.step}, saved by attempt {manifest.attempt}"
        if manifest.job != self._job:
            said += f" of job {manifest.job}"
        if manifest.ranks == self._ranks.size:
            self._random = own.put_back(state["own"][self._ranks.rank], self._things)
            randomness.restore(self._random, self._generators)
        else:
            said += f" with {manifest.ranks} ranks; random numbers are drawn anew by {self._ranks.size}"
        self.step = self.resumed_at = self._saved_step = manifest.step
        if self._ranks.rank == 0:
            print(f"lockstep: {said}", file=sys.stderr, flush=True)
            whose = {} if manifest.job == self._job else {"job": manifest.job or ""}
            lockstep.report(kind="resume", step=manifest.step, saved_by=manifest.attempt, ranks=manifest.ranks, **whose)

    # -- behind a step -----------------------------------------------------------------------------------------------

    def _done(self) -> None:
        self.step += 1
        if not self._is_open:
            return
        self._heed_the_fence()
        counts = self._ranks.end_sum()
        self._save_if_wanted()
        if counts[GO_ON_LATER] or counts[STOP]:
            self._stop(goes_on=not counts[STOP])
        if counts[SAVE] and self._saved_step != self.step:
            self._save(None)
        self._ask()

    def _is_best(self, score: float) -> bool:
        """Whether none is as good that is on the disk, being written, or to be saved behind this step; asks rank 0."""
        if self._saver is None or math.isnan(score):
            return False
        others = (self._saver.best_score, self._wants[0] if self._wants is not None else None)
        return all(score > one for one in others if one is not None)

    def _save_if_wanted(self) -> None:
        if self._wants is not None and not self._in_step:
            (score,) = self._wants
            self._wants = None
            self._save(score)

    # -- saving ------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Begins to add up, while the next step is computed, what is to happen behind it."""
        assert self._told is not None
        counts = [int(self._told.go_on_later), int(self._told.stop), 0]
        if self._saver is not None and not self._saver.busy:
            every, seconds = self._settings.every_steps, self._settings.seconds
            # One that was due while another was being written is made up for.
            counts[SAVE] = int(
                (every is not None and (self.step + 1) // every > self._saved_step // every)
                or (seconds is not None and time.monotonic() - self._clock >= seconds)
            )
        self._ranks.begin_sum(counts)

    def _save(self, score: float | None) -> None:
        """Copies everything, and has it written by the saver."""
        began = time.perf_counter()
        self._clock = time.monotonic()
        packed = own.packed(self._ranks, self._things, self._generators, keep=self._saver is not None)
        if self._saver is not None:
            self._saver.wait()
            self._heed_the_fence()
            document, tensors = flatten({"objects": self._objects(), "own": packed})
            self._saver.snapshot.take(tensors)
            self._saver.start(
                Name(self._attempt, self.step),
                time.perf_counter() - began,
                job=self._job,
                ranks=self._ranks.size,
                saved=time.time(),
                score=score,
                tuning=self._tuning(),
                state=document,
            )
        self._saved_step = self.step

    def _tuning(self) -> dict[str, Any] | None:
        every = [one.tuning for one in self._things.values() if isinstance(one, DistributedOptimizer)]
        return every[0] if every else None

    def _objects(self) -> dict[str, Any]:
        return {name: thing.state_dict() for name, thing in self._things.items()}

    def _check(self) -> None:
        if self._run is not None:
            check_fence(self._run, int(os.environ["LOCKSTEP_FENCE"]))

    def _heed_the_fence(self) -> None:
        """Ends a rank whose save was refused because a newer attempt has been claimed."""
        if self._saver is not None and self._saver.fenced is not None:
            print(f"lockstep: {self._saver.fenced}", file=sys.stderr, flush=True)
            raise SystemExit(FencedError.code)

    # -- ending ------------------------------------------------------------------------------------------------------

    def _stop(self, *, goes_on: bool) -> None:
        """Saves, waits until that is on the disk, and ends the training on this rank."""
        if self._saved_step != self.step:
            self._save(None)
        self._is_open = False
        if self._saver is not None:
            self._saver.wait()
            self._heed_the_fence()
        last = self._saver.last if self._saver is not None else None
        told = self._ranks.gather(str(last.step).encode() if last is not None else b"")[0].decode()
        self._ranks.end()
        if self._told is not None:
            self._told.ignore()
        if self._ranks.rank == 0:
            saved = f"what it goes on from is step {told}" if told else "it has saved nothing"
            print(f"lockstep: told to stop, behind step {self.step}; {saved}", file=sys.stderr, flush=True)
        if told:
            note_saved(int(told))
        if not goes_on:
            raise SystemExit(128 + signal.SIGTERM)
        # What saved nothing would be put back into the queue again and again, and never come further.
        raise SystemExit(STOPPED if told else CheckpointError.code)

    def _leave(self) -> None:
        if self._saver is not None:
            self._saver.wait()
        if self._told is not None:
            self._told.leave()
