"""``Settings``: when to save, and what to keep: the spec's ``checkpoint`` section (standard library only)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lockstep_worker.checkpoint.errors import CheckpointError

MINUTES = 10.0
"""Between two saves, where nothing else is said."""


@dataclass(frozen=True)
class Settings:
    """The defaults are the spec's (a test holds them equal)."""

    every_steps: int | None = None
    every_minutes: float | None = None
    keep: int = 2
    """The newest so many stay."""
    best: bool = True
    """And the one with the best score."""

    @property
    def seconds(self) -> float | None:
        """Seconds between two saves by the clock; None: only steps count."""
        if self.every_steps is None and self.every_minutes is None:
            return MINUTES * 60
        return None if self.every_minutes is None else self.every_minutes * 60

    def checked(self) -> Settings:
        """Itself. Raises ``CheckpointError`` for numbers with which nothing would be saved or kept."""
        for name in ("every_steps", "every_minutes", "keep"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise CheckpointError(f"{name} is {value}; it has to be above 0")
        return self


def section_of_this_run() -> Mapping[str, Any] | None:
    """The ``checkpoint`` section of the spec of the run that this process was started for, where there is one."""
    run = os.environ.get("LOCKSTEP_RUN")
    if run is None:
        return None
    found: Mapping[str, Any] | None = json.loads((Path(run) / "spec.json").read_text("utf-8")).get("checkpoint")
    return found


def settings(own: Settings) -> Settings:
    """``own``, the script's, with what the spec of this run says in its place."""
    known = {field.name for field in fields(Settings)}
    section = section_of_this_run() or {}
    said = {name: value for name, value in section.items() if name in known and value is not None}
    return replace(own, **said).checked()
