"""``Figures``: the records of one job, put together into series over steps. Values in, values out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lockstep_service.metrics.pace import RECENT, Pace, communication_share, throughput
from lockstep_service.metrics.record import NOT_FINITE, Record, number
from lockstep_service.metrics.schemas import RankFigures, Series
from lockstep_service.metrics.steps import Point, Steps
from lockstep_service.metrics.thinning import thin

Kind = Literal["step", "evaluation"]
# An evaluation's values that share a name with a step's are told apart by this.
_ALSO_OF_A_STEP = frozenset({"loss", "samples", "seconds", "samples_per_s", "communication_s", "epoch"})
_SUMMED = frozenset({"samples_per_s"})


@dataclass(frozen=True)
class _Key:
    attempt: int
    kind: Kind
    name: str


@dataclass
class _Rank:
    """The newest that one rank reported in one attempt."""

    node: str | None = None
    step: int | None = None
    step_seq: int = 0
    loss: float | None = None
    recent: dict[int, Pace] = field(default_factory=dict)
    """By seq, the newest steps."""
    dropped: int = 0
    last_time: float | None = None


@dataclass
class Figures:
    """Takes records in any order, each once; ``revision`` is the job's revision up to which it has them."""

    revision: int = 0
    _steps: dict[_Key, Steps] = field(default_factory=lambda: defaultdict(Steps))
    _times: dict[tuple[int, Kind, int], float] = field(default_factory=dict)
    _ranks: dict[tuple[int, int], _Rank] = field(default_factory=lambda: defaultdict(_Rank))

    def add(self, record: Record) -> None:
        """Takes one record."""
        values = json.loads(record.values)
        rank = self._ranks[record.attempt, record.rank]
        rank.last_time = max(record.time, rank.last_time or 0.0)
        if record.kind == "start" and isinstance(values.get("node"), str):
            rank.node = values["node"]
        elif record.kind == "gap":
            rank.dropped += int(number(values.get("dropped")) or 0)
        elif record.kind == "step":
            self._put(record, "step", values)
            if record.seq > rank.step_seq:
                rank.step_seq, rank.step = record.seq, record.step
                rank.loss = number(values.get("loss"))
            rank.recent[record.seq] = Pace.of(values)
            if len(rank.recent) > RECENT:
                del rank.recent[min(rank.recent)]
        elif record.kind == "evaluation":
            self._put(record, "evaluation", values)

    def _put(self, record: Record, kind: Kind, values: dict[str, object]) -> None:
        # A report without a step is placed by its own number, which grows as well.
        step = record.step if record.step is not None else record.seq
        place = (record.attempt, kind, step)
        self._times[place] = max(record.time, self._times.get(place, 0.0))
        for name, value in values.items():
            drawn = number(value)
            if drawn is None and not (isinstance(value, str) and value in NOT_FINITE):
                continue
            self._steps[_Key(record.attempt, kind, _series_name(kind, name))].put(step, record.rank, drawn)

    def series(self, points: int, over: frozenset[int] = frozenset()) -> list[Series]:
        """Every series, thinned to at most ``points``; ``over``: the attempts to which nothing will be added.

        A step counts once all ranks that report this figure have reported it; at the end of an attempt the means also
        count steps that only some ranks got to, while a sum over some of the ranks would be a different figure.
        """
        return [
            self._one(key, steps, points, ended=key.attempt in over)
            for key, steps in sorted(
                self._steps.items(), key=lambda item: (item[0].attempt, item[0].kind, item[0].name)
            )
        ]

    def _one(self, key: _Key, steps: Steps, points: int, *, ended: bool) -> Series:
        aggregate: Literal["mean", "sum"] = "sum" if key.name in _SUMMED else "mean"
        shown, found = steps.points(whole=not (ended and aggregate == "mean"))
        low, high = [point.low for point in found], [point.high for point in found]
        kept = thin([point.total for point in found], low, high, points)
        return Series(
            name=key.name,
            attempt=key.attempt,
            aggregate=aggregate,
            kind=key.kind,
            step=[shown[i] for i in kept],
            time=[self._times[key.attempt, key.kind, shown[i]] for i in kept],
            value=[_value(found[i], aggregate) for i in kept],
            min=[low[i] for i in kept],
            max=[high[i] for i in kept],
            ranks=len(steps.ranks),
        )

    def by_rank(self) -> list[RankFigures]:
        """The newest figures of each rank, in its newest attempt."""
        newest = {rank: attempt for attempt, rank in sorted(self._ranks)}
        return [
            RankFigures(
                rank=rank,
                node=found.node,
                attempt=attempt,
                step=found.step,
                samples_per_s=throughput(list(found.recent.values())),
                loss=found.loss,
                communication_share=communication_share(list(found.recent.values())),
                dropped=found.dropped,
                last_time=found.last_time,
            )
            for rank, attempt in sorted(newest.items())
            for found in (self._ranks[attempt, rank],)
        ]


def _value(point: Point, aggregate: Literal["mean", "sum"]) -> float | None:
    return point.total if point.total is None or aggregate == "sum" else point.total / point.ranks


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None when there are none, or when one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _series_name(kind: Kind, name: str) -> str:
    return f"evaluation_{name}" if kind == "evaluation" and name in _ALSO_OF_A_STEP else name
