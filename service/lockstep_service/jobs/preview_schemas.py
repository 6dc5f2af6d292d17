"""What a preview says of a spec that is not submitted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from lockstep_service.jobs.schemas import EXAMPLE_SPEC
from lockstep_service.placement.schemas import NODE_EXAMPLE, Cpus, Plan, Topology
from lockstep_service.wire import Time, Wire
from lockstep_slurm.job.spec import JobSpec

Opinion = Literal["would start", "would wait", "refused", "no answer", "not asked"]

_FORECAST: dict[str, Any] = {
    "opinion": "would start",
    "message": "Job 17 to start at 1795586400 using 2 processors on nodes node[1-2] in partition main",
    "expected_start": "2026-11-25T06:00:00.000Z", "nodes": ["node1", "node2"], "cpus": 2,
    "asked_at": "2026-11-25T05:59:58.000Z", "ask_again_s": None,
}  # fmt: skip
_PLACEMENT: dict[str, Any] = {
    "nodes": ["node1", "node2"], "granted": [0, 1, 2, 3], "topology": NODE_EXAMPLE["topology"],
    "placement": NODE_EXAMPLE["placement"], "environment": {"OMP_NUM_THREADS": "3"},
    "srun": ["--ntasks-per-node=1", "--cpu-bind=none"],
}  # fmt: skip


class Forecast(Wire):
    """What Slurm says of the script as things stand (``sbatch --test-only``); no promise."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FORECAST]})

    opinion: Opinion = Field(
        description="`refused`: Slurm would not take it; `no answer`: it could not be asked; `not asked`: it was asked "
        "about something else a moment ago, so ask again after `ask_again_s`"
    )
    message: str = Field(description="Slurm's own words, or why there are none")
    expected_start: Time | None
    nodes: list[str] = Field(description="Where it would run")
    cpus: int | None = Field(description="How many it would be given, over all nodes")
    asked_at: Time | None = Field(description="When Slurm was asked: an answer is given again for some seconds")
    ask_again_s: float | None = Field(description="Seconds after which another preview would ask Slurm")


class PlannedNode(Wire):
    """The placement on one kind of node of the partition: what `lockstep plan` shows."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PLACEMENT]})

    nodes: list[str] = Field(description="The nodes that are of this kind, as far as Slurm tells")
    granted: Cpus = Field(description="The CPUs that the plan was made for")
    topology: Topology
    placement: Plan
    environment: dict[str, str] = Field(description="Variables that all ranks of a node have alike")
    srun: list[str] = Field(description="The options of the script's srun line")


EXAMPLE: dict[str, Any] = {
    "spec": EXAMPLE_SPEC, "filled": ["resources.partition"], "ranks": 2, "script": "#!/bin/bash\n#SBATCH ...\n",
    "placement": _PLACEMENT, "slurm": _FORECAST, "warnings": [],
}  # fmt: skip


class Preview(Wire):
    """What a submission of a spec would come to."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    spec: JobSpec = Field(description="With what the site filled in")
    filled: list[str] = Field(description="Dotted keys of `spec` whose values the site gave")
    ranks: int
    script: str = Field(description="The batch script that would be submitted")
    placement: PlannedNode | None = Field(description="null where no node of the partition is known")
    slurm: Forecast
    warnings: list[str] = Field(description="What to know before submitting it, a plain sentence each")
