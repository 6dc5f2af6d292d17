"""What an attempt tells of its checkpoints: the records ``checkpoint`` and ``resume``, summed up. Pure."""

from __future__ import annotations

from msgspec import Struct

from lockstep_service.metrics.record import Record, attempt, number, text


class Saved(Struct, array_like=True):
    """The checkpoints of one attempt, however many: the first, the newest, and how many could not be saved."""

    count: int = 0
    first: int | None = None
    """The lowest step behind which one was saved."""
    newest: int | None = None
    """The highest, of which the rest of these are."""
    time: float = 0.0
    file: str | None = None
    bytes: float | None = None
    seconds: float | None = None
    """Of writing it."""
    held_s: float | None = None
    """How long the training was held up for it, in seconds."""
    failed: int = 0
    failed_step: int | None = None
    """Of the newest that could not be saved."""
    failed_time: float = 0.0
    why: str | None = None

    def take(self, record: Record) -> None:
        """Notes a record of the kind ``checkpoint``; they may come in any order."""
        values = record.values
        if "error" in values:
            self.failed += 1
            if record.time >= self.failed_time:
                self.failed_time, self.failed_step, self.why = record.time, record.step, text(values["error"])
            return
        self.count += 1
        step = record.step
        if step is not None and (self.first is None or step < self.first):
            self.first = step
        if self.newest is None or (step is not None and step >= self.newest):
            self.newest, self.time, self.file = step, record.time, text(values.get("path"))
            self.bytes, self.seconds = _amount(values.get("bytes")), _amount(values.get("seconds"))
            self.held_s = _amount(values.get("held_s"))


class Resumed(Struct, array_like=True, frozen=True):
    """The checkpoint with which an attempt went on."""

    step: int
    time: float
    saved_by: int | None = None
    """The attempt that saved it."""
    job: str | None = None
    """Where that is another job's, its id."""

    @classmethod
    def of(cls, record: Record) -> Resumed | None:
        """From a record of the kind ``resume``; None where it does not say from which step."""
        if record.step is None:
            return None
        values = record.values
        return cls(record.step, record.time, attempt(values.get("saved_by")), text(values.get("job")))


def _amount(value: object) -> float | None:
    found = number(value)
    return found if found is not None and found >= 0 else None
