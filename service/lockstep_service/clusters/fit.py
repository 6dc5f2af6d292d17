"""Whether a cluster can ever run a spec, by what it said of its nodes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep_slurm.client.protocol import ClusterAnswer, SlurmNode, SlurmPartition
from lockstep_slurm.job.spec import JobSpec


@dataclass(frozen=True)
class Misfit:
    """Why not: the field, the sentence, and what was given."""

    where: str
    message: str
    value: object


def misfit(spec: JobSpec, answer: ClusterAnswer) -> Misfit | None:
    """Why the cluster can never run ``spec``; None if it may, or if ``answer`` does not tell."""
    if not answer.partitions:
        return None
    partition = _partition(spec, answer)
    if partition is None:
        if spec.resources.partition is None:
            return None  # no default partition is marked: Slurm will say
        known = ", ".join(sorted(found.name for found in answer.partitions))
        return Misfit(
            "resources.partition",
            f"is {spec.resources.partition!r}, which this cluster does not have; it has {known}",
            spec.resources.partition,
        )
    if not partition.nodes:
        return None
    wanted = spec.resources.nodes
    if wanted > len(partition.nodes):
        return Misfit(
            "resources.nodes",
            f"is {wanted}, but partition {partition.name!r} has {_counted(len(partition.nodes), 'node')} in all",
            wanted,
        )
    return _too_many_cpus(spec, answer, partition)


def hosts(spec: JobSpec, answer: ClusterAnswer) -> list[SlurmNode]:
    """The nodes that can hold the ranks of ``spec``; none where ``answer`` does not tell."""
    partition = _partition(spec, answer)
    if partition is None:
        return []
    needed = spec.placement.ranks_per_node * (spec.placement.cpus_per_rank or 1)
    return [node for node in answer.nodes if node.name in partition.nodes and node.cpus >= needed]


def _too_many_cpus(spec: JobSpec, answer: ClusterAnswer, partition: SlurmPartition) -> Misfit | None:
    members = [node for node in answer.nodes if node.name in partition.nodes and node.cpus > 0]
    if not members:
        return None
    largest = max(members, key=lambda node: node.cpus)
    ranks, each = spec.placement.ranks_per_node, spec.placement.cpus_per_rank or 1
    needed = ranks * each
    if needed > largest.cpus:
        return Misfit(
            "placement.ranks_per_node",
            f"is {ranks} of {_counted(each, 'CPU')} each, which is {_counted(needed, 'CPU')} on a node, but the "
            f"largest node of partition {partition.name!r} is {largest.name} with {_counted(largest.cpus, 'CPU')}; "
            "ask for fewer ranks per node or fewer CPUs per rank",
            ranks,
        )
    fitting = [node for node in members if node.cpus >= needed]
    if len(fitting) < spec.resources.nodes:
        return Misfit(
            "resources.nodes",
            f"is {spec.resources.nodes}, but of partition {partition.name!r} only {_counted(len(fitting), 'node')} "
            f"can hold {_counted(ranks, 'rank')} of {_counted(each, 'CPU')} each",
            spec.resources.nodes,
        )
    return None


def _partition(spec: JobSpec, answer: ClusterAnswer) -> SlurmPartition | None:
    named = spec.resources.partition
    return next(
        (found for found in answer.partitions if (found.name == named if named is not None else found.default)), None
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
