"""Many jobs by one request: what is sent, and what is answered."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lockstep_service.jobs.schemas import EXAMPLE_ID, EXAMPLE_SPEC
from lockstep_service.wire import Wire
from lockstep_slurm.job.sweep import MOST_JOBS

_EXAMPLE: dict[str, Any] = {
    "spec": EXAMPLE_SPEC,
    "changes": [{"name": "digits-1", "training": {"seed": 1}}, {"name": "digits-2", "training": {"seed": 2}}],
}


class BatchRequest(BaseModel):
    """Jobs that have much, or nothing, in common."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    spec: dict[str, Any] = Field(
        default_factory=dict, description="What all of them have in common: a spec, or as much of one as there is"
    )
    changes: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=MOST_JOBS,
        description="A job each: what it has besides, or differently, as a merge patch of `spec` (RFC 7396), in which "
        "null removes a key",
    )


class BatchJob(Wire):
    """A job that was stored."""

    id: str = Field(description="UUIDv7; kept for life")
    name: str


class Batch(Wire):
    """The jobs of one request."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [{"id": EXAMPLE_ID, "name": "digits-1"}]}]})

    items: list[BatchJob] = Field(description="In the order of `changes`; their ids sort in that order, too")
