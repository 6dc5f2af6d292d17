"""``Record``: one line of a spool, read and checked (docs/records.md). Pure."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from lockstep_service.wire import LATEST

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_INT32, _INT64 = 2**31, 2**63
LONGEST_LINE = 1 << 20


class RecordError(ValueError):
    """A line that is no record; the message says why."""


@dataclass(frozen=True)
class Record:
    """A record; (attempt, rank, seq) is its identity. ``values`` is JSON, as it came."""

    attempt: int
    rank: int
    seq: int
    time: float
    kind: str
    step: int | None
    values: str


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
    return Record(
        attempt=_integer(found, "attempt", 1, _INT32),
        rank=_integer(found, "rank", 0, _INT32),
        seq=_integer(found, "seq", 1, _INT64),
        time=_time(found.get("time")),
        kind=_kind(found.get("kind")),
        step=None if step is None else _integer(found, "step", -_INT64, _INT64),
        values=_values(found.get("values")),
    )


def number(value: object) -> float | None:
    """A value as a number that can be drawn; None for NaN, the infinities, and what is no number at all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})


def _no_constant(text: str) -> NoReturn:
    raise RecordError(f'has {text}, which is not JSON; write "{text}" as text')


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise RecordError(f'has {text:.60}, which is beyond what a number can be; write "Infinity" or "-Infinity"')
    return found


def _integer(found: dict[str, Any], key: str, least: int, limit: int) -> int:
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


def _values(value: object) -> str:
    if not isinstance(value, dict):
        raise RecordError("has no object `values`")
    for name, given in value.items():
        parts = given if isinstance(given, list) else [given]
        if not all(isinstance(part, int | float | str) and not isinstance(part, bool) for part in parts):
            shown = repr(name)[1:-1]
            raise RecordError(f"has values.{shown:.60}, which has to be a number, a text, or a list of these")
    # Escaped to ASCII: PostgreSQL takes neither a NUL nor half a surrogate pair in a text.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
