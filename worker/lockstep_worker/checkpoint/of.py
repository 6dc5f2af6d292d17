"""``of``: a training's state, put back where it was left; what a script calls as ``lockstep.checkpoint.of``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import read_manifest
from lockstep_worker.checkpoint.folder import names
from lockstep_worker.checkpoint.origin import FOLDER, Origin
from lockstep_worker.checkpoint.ranks import Alone, all_ranks
from lockstep_worker.checkpoint.settings import Settings, section_of_this_run, settings
from lockstep_worker.checkpoint.state import State


def of(
    *,
    every_steps: int | None = None,
    every_minutes: float | None = None,
    keep: int = 2,
    best: bool = True,
    folder: str | os.PathLike[str] | None = None,
    **things: Any,  # noqa: ANN401 - whatever has a state
) -> State:
    """The state of a training that is made of ``things``, put back to where the newest good checkpoint has it.

        with lockstep.checkpoint.of(model=model, optimizer=optimizer) as state:
            for step in state.steps(1000):
                ...

    ``things`` are saved under their names: whatever has ``state_dict()`` and ``load_state_dict()`` and is the same on
    all ranks (models, optimizers, schedulers), and ``torch.Generator``s, each rank its own. Random states of torch,
    Python and NumPy are saved by themselves. Call it on all ranks, after ``hvd.init()`` or ``init_process_group()`` and
    after what it is given is made and broadcast.

    Saved every ``every_steps`` steps, and ``every_minutes`` (10 where neither is said); the newest ``keep`` stay, and
    with ``best`` the one with the best score (``State.evaluated``). What the job's spec says in its ``checkpoint``
    section counts in place of these. ``folder``: where to, else into the run directory; a script that no Lockstep has
    started and that names none saves nothing, and says so.

    Raises ``CheckpointError`` for what cannot be saved, or does not fit what was saved.
    """
    run = os.environ.get("LOCKSTEP_RUN")
    chosen = settings(Settings(every_steps=every_steps, every_minutes=every_minutes, keep=keep, best=best))
    if folder is None and run is None:
        print("lockstep: not started by Lockstep, and no folder= is given, so nothing is saved", file=sys.stderr)
        return State(things, Alone(), None, chosen)
    where = _where(folder, run)
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    return State(things, all_ranks(), where.absolute(), chosen, Origin.of_this_run())


def of_recipe(**things: Any) -> State:  # noqa: ANN401
    """The same for a built-in recipe: saved only where the job's spec has a ``checkpoint`` section.

    What the spec says of the optimizer counts, whatever was saved: it may be another job's that goes on.
    """
    if section_of_this_run() is None:
        return State(things, Alone(), None, Settings())
    optimizers = [one for one in things.values() if isinstance(one, torch.optim.Optimizer)]
    said = [
        (group, {name: value for name, value in group.items() if name != "params"})
        for one in optimizers
        for group in one.param_groups
    ]
    state = of(**things)
    for group, options in said:
        group.update(options)
    return state


def tuning(*, folder: str | os.PathLike[str] | None = None) -> dict[str, Any] | None:
    """What the gradient exchange had chosen in the newest checkpoint: for ``DistributedOptimizer(tuning=...)``.

    None where there is none, it had chosen nothing, or was of another number of ranks.
    """
    run = os.environ.get("LOCKSTEP_RUN")
    if folder is None and run is None:
        return None
    where = _where(folder, run)
    for name in names(where):
        try:
            found = read_manifest(where / name.file)
        except CheckpointError:
            continue  # ``of`` says so
        return found.tuning if found.ranks == int(os.environ.get("WORLD_SIZE", "1")) else None
    return None


def _where(folder: str | os.PathLike[str] | None, run: str | None) -> Path:
    return Path(folder) if folder is not None else Path(run or "") / FOLDER
