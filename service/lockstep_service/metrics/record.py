"""``Record``: one line of a spool, read and checked (docs/records.md); ``Batch``: the lines of one request. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from msgspec import DecodeError, Meta, Struct
from msgspec import json as fast

from lockstep_service.placement import documents
from lockstep_service.wire import LATEST

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_INT32, _INT64 = 2**31, 2**63
MOST_COUNTED = _INT64 - 1
"""Of what is counted: the highest number that figures are stored with."""
LONGEST_LINE = 1 << 20
_LONGEST_TEXT = 300
"""Characters of a text that a rank wrote, where it is shown."""
KINDS = documents.KINDS | {
    "start", "step", "evaluation", "usage", "gap", "end", "isolation", "tuning",
    "checkpoint", "resume", "data", "staging",
}  # fmt: skip
"""The kinds of today; a reader keeps one that it does not know."""

Value = int | float | str | list[int | float | str]


class RecordError(ValueError):
    """A line that is no record; the message says why."""


class Record(Struct, frozen=True, gc=False):
    """A record; (attempt, rank, seq) is its identity. ``values`` are as they came."""

    attempt: Annotated[int, Meta(ge=1, lt=_INT32)]
    rank: Annotated[int, Meta(ge=0, lt=_INT32)]
    seq: Annotated[int, Meta(ge=1, le=_INT64 - 1)]
    time: Annotated[float, Meta(ge=0, lt=LATEST)]
    kind: Annotated[str, Meta(min_length=1, max_length=256)]
    step: Annotated[int, Meta(ge=-_INT64, le=_INT64 - 1)] | None
    values: dict[Annotated[str, Meta(min_length=1, max_length=256)], Value]


class _Line(Record, frozen=True, gc=False, kw_only=True):
    """A record with what stands before it on its line."""

    v: Literal[1]
    step: Annotated[int, Meta(ge=-_INT64, le=_INT64 - 1)] | None = None


_lines = fast.Decoder(_Line)


@dataclass(frozen=True)
class Batch:
    """Records, and the very lines that they stand on, one each, in the same order."""

    records: Sequence[Record]
    lines: bytes
    packed: bytes | None = None
    """The same lines as they came, by gzip."""

    @property
    def attempts(self) -> set[int]:
        """The attempts that they are of."""
        return {record.attempt for record in self.records}

    def only(self, wanted: Sequence[bool]) -> Batch:
        """Those of which ``wanted`` says so."""
        if all(wanted):
            return self
        pairs = zip(self.records, self.lines.split(b"\n")[:-1], wanted, strict=True)
        kept = [(record, line) for record, line, is_wanted in pairs if is_wanted]
        return Batch([record for record, _ in kept], b"".join(line + b"\n" for _, line in kept))


def batch_of(plain: bytes) -> Batch | None:
    """All lines of ``plain`` at once; None where one of them is no record, or is one that only ``parse`` can read."""
    if len(plain) > LONGEST_LINE and any(len(line) > LONGEST_LINE for line in plain.split(b"\n")):
        return None
    try:
        records = _lines.decode_lines(plain)
        kinds = {record.kind for record in records}
        for kind in kinds - KINDS:
            _kind(kind)
        if kinds & documents.KINDS:
            for record in records:
                if record.kind in documents.KINDS:
                    documents.check(record.kind, record.values, record.rank)
    except (DecodeError, ValueError):  # who sent it is told by ``parse``, line by line
        return None
    if plain.count(b"\n") != len(records) or not plain.endswith(b"\n"):
        plain = b"".join(line.strip() + b"\n" for line in plain.split(b"\n") if line.strip())
    return Batch(records, plain)


def whole(lines: bytes) -> Iterator[tuple[int, bytes]]:
    """(byte at which it begins, line) of every line that is not blank; a line ends with a newline and nothing else."""
    place = 0
    for line in lines.split(b"\n"):
        if line.strip():
            yield place, line
        place += len(line) + 1


def parse(line: bytes) -> Record:
    """The record in ``line``; ``RecordError`` if there is none."""
    if len(line) > LONGEST_LINE:
        raise RecordError(f"is {len(line)} bytes long; {LONGEST_LINE} is the most")
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise RecordError(f"is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise RecordError("is nested too deeply") from None
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RecordError("is not a JSON object")
    if found.get("v") != 1:
        raise RecordError(f"has v {found.get('v')!r}; this service reads 1")
    step = found.get("step")
    kind, values = _kind(found.get("kind")), _values(found.get("values"))
    rank = _integer(found, "rank", 0, _INT32)
    try:
        documents.check(kind, values, rank)
    except ValueError as error:
        raise RecordError(str(error)) from None
    return Record(
        attempt=_integer(found, "attempt", 1, _INT32),
        rank=rank,
        seq=_integer(found, "seq", 1, _INT64),
        time=_time(found.get("time")),
        kind=kind,
        step=None if step is None else _integer(found, "step", -_INT64, _INT64),
        values=values,
    )


def number(value: object) -> float | None:
    """A value as a number that can be drawn; None for NaN, the infinities, and what is no number at all."""
    if type(value) is float:  # as nearly all are: a look at a thousand ranks asks this a hundred thousand times
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def count(value: object) -> int:
    """A value as a number of things, the fraction left out; 0 where it is none, ``MOST_COUNTED`` at most."""
    found = number(value)
    return 0 if found is None or found < 0 else min(int(found), MOST_COUNTED)


def attempt(value: object) -> int | None:
    """A value as an attempt's number; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < _INT32 else None


def text(value: object) -> str | None:
    """A text that every answer can hold, on one line and not too long; None where it is none."""
    if not isinstance(value, str):
        return None
    return "".join(character for character in value[:_LONGEST_TEXT] if character.isprintable()).strip() or None


NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})


def _no_constant(text: str) -> NoReturn:
    raise RecordError(f'has {text}, which is not JSON; write "{text}" as text')


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise RecordError(f'has {text:.60}, which is beyond what a number can be; write "Infinity" or "-Infinity"')
    return found


def _integer(found: Mapping[str, Any], key: str, least: int, limit: int) -> int:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < limit:
        raise RecordError(f"has {key} {value!r:.60}, which has to be a whole number from {least} on")
    return value


def _time(value: object) -> float:
    if (seconds := number(value)) is None or not 0 <= seconds < LATEST:
        raise RecordError(f"has time {value!r:.60}, which has to be seconds since the epoch")
    return seconds


def _kind(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 256 or _UNSTORABLE.search(value):
        raise RecordError(f"has kind {value!r:.60}, which has to be a short text")
    return value


def _values(value: object) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise RecordError("has no object `values`")
    for name, given in value.items():
        if not 1 <= len(name) <= 256 or _HALF.search(name):
            raise RecordError(f"has {name!a:.60} among the names of values; a name is a text of 1 to 256 characters")
        parts = given if isinstance(given, list) else [given]
        if not all(isinstance(part, int | float | str) and not isinstance(part, bool) for part in parts):
            shown = repr(name)[1:-1]
            raise RecordError(f"has values.{shown:.60}, which has to be a number, a text, or a list of these")
    return value
