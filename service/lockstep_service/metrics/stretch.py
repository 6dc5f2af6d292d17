"""``Stretch``: step records of one rank that follow each other, taken in as columns. Values in, values out.

Where a node has one rank nearly all of its records are such, and one by one they would cost several times as much.
Those of several ranks of a node alternate, and go one by one, as what is odd in any way does: the same is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lockstep_service.metrics.record import Record, Value

LEAST = 8
"""Records; fewer are taken one by one."""


class Stretch:
    """Records of one attempt and rank, of kind ``step``: seq grows by one, the step grows, the figures' names stay."""

    __slots__ = ("names", "records", "steps", "times")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.names = tuple(records[0].values)
        """In the order in which the first record has them."""
        self.steps: list[int] = [record.step for record in records if record.step is not None]
        self.times = [record.time for record in records]

    @property
    def first(self) -> Record:
        """Its first record."""
        return self.records[0]

    @property
    def last(self) -> Record:
        """Its last record."""
        return self.records[-1]

    def column(self, name: str) -> list[Value]:
        """One figure's values."""
        return [record.values[name] for record in self.records]

    def floats(self, name: str) -> list[float] | None:
        """The same, where each is a float, as JSON has them: finite. None where one is not."""
        found = self.column(name)
        return found if set(map(type, found)) == {float} else None  # type: ignore[return-value]


def parts(records: Sequence[Record]) -> Iterator[Stretch | Sequence[Record]]:
    """All of ``records`` in their order: stretches, and what is to be taken one by one."""
    begun, at = 0, 0
    while at < len(records):
        end = _end(records, at)
        if end - at >= LEAST:
            if begun < at:
                yield records[begun:at]
            yield Stretch(records[at:end])
            begun = end
        at = end
    if begun < len(records):
        yield records[begun:]


def _end(records: Sequence[Record], begin: int) -> int:
    """Where the stretch that begins at ``begin`` ends; it has that one record at least."""
    first = records[begin]
    attempt, rank, seq, step, names = first.attempt, first.rank, first.seq, first.step, first.values.keys()
    at = begin + 1
    if first.kind != "step" or step is None:
        return at
    while at < len(records):  # not by ``islice``, which goes through all that is before
        record = records[at]
        seq += 1
        following = record.step
        if (
            record.seq != seq
            or following is None
            or following <= step
            or record.kind != "step"
            or record.rank != rank
            or record.attempt != attempt
            or record.values.keys() != names
        ):
            break
        step = following
        at += 1
    return at
