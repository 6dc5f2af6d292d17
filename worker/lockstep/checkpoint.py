"""``lockstep.checkpoint``: a training's state that is saved, and put back where the job is started again.

    with lockstep.checkpoint.of(model=model, optimizer=optimizer) as state:
        for step in state.steps(1000):
            ...

It needs torch, so it is imported when a script first asks for it; the rest of ``lockstep`` is standard library only.
"""

from __future__ import annotations

from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import read
from lockstep_worker.checkpoint.of import of, tuning
from lockstep_worker.checkpoint.state import State

__all__ = ["CheckpointError", "State", "of", "read", "tuning"]
