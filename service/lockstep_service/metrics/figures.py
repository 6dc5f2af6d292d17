"""``Figures``: the records of one job, put together as they come in. Values in, values out.

Their size depends on how many figures and ranks a job has, and not on how many records: so does the cost of a look.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, msgpack

from lockstep_service.metrics import drawn, sources
from lockstep_service.metrics.curve import NAN, Curve
from lockstep_service.metrics.drawn import Kind, kind_of
from lockstep_service.metrics.last import last
from lockstep_service.metrics.pace import exposed_share, throughput
from lockstep_service.metrics.rank import DRAWN_OF_USAGE, OF_ATTEMPT, Attempt, Rank
from lockstep_service.metrics.record import NOT_FINITE, Record, number
from lockstep_service.metrics.schemas import AttemptBegun, RankFigures, Series, StepTime, TrainingData
from lockstep_service.metrics.spent import Spent, spent
from lockstep_service.metrics.step_time import step_time
from lockstep_service.metrics.stretch import Stretch, parts

ROOM, LEAST_ROOM = 4096, 512
"""Points of one curve; a job with many has less for each."""
ROOM_IN_ALL = 500_000
MOST_CURVES, MOST_CURVES_IN_ALL = 2000, 20_000
"""Of one attempt, and of a job: further ones are stored and not drawn."""
MOST_RANKS = 100_000
"""Of all attempts of a job together: records of further ones are not stored."""
_LONG = 2 * ROOM
"""Points of a curve that is narrowed before a record that goes back is put between them, which moves all behind it."""
_LONGEST_NAME = 256
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which JSON can say and no answer can."""
_STORE_AFTER = 20_000
"""Records and values; and one for so many numbers that are held, so that storing costs less than taking in."""
_NUMBERS_A_RECORD = 4


class _Stored(Struct, array_like=True):
    """What is no curve, as it is stored."""

    ranks: list[Rank]
    attempts: list[Attempt]


