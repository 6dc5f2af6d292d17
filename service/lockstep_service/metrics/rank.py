"""``Rank`` and ``Attempt``: the newest that one rank, and one attempt, reported. Values in, values out."""

from __future__ import annotations

from bisect import bisect_right, insort
from copy import copy
from typing import Any

from msgspec import Struct, field

from lockstep_service.metrics.exchange import Isolation, Tuning
from lockstep_service.metrics.pace import RECENT
from lockstep_service.metrics.record import MOST_COUNTED, Record, count, number, text
from lockstep_service.metrics.saved import Resumed, Saved
from lockstep_service.metrics.sources import MOST_NODES, Source, Staging
from lockstep_service.metrics.stretch import Stretch
from lockstep_service.metrics.told import TOLD, Told
from lockstep_service.placement import documents

MOST_HOLES = 1000
"""Of the numbers of one rank's records; a writer gives them without any."""
_WINDOW = 1024
"""Step records that are kept of a rank which is ahead of the others."""
# The rest of a usage record grows all the time, and is no curve.
DRAWN_OF_USAGE = ("cpus", "received_bytes_per_s", "sent_bytes_per_s")
_OF_NOW = ("loss", "epoch", "samples", "seconds", "samples_per_s", "exposed_s")
_OF_NEWEST = (*_OF_NOW, *(name for name in TOLD if name not in _OF_NOW))
OF_ATTEMPT = frozenset({"start", "evaluation", "isolation", "tuning", "checkpoint", "resume", "data", "staging"})
_INT64 = 2**63
_ADDED_UP = ("cpu_s", "elapsed_s", "received_bytes", "sent_bytes")


