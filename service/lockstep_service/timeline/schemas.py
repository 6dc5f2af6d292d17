"""What the API says of a job's timeline."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from lockstep_service.timeline.entry import Kind
from lockstep_service.wire import Time, Wire

_ENTRY: dict[str, Any] = {
    "id": 7, "time": "2026-11-23T06:00:05.000Z", "kind": "started", "attempt": None,
    "text": "Slurm started it on node1, node2.",
}  # fmt: skip


class TimelineEntry(Wire):
    """One thing that happened to a job. `text` is data: show it as text, never as HTML."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENTRY]})

    id: int = Field(description="Grows in the order in which the service learnt of things")
    time: Time = Field(description="When it happened, as far as that is known; else when the service learnt of it")
    kind: Kind = Field(description="What it is about")
    attempt: int | None = Field(description="Of which attempt it is told; null where of none")
    text: str = Field(description="One plain sentence")


class Timeline(Wire):
    """A page of a job's timeline, in the order in which the service learnt of things."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_ENTRY], "next_cursor": None}]})

    items: list[TimelineEntry]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last page")