class Figures:
    """Takes records in any order, each once; ``revision`` is the job's revision up to which it has them."""

    def __init__(self) -> None:
        self.revision = 0
        self.curves: list[Curve] = []
        """In the order in which they came up, which is the number that each is stored under."""
        self.ranks: dict[tuple[int, int], Rank] = {}
        self.attempts: dict[int, Attempt] = {}
        self.last_told = 0.0
        """When ``last`` was made, by a clock of the caller's."""
        self._named: dict[tuple[int, Kind], dict[str, Curve | None]] = {}
        self._counts: dict[int, int] = {}
        """By attempt, how many names there are of what is drawn."""
        self._since = 0

    def take(self, records: Sequence[Record]) -> list[bool]:
        """Takes those records that are new; says of each whether it was."""
        touched: set[Curve] = set()
        taken: list[bool] = []
        for part in parts(records):
            if not isinstance(part, Stretch):
                taken += [self._take(record, touched) for record in part]
            elif (rank := self._rank(part.first)) is not None and rank.continues(part):
                self._take_stretch(rank, part, touched)
                taken += [True] * len(part.records)
            else:
                taken += [self._take(record, touched) for record in part.records]
        room = max(LEAST_ROOM, min(ROOM, ROOM_IN_ALL // max(len(self.curves), 1)))
        for curve in touched:
            if len(curve) > room:
                curve.narrow(room // 2)
        return taken

    def _take(self, record: Record, touched: set[Curve]) -> bool:
        rank = self._rank(record)
        if rank is None:
            return False
        late = record.seq < rank.newest_seq
        if not rank.see(record.seq):
            return False
        if not late:
            rank.newest_seq = record.seq
        self._since += 1
        rank.take(record)
        kind = record.kind
        if kind in OF_ATTEMPT:
            self._attempt(record.attempt).take(record)
        if kind == "step":
            self._draw(record, "step", record.values, touched, late=late)
        elif kind == "evaluation":
            self._draw(record, "evaluation", record.values, touched, late=late)
        elif kind == "usage":
            drawn = {name: record.values[name] for name in DRAWN_OF_USAGE if name in record.values}
            self._draw(record, "usage", drawn, touched, late=late)
        return True

    def _take_stretch(self, rank: Rank, stretch: Stretch, touched: set[Curve]) -> None:
        """What ``_take`` makes of each of its records."""
        rank.take_steps(stretch)
        self._since += len(stretch.records)
        attempt, of = stretch.first.attempt, stretch.first.rank
        for name in stretch.names:
            values = stretch.floats(name)
            if values is not None:
                curve = self._curve(attempt, "step", name)
                if curve is None:
                    continue
                goes_back = bool(curve.steps) and stretch.steps[0] < curve.steps[-1]
                if not goes_back or len(curve.steps) + len(values) <= _LONG:
                    self._since += len(values)
                    touched.add(curve)
                    curve.extend(stretch.steps, of, values, stretch.times)
                    continue
            for record in stretch.records:
                self._draw(record, "step", {name: record.values[name]}, touched, late=False)

    def _rank(self, record: Record) -> Rank | None:
        """The record's rank in its attempt; None where that would be one too many."""
        place = record.attempt, record.rank
        found = self.ranks.get(place)
        if found is None and not self.full:
            found = self.ranks[place] = Rank(*place)
        return found

    def _attempt(self, of: int) -> Attempt:
        found = self.attempts.get(of)
        if found is None:
            found = self.attempts[of] = Attempt(of)
        return found

    def _draw(
        self, record: Record, kind: Kind, values: Mapping[str, object], touched: set[Curve], *, late: bool
    ) -> None:
        # A report without a step is placed by its own number, which grows as well.
        step = record.step if record.step is not None else record.seq
        for name, value in values.items():
            if isinstance(value, float):
                height = value
            elif isinstance(value, str) and value in NOT_FINITE:
                height = NAN
            elif (found := number(value)) is not None:
                height = found
            else:
                continue
            curve = self._curve(record.attempt, kind, name)
            if curve is None:
                continue
            self._since += 1
            touched.add(curve)
            if len(curve.steps) > _LONG and step < curve.steps[-1]:
                curve.narrow(ROOM // 2)
            curve.put(step, record.rank, height, record.time, late=late)
            if record.step is None:
                curve.by_step = False

    def _curve(self, attempt: int, kind: Kind, name: str) -> Curve | None:
        """The curve of this name; None where it is not drawn."""
        curves = self._named.get((attempt, kind))
        if curves is None:
            curves = self._named[attempt, kind] = {}
        found = curves.get(name)
        return self._begin(attempt, kind, name) if found is None and name not in curves else found

    def _begin(self, attempt: int, kind: Kind, name: str) -> Curve | None:
        """A new curve; None where it is not to be drawn, which is noted."""
        named = self._named[attempt, kind]
        count = self._counts.get(attempt, 0)
        if count >= MOST_CURVES or len(self.curves) >= MOST_CURVES_IN_ALL:
            return None
        self._counts[attempt] = count + 1
        if len(name) > _LONGEST_NAME or _HALF.search(name):
            named[name] = None
            return None
        curve = named[name] = Curve(attempt, kind, name)
        self.curves.append(curve)
        return curve

    @property
    def full(self) -> bool:
        """Whether records of no further rank are stored."""
        return len(self.ranks) >= MOST_RANKS

    def reached(self, records: Iterable[Record]) -> dict[tuple[int, int], int]:
        """Per (attempt, rank) of ``records``: the highest seq up to which none is missing; 0 of one too many."""
        places = sorted({(record.attempt, record.rank) for record in records})
        return {place: rank.contiguous if (rank := self.ranks.get(place)) else 0 for place in places}

    def last(self, attempt: int) -> dict[str, Any]:
        """The newest figures of the attempt as a whole (``JobRow.last``)."""
        return last(
            self.attempts.get(attempt) or Attempt(attempt),
            [rank for (of, _), rank in sorted(self.ranks.items()) if of == attempt],
        )

    def series(self, points: int, over: frozenset[int] = frozenset()) -> list[Series]:
        """Every attempt's every series, thinned to at most ``points``; ``over``: attempts that nothing is added to."""
        return drawn.apart(self.curves, points, over)

    def joined(self, points: int, over: frozenset[int], attempts: Iterable[int]) -> list[Series]:
        """Every figure's line over these attempts, thinned to at most ``points``."""
        return drawn.joined(self.curves, points, over, self.begun(attempts))

    def begun(self, attempts: Iterable[int]) -> list[AttemptBegun]:
        """Where each of these attempts that trained at all began."""
        return drawn.begun(self.curves, self.attempts, attempts)

    def told(self) -> set[int]:
        """The attempts that records speak of."""
        return {attempt for attempt, _ in self.ranks}

    def data(self, attempts: Iterable[int]) -> TrainingData | None:
        """What is trained on, by the newest of these attempts that said anything of it."""
        for number_ in sorted(attempts, reverse=True):
            attempt = self.attempts.get(number_)
            if attempt is not None and (attempt.source is not None or attempt.staging):
                return sources.in_words(number_, attempt.source, attempt.staging)
        return None

    def by_rank(self) -> list[RankFigures]:
        """The newest figures of each rank, in its newest attempt."""
        newest = {
            rank: attempt for attempt, rank in sorted(self.ranks) if self.ranks[attempt, rank].last_time is not None
        }
        return [
            RankFigures(
                rank=rank,
                node=found.node,
                attempt=attempt,
                step=found.step,
                samples_per_s=throughput(paces),
                loss=found.loss,
                exposed_share=exposed_share(paces),
                cpus=found.usage.get("cpus"),
                received_bytes_per_s=found.usage.get("received_bytes_per_s"),
                sent_bytes_per_s=found.usage.get("sent_bytes_per_s"),
                dropped=found.dropped,
                last_time=found.last_time,
            )
            for rank, attempt in sorted(newest.items())
            for found in (self.ranks[attempt, rank],)
            for paces in ([told.pace for told in found.newest()],)
        ]

    def step_time(self) -> StepTime | None:
        """Where a step's time goes, in the newest attempt of which that is known."""
        by_attempt: dict[int, list[Spent]] = {}
        for (attempt, _), rank in sorted(self.ranks.items()):
            of = by_attempt.setdefault(attempt, [])
            if (found := spent(rank)) is not None:
                of.append(found)
        for attempt, found_of in sorted(by_attempt.items(), reverse=True):
            if found_of:
                ranks = sum(of == attempt for of, _ in self.ranks)
                return step_time(self.attempts.get(attempt) or Attempt(attempt), found_of, ranks)
        return None

    @property
    def weight(self) -> int:
        """About how many numbers are held in memory."""
        numbers = sum(7 * len(curve) + 2 * len(curve.sums) for curve in self.curves)
        return numbers + 200 * len(self.ranks)

    @property
    def to_store(self) -> bool:
        """Whether so much came since it was stored that reading all of it again would take long."""
        return self._since >= max(_STORE_AFTER, self.weight // _NUMBERS_A_RECORD)

    @property
    def unstored(self) -> bool:
        """Whether anything came since it was stored."""
        return self._since > 0

    def stored(self) -> tuple[bytes, dict[int, bytes]]:
        """All of it as it is to be stored, and by their numbers the curves that changed since; counts as stored."""
        whole = _packed(
            msgpack.encode(_Stored([rank.brief() for rank in self.ranks.values()], list(self.attempts.values())))
        )
        curves = {}
        for number_, curve in enumerate(self.curves):
            if curve.changed:
                curves[number_] = _packed(curve.kept())
                curve.changed = False
        self._since = 0
        return whole, curves

    @classmethod
    def of(cls, revision: int, whole: bytes, curves: Sequence[bytes]) -> Figures:
        """From what ``stored`` gave; the curves in the order of their numbers."""
        figures = cls()
        figures.revision = revision
        found = msgpack.decode(zlib.decompress(whole), type=_Stored)
        figures.ranks = {(rank.attempt, rank.rank): rank for rank in found.ranks}
        figures.attempts = {attempt.number: attempt for attempt in found.attempts}
        for body in curves:
            curve = Curve.of(zlib.decompress(body))
            figures.curves.append(curve)
            figures._named.setdefault((curve.attempt, kind_of(curve)), {})[curve.name] = curve
            figures._counts[curve.attempt] = figures._counts.get(curve.attempt, 0) + 1
        return figures


def _packed(body: bytes) -> bytes:
    return zlib.compress(body, 1)
