"""The tuning as a document: plain values for a checkpoint, and the plan that is made of them again.

It holds the whole plan, the packing and the order too, since both are made from measured times: a run that takes it
back sends the same pieces in the same order, and measures nothing.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.pieces import HEADER, Size, lay_out
from lockstep_worker.gradients.plan import Plan

VERSION = 1
LONGEST = 24 << 10
"""Characters of a document within a record, which may have 32 KiB."""
Described = Sequence[Sequence[Any]]
"""The parameters, in order: name, shape, strides and dtype of each."""


def document_of(
    plan: Plan,
    described: Described,
    *,
    transport: str,
    ranks: int,
    cycle_time_ms: float | None,
    slice_us: float | None,
    why: str,
) -> dict[str, Any]:
    """In plain values; ``plan_of`` takes it back."""
    return {
        "version": VERSION,
        "plan": plan.as_json(),
        "parameters": [_mark(one) for one in described],
        "transport": transport,
        "ranks": ranks,
        "cycle_time_ms": cycle_time_ms,
        "slice_us": slice_us,
        "why": why,
    }


def plan_of(document: Mapping[str, Any] | str, described: Described, sizes: Sequence[Size]) -> Plan:
    """The plan in a document, for these parameters. Raises ``GradientError`` where it is not theirs, or not a plan."""
    try:
        found: Any = json.loads(document) if isinstance(document, str) else document
        if found["version"] != VERSION:
            raise GradientError(f"tuning has version {found['version']!r}; this Lockstep knows {VERSION}")
        marks = list(found["parameters"])
        told = {**found["plan"], "sequence": list(found["plan"]["sequence"]), "order": list(found["plan"]["order"])}
    except (TypeError, KeyError, ValueError) as error:
        raise GradientError(f"tuning is not what optimizer.tuning told: {error!r}; leave it out to measure") from error
    if len(marks) != len(described):
        raise GradientError(
            f"tuning is of a model with {len(marks)} parameters, the optimizer has {len(described)}; leave it out to "
            "measure"
        )
    for place, (mark, one) in enumerate(zip(marks, described)):  # noqa: B905 - Python 3.9
        if mark != _mark(one):
            raise GradientError(
                f"tuning is of another model: its parameter {place} is not {one} (name, shape, strides, dtype); leave "
                "it out to measure"
            )
    return _checked(told, sizes)


def of_another_run(document: Mapping[str, Any] | str, *, transport: str, ranks: int) -> str | None:
    """Why a document that ``plan_of`` has taken says nothing of this run: its times were other ones; None: it does.

    One that does not say what it was measured on is taken.
    """
    found: Any = json.loads(document) if isinstance(document, str) else document
    count, carrier = found.get("ranks", ranks), found.get("transport", transport)
    if (count, carrier) == (ranks, transport):
        return None
    return f"{count} ranks over {carrier}, and these are {ranks} over {transport}"


def _checked(told: dict[str, Any], sizes: Sequence[Size]) -> Plan:
    """A plan from somewhere: whatever could not be exchanged is told here, and not by a hang."""
    names = {one.name for one in fields(Plan)}
    whole = [told.get(name) for name in ("number", "piece_bytes", "credit")]
    whole += [*told["sequence"], *told["order"]]
    if set(told) != names or not all(type(one) is int for one in whole):
        raise GradientError(f"tuning's plan has to have {', '.join(sorted(names))}, numbers and lists of numbers")
    sequence = told["sequence"]
    if not sequence or len(set(sequence)) != len(sequence) or not all(0 <= one < len(sizes) for one in sequence):
        raise GradientError(f"tuning's sequence has to name some of {len(sizes)} parameters, each once: {sequence}")
    if told["piece_bytes"] < 2 * HEADER or told["credit"] < 1:
        raise GradientError(
            f"tuning's piece_bytes ({told['piece_bytes']}) has to be at least {2 * HEADER}, its credit "
            f"({told['credit']}) at least 1"
        )
    pieces = len(lay_out(sizes, sequence, told["piece_bytes"]).pieces)
    if sorted(told["order"]) != list(range(pieces)):
        raise GradientError(f"tuning's order has to name each of its {pieces} pieces once: {told['order']}")
    return Plan.from_json({**told, "measured": True})


def record_of(document: Mapping[str, Any]) -> dict[str, float | int | str]:
    """The values of a ``tuning`` record, docs/records.md."""
    plan, known = document["plan"], {name: document[name] for name in ("cycle_time_ms", "slice_us")}
    text = json.dumps(document, separators=(",", ":"))
    return {
        "piece_bytes": plan["piece_bytes"],
        "credit": plan["credit"],
        "pieces": len(plan["order"]),
        "transport": document["transport"],
        "why": document["why"],
        **{name: value for name, value in known.items() if value is not None},
        **({"document": text} if len(text) <= LONGEST else {}),
    }


def _mark(described: Sequence[Any]) -> int:
    """Tells one parameter from another, in few characters."""
    return zlib.crc32(json.dumps(described).encode()) & 0xFFFF
