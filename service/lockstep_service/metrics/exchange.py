"""What is known of how gradients are exchanged: the records ``isolation`` and ``tuning``, and their words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from lockstep_service.metrics.record import number, text
from lockstep_service.metrics.words import bytes_in_words, figure, rate_in_words, seconds_in_words


class Isolation(Struct, array_like=True, frozen=True):
    """Communication alone, as rank 0 measured it at the start: without any computing beside it."""

    piece_bytes: float | None = None
    """The largest of the pieces that were sent."""
    bytes_per_s: float | None = None
    latency_s: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Isolation:
        """From the record's values; what is no number is not known."""
        told = values.get("piece_bytes")
        sizes = [size for one in (told if isinstance(told, list) else [told]) if (size := number(one)) is not None]
        return cls(max(sizes, default=None), _positive(values, "bytes_per_s"), _positive(values, "latency_s"))


class Tuning(Struct, array_like=True, frozen=True):
    """The plan by which the ranks exchange gradients, as rank 0 told it last."""

    piece_bytes: float | None = None
    credit: float | None = None
    """How many pieces may be under way at once."""
    cycle_time_ms: float | None = None
    pieces: float | None = None
    """Of a step."""
    transport: str | None = None
    why: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Tuning:
        """From the record's values; what is not of its type is not known."""
        piece, credit, cycle, pieces = (
            _positive(values, name) for name in ("piece_bytes", "credit", "cycle_time_ms", "pieces")
        )
        return cls(piece, credit, cycle, pieces, text(values.get("transport")), text(values.get("why")))


def in_words(isolation: Isolation | None, tuning: Tuning | None) -> str | None:
    """Such as "Communication alone: 118 MB/s. Pieces of 1 MiB, 2 under way."; None where nothing is known."""
    sentences = []
    if isolation is not None and isolation.bytes_per_s is not None:
        latency = (
            "" if isolation.latency_s is None else f", {seconds_in_words(isolation.latency_s)} for the smallest piece"
        )
        sentences.append(f"Communication alone: {rate_in_words(isolation.bytes_per_s)}{latency}.")
    if tuning is not None:
        many = "pieces" if tuning.pieces is None else f"{figure(tuning.pieces)} pieces a step"
        parts = [many if tuning.piece_bytes is None else f"{many} of at most {bytes_in_words(tuning.piece_bytes)}"]
        if tuning.credit is not None:
            parts.append(f"{figure(tuning.credit)} under way at once")
        if tuning.cycle_time_ms is not None:
            parts.append(f"a cycle of {figure(tuning.cycle_time_ms)} ms")
        if tuning.transport is not None:
            parts.append(f"over {tuning.transport}")
        why = "" if tuning.why is None else f" ({tuning.why.rstrip('.')})"
        if why or parts != ["pieces"]:
            sentences.append(f"Gradients go in {', '.join(parts)}{why}.")
    return " ".join(sentences) or None


def _positive(values: Mapping[str, Any], name: str) -> float | None:
    found = number(values.get(name))
    return found if found is not None and found > 0 else None
