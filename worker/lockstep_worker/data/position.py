"""``Position``: how far a training has come in its data, in samples of all ranks, so that a checkpoint can tell it."""

from __future__ import annotations

from typing import Any

from lockstep_worker.data.sharding import steps_left
from lockstep_worker.recipe import Recipe


class Position:
    """An epoch, and the samples of its order that were trained on."""

    def __init__(self) -> None:
        self.epoch = 0
        """0 for the first."""
        self.done = 0
        """Of all ranks together, in that epoch."""

    def state_dict(self) -> dict[str, Any]:
        """In plain values."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        self.epoch, self.done = state["epoch"], state["done"]

    def end_epoch(self) -> None:
        """The next one has not begun."""
        self.epoch, self.done = self.epoch + 1, 0

    def left_of_epoch(self, samples: int, recipe: Recipe, ranks: int) -> int:
        """Steps that its epoch still has, of ``samples`` in all."""
        cap = recipe.steps_per_epoch
        return steps_left(samples, self.done, batch_size=recipe.batch_size, ranks=ranks, cap=cap)

    def left(self, samples: int, recipe: Recipe, ranks: int) -> int:
        """Steps that the training still has: of this epoch, and of the whole ones behind it."""
        if self.epoch >= recipe.epochs:
            return 0
        whole = Position().left_of_epoch(samples, recipe, ranks)
        return self.left_of_epoch(samples, recipe, ranks) + whole * (recipe.epochs - 1 - self.epoch)
