"""What the API says of a job's figures, and what it answers to a rank's records."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from lockstep_service.wire import Wire

_SERIES: dict[str, Any] = {
    "name": "loss", "attempt": 1, "aggregate": "mean", "kind": "step", "step": [1, 2],
    "time": [1764000000.1, 1764000000.4],
    "value": [2.31, 2.12], "min": [2.30, 2.10], "max": [2.32, 2.14], "ranks": 2,
}  # fmt: skip
_BY_RANK: dict[str, Any] = {
    "rank": 0, "node": "node1", "attempt": 1, "step": 660, "samples_per_s": 2500.1, "loss": 0.01,
    "communication_share": 0.1, "cpus": 1.9, "received_bytes_per_s": 110e6, "sent_bytes_per_s": 110e6, "dropped": 0,
    "last_time": 1764000030.2,
}  # fmt: skip


class Series(Wire):
    """One figure over the steps of one attempt; the lists are of equal length."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SERIES]})

    name: str = Field(
        description="`loss`, `samples_per_s`, `accuracy`, `evaluation_loss`, or whatever a script reports"
    )
    attempt: int
    aggregate: Literal["mean", "sum"] = Field(description="How the ranks' values became one: `samples_per_s` by sum")
    kind: Literal["step", "evaluation", "usage"] = Field(
        description="`usage`: of the CPUs (`cpus`, per rank) and of the network (`received_bytes_per_s`, "
        "`sent_bytes_per_s`, per node), as the kernel counts them"
    )
    step: list[int] = Field(description="For `usage`, the number of the sample")
    time: list[float] = Field(description="Seconds since the epoch, UTC: when the last rank reported the step")
    value: list[float | None] = Field(description="null where a rank reported NaN or an infinity")
    min: list[float | None] = Field(description="Smallest over the ranks")
    max: list[float | None] = Field(description="Largest over the ranks")
    ranks: int = Field(description="How many ranks a point stands for")


class RankFigures(Wire):
    """The newest figures of one rank, in its newest attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BY_RANK]})

    rank: int
    node: str | None
    attempt: int
    step: int | None
    samples_per_s: float | None = Field(description="Over its newest 20 steps")
    loss: float | None = Field(description="Of its newest step that told one")
    communication_share: float | None = Field(description="communication_s / seconds over its newest 20 steps")
    cpus: float | None = Field(description="CPUs in use over the newest few seconds")
    received_bytes_per_s: float | None = Field(
        description="Through its node's interface, whoever received them; told by one rank of each node"
    )
    sent_bytes_per_s: float | None
    dropped: int = Field(description="Reports that this rank had to drop, because it never waits")
    last_time: float | None = Field(description="Seconds since the epoch, UTC, of its newest record")


class Metrics(Wire):
    """All series of a job. `revision` grows whenever records came in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": "019aaf3e-8c1b-7d2f-9a51-6b0c2f8e4d10",
                    "revision": 17,
                    "series": [_SERIES],
                    "by_rank": [_BY_RANK],
                }
            ]
        }
    )

    job_id: str
    revision: int
    series: list[Series]
    by_rank: list[RankFigures]


class Acknowledgement(Wire):
    """Up to where records are stored, so that their writer need not send them again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"acknowledged": {"1/0": 660, "1/1": 660}}]})

    acknowledged: dict[str, int] = Field(
        description='Per "<attempt>/<rank>": the highest seq up to which none is missing'
    )
