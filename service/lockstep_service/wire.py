"""The base of everything that the API answers with, and the one form of its times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer


def rfc3339(moment: datetime) -> str:
    """``moment`` (aware) in UTC with milliseconds, such as ``2026-11-23T06:00:00.123Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


LATEST = 253402214400.0
"""The last day of the year 9999, in seconds since the epoch: no calendar of ours goes further."""


def moment(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as an aware moment in UTC; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A moment, in JSON an RFC 3339 text in UTC."""


class Wire(BaseModel):
    """An answer: every field is always there, an absent thing is null."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)
