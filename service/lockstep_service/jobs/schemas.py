"""What the API says of a job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lockstep_service.placement.schemas import Result
from lockstep_service.wire import Time, Wire
from lockstep_slurm.job.fields import AbsolutePath
from lockstep_slurm.job.spec import JobSpec

Phase = Literal["accepted", "waiting", "running", "ended well", "ended badly", "unknown"]
Wanted = Literal["hold", "release", "requeue"]
ClientKind = Literal["command", "local", "pyslurm"]

EXAMPLE_ID = "019aaf3e-8c1b-7d2f-9a51-6b0c2f8e4d10"
EXAMPLE_SPEC: dict[str, Any] = {
    "name": "digits",
    "training": {"model": "digits-cnn", "data": "digits", "epochs": 30, "batch_size": 32},
    "resources": {"nodes": 2, "partition": "main", "time": "30"},
    "placement": {"ranks_per_node": 1},
}
_LAST: dict[str, Any] = {
    "step": 660, "steps": 660, "epoch": 30.0, "samples_per_s": 5120.5, "samples_per_s_ranks": 2, "loss": 0.011,
    "accuracy": 0.981, "exposed_share": 0.12, "cpus": 1.9, "received_bytes_per_s": 110e6,
    "sent_bytes_per_s": 110e6, "time": "2026-11-23T06:01:10.250Z",
}  # fmt: skip
_ATTEMPT: dict[str, Any] = {
    "number": 1, "slurm_job_id": 12, "restart_count": 0, "nodes": ["node1", "node2"], "ranks": 2,
    "started_at": "2026-11-23T06:00:05.000Z", "ended_at": None, "exit_code": None, "exit_signal": None, "message": None,
}  # fmt: skip
_VERDICTS: dict[str, Any] = {"as_planned": 2, "degraded": 0, "deviates": 0, "ranks": 2, "revision": 3}
EXAMPLE_SUMMARY: dict[str, Any] = {
    "id": EXAMPLE_ID, "name": "digits", "state": "RUNNING", "flags": [], "phase": "running", "reason": None,
    "slurm_job_id": 12, "nodes": ["node1", "node2"], "nodes_requested": 2, "ranks": 2, "client": "command",
    "by_hand": False, "created_at": "2026-11-23T06:00:00.123Z", "dispatched_at": "2026-11-23T06:00:00.410Z",
    "started_at": "2026-11-23T06:00:05.000Z", "ended_at": None, "observed_at": "2026-11-23T06:01:10.300Z",
    "stale_since": None, "slurm_reason": None, "expected_start": None,
    "attempts": [_ATTEMPT], "last": _LAST, "verdict": "as planned", "verdicts": _VERDICTS,
    "run_dir": f"/home/ada/.lockstep/runs/{EXAMPLE_ID}",
    "rerun_of": None, "after": None, "after_any": False, "held": False, "wanted": None,
}  # fmt: skip


class Attempt(Wire):
    """One Slurm execution of a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ATTEMPT]})

    number: int = Field(description="1, 2, ... in the order in which they were claimed on a compute node")
    slurm_job_id: int | None = Field(description="null without Slurm")
    restart_count: int = Field(description="Slurm's restart count: how often it had been requeued before")
    nodes: list[str]
    ranks: int
    started_at: Time | None
    ended_at: Time | None = Field(
        description="null while it runs. Without an exit record: when its ranks were heard of last, where that is "
        "known, else at the latest when it was over"
    )
    exit_code: int | None = Field(
        description="The training's exit code; null while it runs, when a signal ended it, and without an exit record"
    )
    exit_signal: int | None
    message: str | None = Field(description="One plain sentence where there is something to say")


