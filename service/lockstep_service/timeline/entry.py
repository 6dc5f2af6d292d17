"""One entry of a timeline, the kinds there are, and how its sentence is made presentable. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

Kind = Literal[
    "stored", "imported", "asked", "submit", "dispatched", "waiting", "started", "suspended", "resumed", "requeued",
    "attempt", "exit", "verdict", "goes on", "checkpoint", "not saved", "staged", "remark", "unknown", "known", "stale",
    "answered", "ended well", "ended badly",
]  # fmt: skip
"""What an entry is about. ``asked`` is what its owner asked for, ``submit`` what happened on its way to Slurm.

``goes on`` is of the checkpoint with which an attempt went on; ``checkpoint``, ``not saved`` and ``staged`` sum up."""

REPEATING: Final[tuple[Kind, ...]] = ("submit", "waiting", "remark")
"""Kinds that come back again and again while a job stands still: the same words are kept once until it moves."""
MOVING: Final[tuple[Kind, ...]] = ("stored", "dispatched", "started", "requeued", "ended well", "ended badly")
"""Kinds with which a job moves on: what is said after one is new again."""
LONGEST_TEXT: Final = 1000
"""Characters of an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, when, and of which attempt it is told, where of one."""

    time: datetime
    kind: Kind
    text: str
    attempt: int | None = None


def sentence(text: str) -> str:
    """``text`` as one line that ends as a sentence does: no control characters, and cut where it is very long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > LONGEST_TEXT:
        line = line[: LONGEST_TEXT - 1] + "…"
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."


def scheduler(client: str) -> str:
    """Who has the job's queue, at the beginning of a sentence."""
    return "This machine's own queue" if client == "local" else "Slurm"
