"""Whether a cluster can ever run a spec."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep_service.clusters.fit import misfit
from lockstep_slurm.client.protocol import ClusterAnswer, SlurmNode, SlurmPartition
from lockstep_slurm.job.spec import JobSpec

ANSWER = ClusterAnswer(
    nodes=(
        SlurmNode("small1", "IDLE", cpus=4),
        SlurmNode("small2", "DOWN", cpus=4),
        SlurmNode("big1", "IDLE", cpus=16),
    ),
    partitions=(
        SlurmPartition("main", "UP", nodes=("small1", "small2", "big1"), default=True),
        SlurmPartition("small", "UP", nodes=("small1", "small2")),
    ),
)


def spec(*, nodes: int = 1, partition: str | None = None, ranks: int = 1, cpus: int | None = None) -> JobSpec:
    made: dict[str, Any] = {"training": {"model": "digits-mlp", "data": "digits"}}
    made["resources"] = {"nodes": nodes} | ({"partition": partition} if partition else {})
    made["placement"] = {"ranks_per_node": ranks, "cpus_per_rank": cpus}
    return JobSpec.model_validate(made)


@pytest.mark.parametrize(
    ("wanted", "where", "says"),
    [
        (spec(partition="gpu"), "resources.partition", "it has main, small"),
        (spec(nodes=4), "resources.nodes", "has 3 nodes"),
        (spec(nodes=3, partition="small"), "resources.nodes", "'small' has 2 nodes"),
        (spec(ranks=17), "placement.ranks_per_node", "17 CPUs on a node, but the largest node of partition"),
        (spec(ranks=2, cpus=4, partition="small"), "placement.ranks_per_node", "8 CPUs"),
        (spec(nodes=2, ranks=8), "resources.nodes", "only 1 node can hold 8 ranks"),
    ],
)  # fmt: skip
def test_what_can_never_run_is_refused_with_numbers(wanted: JobSpec, where: str, says: str) -> None:
    found = misfit(wanted, ANSWER)
    assert found is not None
    assert found.where == where
    assert says in found.message


@pytest.mark.parametrize(
    "wanted", [spec(), spec(nodes=3, ranks=4), spec(ranks=4, cpus=4), spec(nodes=2, partition="small", ranks=4)]
)
def test_what_can_run_passes_down_nodes_included(wanted: JobSpec) -> None:
    assert misfit(wanted, ANSWER) is None


def test_without_an_answer_slurm_is_to_tell() -> None:
    assert misfit(spec(nodes=999, partition="gpu"), ClusterAnswer()) is None
