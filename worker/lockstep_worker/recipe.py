"""``Recipe``: what a built-in training needs to know of the job's spec (standard library only)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """The spec's ``training`` section for a built-in model; the defaults are the spec's (a test holds them equal)."""

    model: str
    data: str
    epochs: int = 1
    steps_per_epoch: int | None = None
    batch_size: int = 32
    """Samples per rank and step."""
    learning_rate: float = 0.05
    """Of the whole job, not scaled by ranks."""
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_steps: int = 0
    seed: int = 0

    @classmethod
    def parse(cls, training: Mapping[str, Any]) -> Recipe:
        """From the spec's ``training`` section."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in training.items() if key in known})

    @classmethod
    def of_this_run(cls) -> Recipe:
        """From the ``spec.json`` of the run that this process was started for."""
        spec = json.loads((Path(os.environ["LOCKSTEP_RUN"]) / "spec.json").read_text(encoding="utf-8"))
        return cls.parse(spec["training"])

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of ``step`` (0 for the first): grows linearly over ``warmup_steps``, then stays."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))
