"""What the API says of clusters and their nodes."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from lockstep_service.jobs.schemas import ClientKind
from lockstep_service.wire import Time, Wire


class Cluster(Wire):
    """A scheduler that this service submits to, as of its last answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "default",
                    "client": "command",
                    "reachable": True,
                    "observed_at": "2026-11-23T06:00:00.123Z",
                    "nodes": 2,
                    "cpus": 2,
                    "partitions": ["main"],
                }
            ]
        }
    )

    name: str
    client: ClientKind
    reachable: bool = Field(description="Whether the last question was answered")
    observed_at: Time | None = Field(description="When it last answered")
    nodes: int
    cpus: int = Field(description="CPUs that jobs can have, over all nodes")
    partitions: list[str]


class ClusterList(Wire):
    """All clusters."""

    items: list[Cluster]


class Node(Wire):
    """One node, as Slurm tells it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "node1",
                    "state": "IDLE",
                    "flags": [],
                    "cpus": 1,
                    "memory_mib": 2000,
                    "partitions": ["main"],
                    "reason": None,
                }
            ]
        }
    )

    name: str
    state: str = Field(description="Slurm's base state, verbatim")
    flags: list[str]
    cpus: int = Field(description="CPUs that jobs can have")
    memory_mib: int
    partitions: list[str]
    reason: str | None = Field(description="Why it is down or drained, in the administrator's or Slurm's words")


class NodeList(Wire):
    """The nodes of one cluster, as of its last answer."""

    items: list[Node]
    observed_at: Time | None
    stale_since: Time | None = Field(description="Since when Slurm could not be asked; null while it can")
