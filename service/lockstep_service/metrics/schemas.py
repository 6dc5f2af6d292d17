"""What the API says of a job's figures, and what it answers to a rank's records."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from lockstep_service.wire import Wire

_SERIES: dict[str, Any] = {
    "name": "loss", "attempt": 1, "aggregate": "mean", "kind": "step", "step": [1, 2],
    "time": [1764000000.1, 1764000000.4],
    "value": [2.31, 2.12], "min": [2.30, 2.10], "max": [2.32, 2.14], "mean": None, "weight": None, "ranks": 2,
    "parts": [{"attempt": 1, "first": 0, "ranks": 2}],
}  # fmt: skip
_BEGUN: dict[str, Any] = {"attempt": 2, "step": 601, "resumed_from": 600, "done_again": 12}
_DATA: dict[str, Any] = {
    "attempt": 2,
    "sentence": "Trains on 1,281,167 samples of images in /data/imagenet and is evaluated on 50,000, of 1,000 classes.",
    "staging": "1 of 2 nodes has copied the data to /tmp: 150 GiB of 276 GiB after 840 s.",
    "nodes_staging": 1, "copied_bytes": 161e9, "total_bytes": 296e9,
}  # fmt: skip
_BY_RANK: dict[str, Any] = {
    "rank": 0, "node": "node1", "attempt": 1, "step": 660, "samples_per_s": 2500.1, "loss": 0.01,
    "exposed_share": 0.1, "cpus": 1.9, "received_bytes_per_s": 110e6, "sent_bytes_per_s": 110e6, "dropped": 0,
    "last_time": 1764000030.2,
}  # fmt: skip


_PARTS: list[dict[str, Any]] = [
    {"name": "forward", "seconds": 0.04}, {"name": "backward", "seconds": 0.08},
    {"name": "optimizer", "seconds": 0.005}, {"name": "data", "seconds": 0.002},
    {"name": "transfer", "seconds": 0.02}, {"name": "waiting", "seconds": 0.012}, {"name": "other", "seconds": 0.001},
]  # fmt: skip
_BAR: dict[str, Any] = {"rank": 0, "node": "node1", "seconds": 0.16, "parts": _PARTS}
_STEP_TIME: dict[str, Any] = {
    "attempt": 1, "steps": 20, "told": 2, "ranks": 2, "median": _BAR, "bars": [_BAR], "left_out": 1, "slowest": 1,
    "spread": [{"name": "forward", "low": 0.04, "median": 0.042, "high": 0.044}],
    "sentence": "Rank 1 on node2 is slowest: it computes 12 % longer than rank 0, which waits 12 ms a step for it.",
    "untold": None,
    "exchange": "Communication alone: 118 MB/s. Gradients go in pieces of at most 1 MiB, 2 under way at once.",
}  # fmt: skip
PartName = Literal["forward", "backward", "optimizer", "data", "exposed", "transfer", "waiting", "other", "untold"]


class SeriesPart(Wire):
    """The points of a series that are of one attempt: from this one up to where the next part begins."""

    attempt: int
    first: int = Field(description="Its first point's place in the lists, from 0")
    ranks: int = Field(description="How many ranks these points stand for")


class Series(Wire):
    """One figure over the steps of one attempt, or `joined` of all of them; the lists are of equal length."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SERIES]})

    name: str = Field(
        description="`loss`, `samples_per_s`, `accuracy`, `evaluation_loss`, or whatever a script reports"
    )
    attempt: int = Field(description="Of a joined line, the newest that told this figure")
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
    mean: list[float | None] | None = Field(
        description="Where not every step has a point, as `value` has the lowest and the highest of each "
        "neighbourhood: the mean of `value` over all steps of it, null where that is not known. "
        "Without a list, each point is a step and stands for itself"
    )
    weight: list[float] | None = Field(
        description="With `mean`: of how many steps; the points of a neighbourhood have equal parts of them, so that "
        "means over points, so weighted, are means over steps"
    )
    ranks: int = Field(description="How many ranks a point stands for, in `attempt`")
    parts: list[SeriesPart] = Field(description="By attempt; none for one that has no point")