class Last(Wire):
    """The newest figures of a job; each is null until it is known."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LAST]})

    step: int | None = Field(description="The newest step that all ranks reported")
    steps: int | None = Field(description="Steps planned in all")
    epoch: float | None
    samples_per_s: float | None = Field(description="Sum over ranks, each over its newest 20 steps up to `step`")
    samples_per_s_ranks: int | None = Field(
        description="How many ranks told a throughput: where one prints for all, it is that one's alone"
    )
    loss: float | None = Field(description="Mean over the ranks that told one, each of its newest such step")
    accuracy: float | None = Field(description="Of the newest evaluation")
    exposed_share: float | None = Field(
        description="Mean over ranks of exposed_s / seconds, each over its newest 20 steps"
    )
    cpus: float | None = Field(description="CPUs in use: mean over ranks, and over the training so far")
    received_bytes_per_s: float | None = Field(
        description="Through the node's interface: mean over nodes, and over the training so far"
    )
    sent_bytes_per_s: float | None
    time: Time | None = Field(description="When the newest of these was reported")


class Verdicts(Wire):
    """How many ranks of the newest attempt came to which result, each by its newest verdict."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERDICTS]})

    as_planned: int
    degraded: int = Field(description="As planned, by a plan that names what it could not do")
    deviates: int
    ranks: int = Field(description="Of how many ranks: as many as the attempt has")
    revision: int = Field(description="Grows whenever a placement or a verdict came in")


class JobSummary(Wire):
    """A job, without its spec."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_SUMMARY]})

    id: str = Field(description="UUIDv7; kept for life")
    name: str
    state: str | None = Field(description="Slurm's base state, verbatim; null before Slurm told one")
    flags: list[str] = Field(description="Slurm's state flags, verbatim")
    phase: Phase = Field(description="For people; a state that Lockstep does not know is `unknown`, never failed")
    reason: str | None = Field(description="Why it waits, why it is not submitted yet, or why it ended badly")
    slurm_reason: str | None = Field(description="Slurm's own word for why it waits, verbatim; null unless it waits")
    expected_start: Time | None = Field(description="Slurm's estimate while it waits; null where it has none")
    slurm_job_id: int | None
    nodes: list[str] = Field(description="Of the newest attempt")
    nodes_requested: int
    ranks: int
    client: ClientKind = Field(description="How Lockstep talks to the scheduler that has this job")
    by_hand: bool = Field(description="True for a run that was made without the service and imported")
    created_at: Time
    dispatched_at: Time | None = Field(description="When Slurm took it")
    started_at: Time | None
    ended_at: Time | None
    observed_at: Time | None = Field(description="When Slurm, or the run's own files, last told of it")
    stale_since: Time | None = Field(description="Since when Slurm could not be asked; null while it can")
    attempts: list[Attempt]
    last: Last
    verdict: Result | None = Field(
        description="Whether the threads of the newest attempt sit where they were planned, by its worst rank; "
        "null until every rank has said something"
    )
    verdicts: Verdicts | None = Field(description="null until the newest attempt has told of its placement")
    run_dir: str = Field(description="Absolute path of the job's files")
    rerun_of: str | None = Field(description="The job that this one repeats")
    after: str | None = Field(description="The job that has to end before this one may start")
    after_any: bool = Field(description="Whether any end of that job will do; else it has to end well")
    held: bool = Field(description="Kept from starting, by its owner or by Slurm, until it is released")
    wanted: Wanted | None = Field(description="What was asked for and Slurm has not been told yet")


class Job(JobSummary):
    """A job, with its spec."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                EXAMPLE_SUMMARY | {"spec": EXAMPLE_SPEC, "filled": ["resources.partition"], "global_batch": 64}
            ]
        }
    )

    spec: JobSpec = Field(description="As it was submitted, with what the site filled in")
    filled: list[str] = Field(description="Dotted keys of `spec` whose values the site gave, not who submitted it")
    global_batch: int | None = Field(
        description="Samples of a step over all ranks: `batch_size` times the ranks, of the newest attempt where there "
        "is one; null for a script, which makes its own batches"
    )


class JobPage(Wire):
    """A page of the list of jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last page")


class LogText(Wire):
    """A piece of a job's log. `text` is data: show it as text, never as HTML."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "attempt": 1,
                    "text": "0: epoch 1\n",
                    "offset": 0,
                    "next_offset": 11,
                    "size": 11,
                    "files": ["job-12.log"],
                }
            ]
        }
    )

    attempt: int | None = Field(description="Whose log this is; null when no attempt has been claimed yet")
    text: str
    offset: int = Field(description="Where `text` starts, in bytes")
    next_offset: int = Field(description="Where the next piece starts, in bytes")
    size: int = Field(description="Of the log now, in bytes")
    files: list[str] = Field(description="All log files of the job, oldest first")


class ImportRequest(BaseModel):
    """Which run to take in."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"run_dir": f"/home/ada/.lockstep/runs/{EXAMPLE_ID}"}]}
    )

    run_dir: AbsolutePath = Field(description="Absolute path of a run directory")
