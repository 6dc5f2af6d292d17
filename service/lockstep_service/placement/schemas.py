"""What is said of a placement: the documents that ranks report, and the answer that is made of them.

The documents are ``lockstep_slurm.placement``'s; a key that a newer worker adds is left out of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from lockstep_service.wire import Wire

Result = Literal["as planned", "degraded", "deviates"]
_WORST_FIRST: tuple[Result, ...] = ("deviates", "degraded", "as planned")
Cpus = Annotated[list[int], Field(description="Linux CPU numbers")]

_VERDICT: dict[str, Any] = {
    "rank": 0, "local_rank": 0, "node": "node1", "when": "init", "result": "deviates",
    "threads": [
        {"tid": 4711, "role": "main", "name": "python3", "planned": [0, 1, 2], "observed": [0, 1, 2], "last": 1,
         "deviation": ""},
        {"tid": 4719, "role": "horovod", "name": "python3", "planned": [3], "observed": [0, 1, 2], "last": 2,
         "deviation": "Horovod's thread may run on CPUs 0-2, planned was CPU 3"},
    ],
    "left_out": 0, "deviations": ["Horovod's thread may run on CPUs 0-2, planned was CPU 3"], "degradations": [],
}  # fmt: skip
NODE_EXAMPLE: dict[str, Any] = {
    "node": "node1",
    "result": "deviates",
    "topology": {
        "cores": [{"cpus": [cpu], "socket": 0, "numa": 0, "l3": 0} for cpu in range(4)],
        "numa": [{"number": 0, "memory": 16_000_000_000, "distances": [10]}],
        "cards": [{"name": "eth0", "numa": None}], "offline": [], "name": "",
    },
    "placement": {
        "ranks": [
            {"local_rank": 0, "compute": [0, 1, 2],
             "communication": {"horovod": [3], "gloo": [3], "exchange": [], "ccl": []},
             "loader": [], "numa": [0], "memory": {"policy": "local", "domains": []}, "degraded": []},
        ],
        "spare": [], "warnings": [], "policy": "last",
    },
    "grant": [],
    "ranks": [{"rank": 0, "local_rank": 0, "granted": [0, 1, 2, 3], "verdict": _VERDICT}],
}  # fmt: skip
EXAMPLE: dict[str, Any] = {"attempt": 1, "result": "deviates", "nodes": [NODE_EXAMPLE]}


def worst(results: Iterable[str]) -> Result | None:
    """The worst of these; None of none."""
    found = set(results)
    return next((result for result in _WORST_FIRST if result in found), None)


class Core(Wire):
    """One physical core."""

    cpus: Cpus
    socket: int
    numa: int
    l3: int = Field(description="Number of the group of cores that share a last-level cache")


class NumaDomain(Wire):
    """One NUMA domain."""

    number: int
    memory: int = Field(description="Bytes")
    distances: list[int]


class Card(Wire):
    """One network interface or adapter."""

    name: str
    numa: int | None


class Topology(Wire):
    """One machine; its cores in the order socket, NUMA domain, L3 group, core."""

    cores: list[Core]
    numa: list[NumaDomain]
    cards: list[Card]
    offline: Cpus
    name: str


class CommunicationCpus(Wire):
    """The CPUs of a rank's communication threads, one per thread; empty: on the compute CPUs."""

    horovod: Cpus
    gloo: Cpus
    exchange: Cpus
    ccl: Cpus


class MemoryPolicy(Wire):
    """Where a rank's pages come from."""

    policy: str = Field(description="`bind`, `preferred` or `local`")
    domains: list[int] = Field(description="NUMA domains")


class RankPlan(Wire):
    """One rank's part of its node."""

    local_rank: int
    compute: Cpus
    communication: CommunicationCpus
    loader: Cpus
    numa: list[int] = Field(description="NUMA domains of its compute CPUs")
    memory: MemoryPolicy
    degraded: list[str] = Field(description="What is not as was asked for, a plain sentence each")


class Plan(Wire):
    """One node's plan."""

    ranks: list[RankPlan]
    spare: Cpus
    warnings: list[str]
    policy: str


class ThreadVerdict(Wire):
    """One thread: where it was planned, and where the kernel lets it run."""

    tid: int
    role: str = Field(
        description="By its birth: `main`, `compute`, `horovod`, `gloo`, `exchange`, `ccl`, `loader`, `imported` or "
        "`unclassified`"
    )
    name: str
    planned: Cpus
    observed: Cpus
    last: int = Field(description="The CPU on which it last ran")
    deviation: str = Field(description="A plain sentence; empty: as planned")


class Verdict(Wire):
    """One rank's threads against its plan, at one moment."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERDICT]})

    rank: int
    local_rank: int
    node: str
    when: str = Field(description="`init`: once the communication library had started; `steps`: after the first steps")
    result: Result
    threads: list[ThreadVerdict]
    left_out: int = Field(0, description="Threads that are as planned, and of which there were too many for a record")
    deviations: list[str] = Field(description="All sentences, those about the rank as a whole first")
    degradations: list[str] = Field(description="The plan's own")


class RankOnNode(Wire):
    """One rank of a node, as it told of itself."""

    rank: int
    local_rank: int
    granted: Cpus = Field(description="The CPUs that it was started with")


class NodeBrief(Wire):
    """What a node's first rank reports, without the machine and the plan."""

    ranks: list[RankOnNode]
    grant: list[str]


class NodeDocument(NodeBrief):
    """What a node's first rank reports: the document of a `placement` record (docs/records.md)."""

    topology: Topology
    placement: Plan


class RankPlacement(RankOnNode):
    """One rank of a node with its newest verdict."""

    verdict: Verdict | None = Field(description="The newest; null until the rank has said something")


class NodePlacement(Wire):
    """One node of an attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [NODE_EXAMPLE]})

    node: str
    result: Result | None = Field(description="The worst of its ranks' results; null until each has said something")
    topology: Topology | None = Field(description="null until the node has told")
    placement: Plan | None = Field(description="null until the node has told")
    grant: list[str] = Field(description="What was wrong with what Slurm gave, a plain sentence each")
    ranks: list[RankPlacement]


class JobPlacement(Wire):
    """Where the ranks of one attempt were to sit, and what the kernel said of each of their threads."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    attempt: int | None = Field(description="null when no attempt has told anything")
    result: Result | None = Field(
        description="The worst of all ranks' results; null until every rank has said something"
    )
    nodes: list[NodePlacement]
