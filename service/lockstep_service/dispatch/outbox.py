"""``OutboxState``: what the submit loop knows beside the database: brakes, the rate, and which jobs share a limit."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

from pyrate_limiter import Duration, Limiter, Rate

from lockstep_service.dispatch.brakes import Brakes


@dataclass
class OutboxState:
    """Lost when the service ends, without harm: brakes and the rate are for politeness."""

    rate: int
    """Submits a second at most; 0: no limit."""
    brakes: Brakes = field(default_factory=Brakes)
    groups: dict[str, Hashable] = field(default_factory=dict)
    """The group of jobs that were passed over, by their id."""
    looked_for: set[str] = field(default_factory=set)
    """The Slurm names that this process has looked for: no submit of theirs that runs is a dead process's any more."""
    lookup_seconds: float | None = None
    """Between two look-ups, by Slurm's own MessageTimeout, once that is known."""
    closing: bool = False
    """The service is being stopped: what was not sent yet is left to the next."""

    def wait_for_turn(self) -> None:
        """Returns when the rate allows one more submit."""
        if self.rate:
            self._limiter.try_acquire("submit")

    @cached_property
    def _limiter(self) -> Limiter:
        return Limiter(Rate(self.rate, Duration.SECOND))


def group_of(spec: str) -> Hashable:
    """The jobs that share a limit of Slurm's with the job of this spec: the same partition, account and QOS."""
    resources = json.loads(spec).get("resources") or {}
    return tuple(resources.get(key) for key in ("partition", "account", "qos"))
