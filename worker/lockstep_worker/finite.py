"""``Finite``: a training whose loss is no number any more ends, or goes on and says so (``training.on_bad_loss``)."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import torch
from torch import nn

import lockstep
from lockstep_worker.checkpoint.folder import names
from lockstep_worker.errors import LossError
from lockstep_worker.sentences import bad_loss


class Finite:
    """Looks at each step's loss on this rank."""

    def __init__(self, model: nn.Module, *, fails: bool) -> None:
        self._model = model
        self._fails = fails
        self._said = False

    def checked(self, loss: float, step: int) -> float:
        """``loss``, of ``step`` (1 for the first), before its update. Raises ``LossError`` where the training ends."""
        if math.isfinite(loss):
            return loss
        if not self._fails:
            if not self._said:
                rank = os.environ.get("RANK", "0")
                print(f"lockstep: rank {rank}: {bad_loss(loss, step)}; it goes on", file=sys.stderr, flush=True)
            self._said = True
            return loss
        lockstep.report(step=step, loss=loss)
        raise LossError(f"{bad_loss(loss, step)}; {self._saved(step)}")

    def _saved(self, step: int) -> str:
        """The newest checkpoint whose parameters are good.

        The loss of ``step`` is of the parameters after ``step - 1`` updates; that of the step before was finite, so
        those after ``step - 2`` are good, and the ones in between where they are finite.
        """
        if (run := os.environ.get("LOCKSTEP_RUN")) is None:
            return "it has no run directory, so nothing is saved"
        with torch.no_grad():
            finite = all(bool(torch.isfinite(one).all()) for one in self._model.parameters())
        found = [name for name in names(Path(run) / "checkpoints") if name.step <= step - (1 if finite else 2)]
        if not found:
            return "no good checkpoint of it is there"
        last = max(found, key=lambda name: (name.step, name.attempt))
        return f"the last good checkpoint is of step {last.step} (checkpoints/{last.file})"