class AttemptBegun(Wire):
    """Where an attempt that trained began."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BEGUN]})

    attempt: int
    step: int = Field(description="The first step that it did")
    resumed_from: int | None = Field(
        description="The step of the checkpoint with which it went on; null where it told none"
    )
    done_again: int = Field(description="How many steps that had been done before it did again, or has to")


class TrainingData(Wire):
    """What is trained on, in plain words; `sentence` and `staging` are data: show them as text, never as HTML."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DATA]})

    attempt: int = Field(description="The newest attempt that told of its data")
    sentence: str | None = Field(description="Samples and classes; null before they are opened")
    staging: str | None = Field(description="How far nodes are with copying to their own disks; null where none does")
    nodes_staging: int = Field(description="How many nodes have not copied all of it yet")
    copied_bytes: float | None = Field(description="Over all nodes")
    total_bytes: float | None


class RankFigures(Wire):
    """The newest figures of one rank, in its newest attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BY_RANK]})

    rank: int
    node: str | None
    attempt: int
    step: int | None
    samples_per_s: float | None = Field(description="Over its newest 20 steps")
    loss: float | None = Field(description="Of its newest step that told one")
    exposed_share: float | None = Field(
        description="Of its step, how much was exposed communication: exposed_s / seconds over its newest 20 steps"
    )
    cpus: float | None = Field(description="CPUs in use over the newest few seconds")
    received_bytes_per_s: float | None = Field(
        description="Through its node's interface, whoever received them; told by one rank of each node"
    )
    sent_bytes_per_s: float | None
    dropped: int = Field(description="Reports that this rank had to drop, because it never waits")
    last_time: float | None = Field(description="Seconds since the epoch, UTC, of its newest record")


class StepPart(Wire):
    """A part of a step. All of a bar's parts add up to its step."""

    name: PartName = Field(
        description="`exposed`: waiting for gradients, as `transfer` and `waiting` (for a slower rank) where those are "
        "told apart; `untold`: the rest, where forward or backward is not told"
    )
    seconds: float


class StepBar(Wire):
    """One rank's mean step; the parts that are known, in the order in which they are drawn."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BAR]})

    rank: int
    node: str | None
    seconds: float
    parts: list[StepPart]


class Spread(Wire):
    """A part of a step over all ranks that tell it; seconds."""

    name: PartName
    low: float
    median: float
    high: float


class StepTime(Wire):
    """Where a step's time goes: each rank's mean over its newest steps."""

    model_config = ConfigDict(json_schema_extra={"examples": [_STEP_TIME]})

    attempt: int = Field(description="The newest attempt in which a rank told how long a step takes")
    steps: int = Field(description="Over at most so many of its newest records a rank's mean is taken")
    told: int = Field(description="How many ranks tell it")
    ranks: int = Field(description="Of how many that were heard of in this attempt")
    median: StepBar = Field(description="The rank in the middle, by the time in which it computes, else by its step")
    bars: list[StepBar] = Field(description="By rank; of many ranks the fastest, then the slowest ones, slowest first")
    left_out: int = Field(description="Ranks without a bar")
    slowest: int | None = Field(description="The rank that computes longest; null where that is not known")
    spread: list[Spread]
    sentence: str | None = Field(description="Who is slowest, and what that costs the others")
    untold: str | None = Field(description="What is not known")
    exchange: str | None = Field(
        description="Of communication alone, of how much is hidden, and of how gradients are exchanged; as far as told"
    )


class Metrics(Wire):
    """All series of a job. `revision` grows whenever records came in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": "019aaf3e-8c1b-7d2f-9a51-6b0c2f8e4d10",
                    "revision": 17,
                    "series": [_SERIES],
                    "attempts": [_BEGUN],
                    "by_rank": [_BY_RANK],
                    "step_time": _STEP_TIME,
                    "data": _DATA,
                }
            ]
        }
    )

    job_id: str
    revision: int
    series: list[Series]
    attempts: list[AttemptBegun] = Field(description="Those that trained, the oldest first")
    by_rank: list[RankFigures]
    step_time: StepTime | None = Field(description="null before a rank told how long a step takes")
    data: TrainingData | None = Field(description="null before anything was told of them")


class Acknowledgement(Wire):
    """Up to where records are stored, so that their writer need not send them again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"acknowledged": {"1/0": 660, "1/1": 660}}]})

    acknowledged: dict[str, int] = Field(
        description='Per "<attempt>/<rank>": the highest seq up to which none is missing'
    )
