"""What goes wrong and when: pure, from a seed. Moments are parts of the run, so that a slow machine meets them all."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "terminate", "stop", "disk", "limit", "full table"]
"""``kill``: SIGKILL for the service. ``terminate``: SIGTERM for slurmctld, and its start after ``seconds``. ``stop``:
SIGSTOP for it, so that submits time out and yet happen. ``disk``: no byte is left for the database. ``limit``: a limit
of queued jobs by Slurm's accounting policy. ``full table``: slurmctld is started again with so small a MaxJobCount."""
FIRST, LAST = 0.03, 0.75
"""The part of the run in which faults begin: before there is nothing to hurt, after all has been submitted."""
REFUSING: tuple[Kind, ...] = ("limit", "full table")
"""They come in the first half: behind many bursts nothing might be left to be refused."""
WITH_A_KILL = frozenset({"stop", "terminate", "disk"})
KILL_WITHIN = 1.5
"""Seconds after its moment, within which a kill comes: a thousand events of the service later, or none."""


@dataclass(frozen=True)
class Form:
    """How large a run is. ``limit`` is of queued jobs; ``burst`` is how many are submitted while a fault lasts."""

    submissions: int
    kills: int
    terminations: int
    stops: int
    limit: int
    outstanding: int
    """Submissions that were answered and have not trained yet: clients wait above it."""
    burst: int
    measured: int
    """Submissions while slurmctld is down, of which each one's time is taken."""
    happened: int
    """Submits of which nobody answered and that had happened all the same, at least: so few stops may bring none."""


FULL = Form(
    submissions=1000, kills=40, terminations=4, stops=5, limit=50, outstanding=90, burst=30, measured=100, happened=1
)  # fmt: skip
SHORT = Form(
    submissions=100, kills=6, terminations=1, stops=1, limit=6, outstanding=14, burst=6, measured=0, happened=0
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: once the part ``at`` of the run is done, and ``delay`` seconds later."""

    kind: Kind
    at: float
    """0 to 1, of the trainings that the run is to have."""
    delay: float
    seconds: float
    """How long it lasts at least; 0 for a kill."""
    until: float
    """For ``limit`` and ``full table``: the part of the run at which it ends."""
    kill_after: float | None = None
    """Seconds after its beginning at which the service is killed as well."""


@dataclass(frozen=True)
class Schedule:
    """Two lanes, each in the order of its moments: the service's kills, and what happens to Slurm and to the disk."""

    kills: tuple[Fault, ...]
    surroundings: tuple[Fault, ...]


def schedule(seed: int, form: Form, *, message_timeout: float) -> Schedule:
    """The faults of a run. ``message_timeout``: Slurm's, in seconds; a stop lasts longer, so that submits time out."""
    chance = random.Random(seed)
    kills = [
        Fault("kill", at=at, delay=chance.uniform(0, KILL_WITHIN), seconds=0, until=at)
        for at in sorted(chance.uniform(FIRST, LAST) for _ in range(form.kills))
    ]
    kinds: list[Kind] = ["terminate"] * form.terminations
    kinds += ["stop"] * form.stops
    kinds += ["disk", "limit", "full table"]
    chance.shuffle(kinds)
    while max(kinds.index(kind) for kind in REFUSING) > len(kinds) // 2:
        chance.shuffle(kinds)
    slot = (LAST - FIRST) / len(kinds)
    surroundings = []
    for number, kind in enumerate(kinds):
        at = FIRST + slot * (number + chance.uniform(0, 0.3))
        seconds = {"stop": message_timeout + chance.uniform(1, 3), "terminate": chance.uniform(1, message_timeout + 3)}
        lasts = seconds.get(kind, 2.0)
        surroundings.append(
            Fault(
                kind,
                at=at,
                delay=chance.uniform(0, 1),
                seconds=lasts,
                until=FIRST + slot * (number + 0.9),
                # Two things at once: half of the time the service dies while nothing around it works.
                kill_after=chance.uniform(0, lasts) if kind in WITH_A_KILL and chance.random() < 0.5 else None,
            )
        )
    return Schedule(tuple(kills), tuple(surroundings))
