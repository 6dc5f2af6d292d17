"""``Forecasts``: what Slurm says of scripts that it is only asked about, asked rarely and by one thread at a time.

Each question makes the controller go through its whole queue. So answers are kept for a while, two questions are at
least ``gap`` apart, and no caller waits longer than ``patience``: an answer that comes later is kept for the next.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event, Lock, Thread

from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmClient, SlurmError, SlurmForecast, SlurmUnavailableError

_log = logging.getLogger(__name__)
_KEPT = 32


@dataclass(frozen=True)
class Answer:
    """What one question came to."""

    asked_at: datetime
    asked: float
    """Of ``time.monotonic``."""
    forecast: SlurmForecast | None = None
    refusal: str | None = None
    """Slurm's own words."""
    silence: str | None = None
    """Why there was no answer."""


@dataclass(frozen=True)
class NoAnswer:
    """Slurm was not asked, or (``asked``) has not answered yet; ``seconds``: when to come again."""

    why: str
    seconds: float
    asked: bool = False


@dataclass
class _Question:
    key: str
    answered: Event = field(default_factory=Event)


@dataclass
class Forecasts:
    """The questions and answers of one process. Seconds."""

    gap: float = 2.0
    patience: float = 3.0
    keeps: float = 10.0
    """How long an answer is given again."""
    _lock: Lock = field(default_factory=Lock)
    _kept: OrderedDict[str, Answer] = field(default_factory=OrderedDict)
    _open: _Question | None = None
    _asked: float | None = None

    def of(self, client: SlurmClient, script: str, name: str) -> Answer | NoAnswer:
        """What Slurm says of this script for a job of this name."""
        key = hashlib.sha256(f"{name}\n{script}".encode()).hexdigest()
        with self._lock:
            if (known := self._kept.get(key)) is not None and time.monotonic() - known.asked < self._worth(known):
                return known
            if self._open is not None and self._open.key != key:
                return NoAnswer("Slurm is being asked about another script just now", self.gap)
            if self._open is None:
                left = 0.0 if self._asked is None else self._asked + self.gap - time.monotonic()
                if left > 0:
                    return NoAnswer(f"Slurm was asked less than {self.gap:g} s ago, and is not asked more often", left)
                self._asked = time.monotonic()
                self._open = _Question(key)
                # A daemon: Slurm may take half a minute not to answer, and nothing depends on it.
                Thread(target=self._ask, args=(client, script, name, self._open), name="forecast", daemon=True).start()
            question = self._open
        question.answered.wait(self.patience)
        with self._lock:
            found = self._kept.get(key) if question.answered.is_set() else None
        if found is None:
            return NoAnswer(f"Slurm has not answered within {self.patience:g} s", self.gap, asked=True)
        return found

    def _worth(self, known: Answer) -> float:
        """For how many seconds an answer is given again; silence only as long as Slurm would not be asked anyway."""
        return self.gap if known.silence is not None else self.keeps

    def _ask(self, client: SlurmClient, script: str, name: str, question: _Question) -> None:
        asked_at, asked = now(), time.monotonic()
        found = Answer(asked_at, asked, silence="the question to Slurm failed; the service's log says why")
        try:
            found = Answer(asked_at, asked, forecast=client.test(script, name))
        except SlurmUnavailableError as error:
            found = Answer(asked_at, asked, silence=str(error))
        except SlurmError as error:
            found = Answer(asked_at, asked, refusal=str(error))
        finally:
            with self._lock:
                self._kept[question.key] = found
                self._kept.move_to_end(question.key)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
                self._open = None
            question.answered.set()
