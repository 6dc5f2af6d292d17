"""What a check finds: its level, what was found with its value, and the cure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

F = TypeVar("F")


class Level(IntEnum):
    """How much a finding matters."""

    OK = 0
    NOTE = 1
    """Worth knowing; nothing has to be done."""
    WARNING = 2
    """Works, but something will be slow, lost or unseen at times."""
    PROBLEM = 3
    """Something that Lockstep promises will not hold here until it is mended."""

    @property
    def word(self) -> str:
        """The level in lower case, as people and scripts read it."""
        return self.name.lower()


@dataclass(frozen=True)
class Answer:
    """What one check says of the facts: the level, what was found with its value, and the cure (empty where OK)."""

    level: Level
    found: str
    cure: str = ""


def ok(found: str) -> Answer:
    """Nothing to do."""
    return Answer(Level.OK, found)


def note(found: str, cure: str) -> Answer:
    """Worth knowing."""
    return Answer(Level.NOTE, found, cure)


def warning(found: str, cure: str) -> Answer:
    """Will hurt at times."""
    return Answer(Level.WARNING, found, cure)


def problem(found: str, cure: str) -> Answer:
    """Has to be mended."""
    return Answer(Level.PROBLEM, found, cure)


@dataclass(frozen=True)
class Check(Generic[F]):
    """One question about the facts ``F``: its name, why it matters in one sentence, and what judges."""

    name: str
    why: str
    judge: Callable[[F], Answer | None]
    """None where the question does not arise."""


@dataclass(frozen=True)
class Finding:
    """A check's answer with where it belongs; what the table and ``--json`` show."""

    area: str
    check: str
    level: Level
    found: str
    why: str
    cure: str


def examine(area: str, checks: Iterable[Check[F]], facts: F) -> list[Finding]:
    """What each of the checks finds in the facts, in their order."""
    findings = []
    for check in checks:
        answer = check.judge(facts)
        if answer is not None:
            findings.append(Finding(area, check.name, answer.level, answer.found, check.why, answer.cure))
    return findings