class Rank(Struct, array_like=True):
    """The newest that one rank reported in one attempt, and which of its records are stored."""

    attempt: int
    rank: int
    contiguous: int = 0
    """The highest seq up to which none is missing."""
    beyond: list[list[int]] = field(default_factory=list)
    """Behind a hole: the first and the last seq of what is stored without one, in order."""
    newest_seq: int = 0
    node: str | None = None
    step: int | None = None
    step_seq: int = 0
    highest: int | None = None
    """Its highest step, which is not its newest where a script went back."""
    loss: float | None = None
    loss_seq: int = 0
    usage: dict[str, float | None] = field(default_factory=dict)
    used: dict[str, float | None] = field(default_factory=dict)
    """What grows since the start of the training, with the seconds since."""
    usage_seq: int = 0
    usage_step: int | None = None
    recent: list[Told] = field(default_factory=list)
    """The newest steps, and some more."""
    window: list[Told] = field(default_factory=list)
    """By step, the newest ones, as far back as other ranks have not got."""
    dropped: int = 0
    last_time: float | None = None

    def see(self, seq: int) -> bool:
        """Whether this seq is new and can be stored; then it counts as stored."""
        if seq <= self.contiguous:
            return False
        if seq == self.contiguous + 1:
            self.contiguous = seq
            if self.beyond and self.beyond[0][0] == seq + 1:
                self.contiguous = self.beyond.pop(0)[1]
            return True
        at = bisect_right(self.beyond, seq, key=lambda one: one[0]) - 1
        if at >= 0 and seq <= self.beyond[at][1]:
            return False
        left = at >= 0 and self.beyond[at][1] == seq - 1
        right = at + 1 < len(self.beyond) and self.beyond[at + 1][0] == seq + 1
        if left and right:
            self.beyond[at][1] = self.beyond.pop(at + 1)[1]
        elif left:
            self.beyond[at][1] = seq
        elif right:
            self.beyond[at + 1][0] = seq
        elif len(self.beyond) >= MOST_HOLES:
            return False
        else:
            self.beyond.insert(at + 1, [seq, seq])
        return True

    def take(self, record: Record) -> None:
        """Notes what ``record`` says of now."""
        kind, values = record.kind, record.values
        if kind in documents.KINDS:
            return
        if self.last_time is None or record.time > self.last_time:
            self.last_time = record.time
        if kind == "step":
            self._step(record)
        elif kind in {"start", "usage"}:
            node = values.get("node")
            if isinstance(node, str):
                self.node = node.encode("utf-8", "replace").decode()
            if kind == "usage" and record.seq > self.usage_seq:
                self.usage_seq = record.seq
                self.usage_step = record.step if self.usage_step is None else max(self.usage_step, record.step or 0)
                self.usage = {name: number(values[name]) for name in DRAWN_OF_USAGE if name in values}
                self.used = {name: number(values[name]) for name in _ADDED_UP if name in values}
        elif kind == "gap":
            self.dropped = min(self.dropped + count(values.get("dropped")), MOST_COUNTED)

    def _step(self, record: Record) -> None:
        seq, step, values = record.seq, record.step, record.values
        told = Told(step, seq, record.time, values)
        if seq > self.step_seq:
            self.step_seq, self.step = seq, step
        if "loss" in values and seq > self.loss_seq:
            self.loss_seq, self.loss = seq, number(values["loss"])
        self.recent.append(told)
        if len(self.recent) > 4 * RECENT:
            self.recent = self.newest()
        if step is None:
            return
        self._keep(told, step)

    def _keep(self, told: Told, step: int) -> None:
        if self.highest is None or step > self.highest:
            self.highest = step
            self.window.append(told)
        else:
            insort(self.window, told, key=_place)
        if len(self.window) > _WINDOW:
            del self.window[: _WINDOW // 4]

    def continues(self, stretch: Stretch) -> bool:
        """Whether all of it is new, and follows what is stored without a hole."""
        return not self.beyond and stretch.first.seq == self.contiguous + 1

    def take_steps(self, stretch: Stretch) -> None:
        """What ``see`` and ``take`` make of each of its records, where it continues what there is."""
        last = stretch.last
        self.contiguous = self.newest_seq = self.step_seq = last.seq
        self.step = last.step
        latest = max(stretch.times)
        self.last_time = latest if self.last_time is None else max(self.last_time, latest)
        if "loss" in stretch.names:
            self.loss_seq, self.loss = last.seq, number(last.values["loss"])
        told = [Told(record.step, record.seq, record.time, record.values) for record in stretch.records]
        self.recent += told[-RECENT:]
        if len(self.recent) > 4 * RECENT:
            self.recent = self.newest()
        if self.highest is not None and stretch.steps[0] <= self.highest:
            for one, step in zip(told, stretch.steps, strict=True):
                self._keep(one, step)
            return
        self.highest = last.step
        self.window += told
        if (over := len(self.window) - _WINDOW) > 0:
            part = _WINDOW // 4
            del self.window[: part * -(-over // part)]

    def newest(self) -> list[Told]:
        """Its newest steps, the newest last."""
        return sorted(self.recent, key=lambda told: told.seq)[-RECENT:]

    def forget(self, step: int) -> None:
        """Drops what is too old for a figure of now, once all ranks have got to ``step``."""
        if len(self.window) > 2 * RECENT:
            del self.window[: bisect_right(self.window, (step - RECENT, _INT64), key=_place)]

    def brief(self) -> Rank:
        """As it is to be stored."""
        found = copy(self)
        found.recent = [told.brief(_OF_NEWEST) for told in self.newest()]
        found.window = [told.brief(_OF_NOW) for told in self.window]
        return found


def _place(told: Told) -> tuple[int, int]:
    return told.step or 0, told.seq


class Attempt(Struct, array_like=True):
    """The newest that was said of an attempt as a whole."""

    number: int
    start: tuple[int | None, float, float | None] | None = None
    """Step, time, planned steps."""
    evaluation: tuple[int | None, float, float | None] | None = None
    """Step, time, accuracy."""
    isolation: tuple[float, Isolation] | None = None
    """Time, and communication alone as it was measured."""
    tuning: tuple[float, Tuning] | None = None
    """Time, and how gradients are exchanged."""
    saved: Saved = field(default_factory=Saved)
    resumed: Resumed | None = None
    source: Source | None = None
    staging: dict[str, Staging] = field(default_factory=dict)
    """By node, the newest of each."""

    def take(self, record: Record) -> None:
        """Notes a record of one of the kinds ``OF_ATTEMPT``."""
        if record.kind == "start":
            self.start = _newer(self.start, (record.step, record.time, number(record.values.get("steps"))))
        elif record.kind == "evaluation":
            found = (record.step, record.time, number(record.values.get("accuracy")))
            self.evaluation = _newer(self.evaluation, found)
        elif record.kind == "isolation" and (self.isolation is None or record.time >= self.isolation[0]):
            self.isolation = record.time, Isolation.of(record.values)
        elif record.kind == "tuning" and (self.tuning is None or record.time >= self.tuning[0]):
            self.tuning = record.time, Tuning.of(record.values)
        elif record.kind == "checkpoint":
            self.saved.take(record)
        elif record.kind == "resume" and (self.resumed is None or record.time >= self.resumed.time):
            self.resumed = Resumed.of(record) or self.resumed
        elif record.kind == "data" and (self.source is None or record.time >= self.source.time):
            self.source = Source.of(record)
        elif record.kind == "staging":
            self._stage(text(record.values.get("node")) or f"rank {record.rank}'s node", Staging.of(record))

    def _stage(self, node: str, told: Staging) -> None:
        known = self.staging.get(node)
        if told.time >= known.time if known is not None else len(self.staging) < MOST_NODES:
            self.staging[node] = told


_Dated = tuple[int | None, float, float | None]


def _newer(known: _Dated | None, found: _Dated) -> _Dated:
    return found if known is None or _key(found) >= _key(known) else known


def _key(found: _Dated) -> tuple[bool, Any, float]:
    step, time, _ = found
    return step is not None, step or 0, time
