"""``World``: which rank this is, of how many, on which node; from Slurm's or mpirun's variables, or on one machine.

Standard library only.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from lockstep_worker.errors import WorldError
from lockstep_worker.nodelist import expand_nodes, expand_tasks


@dataclass(frozen=True)
class World:
    """One rank's place, in Horovod's words, and the execution of the job that it belongs to."""

    rank: int
    size: int
    local_rank: int
    nodes: tuple[str, ...]
    """Slurm's names of the nodes, in its order."""
    tasks_per_node: tuple[int, ...]
    """Ranks on each of ``nodes``."""
    node_index: int
    cluster: str
    slurm_job_id: int | None
    step_id: int | None
    restart_count: int
    local_id: str | None = None
    """What stands for the Slurm job where there is none."""
    shares_cpus: bool = False
    """Whether the ranks of a node were given its CPUs together, so that they have to part them."""
    labelled: bool = True
    """Whether who started the ranks puts the rank before each line that it prints."""

    @property
    def node(self) -> str:
        """This rank's node."""
        return self.nodes[self.node_index]

    @property
    def local_size(self) -> int:
        """Ranks on this node."""
        return self.tasks_per_node[self.node_index]

    @property
    def cross_size(self) -> int:
        """Nodes that have a rank of this local rank."""
        return sum(tasks > self.local_rank for tasks in self.tasks_per_node)

    @property
    def cross_rank(self) -> int:
        """Which of those nodes this is."""
        return sum(tasks > self.local_rank for tasks in self.tasks_per_node[: self.node_index])

    @property
    def execution(self) -> tuple[str, int | None, int | None, str | None, int]:
        """What tells this execution from every other: cluster, Slurm job, its step, local id, restart count."""
        return (self.cluster, self.slurm_job_id, self.step_id, self.local_id, self.restart_count)


def from_slurm(environment: Mapping[str, str]) -> World:
    """The world of a task that ``srun`` started (Slurm 22.05's variables); ``WorldError`` names what is missing."""
    try:
        nodes = expand_nodes(environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"])
        tasks = expand_tasks(environment["SLURM_STEP_TASKS_PER_NODE"])
        world = World(
            rank=int(environment["SLURM_PROCID"]),
            size=int(environment.get("SLURM_STEP_NUM_TASKS") or environment["SLURM_NTASKS"]),
            local_rank=int(environment["SLURM_LOCALID"]),
            nodes=nodes,
            tasks_per_node=tasks,
            node_index=int(environment["SLURM_NODEID"]),
            cluster=environment.get("SLURM_CLUSTER_NAME") or "slurm",
            slurm_job_id=int(environment["SLURM_JOB_ID"]),
            step_id=int(environment["SLURM_STEP_ID"]) if environment.get("SLURM_STEP_ID") else None,
            restart_count=int(environment.get("SLURM_RESTART_COUNT") or 0),
        )
    except KeyError as error:
        raise WorldError(
            f"{error.args[0]} is not set: start ranks with srun in a Slurm job, or without Slurm with --local-ranks N"
        ) from None
    except ValueError as error:
        raise WorldError(f"Slurm's variables cannot be read: {error}") from None
    if len(tasks) != len(nodes) or sum(tasks) != world.size or not 0 <= world.node_index < len(nodes):
        raise WorldError(
            f"Slurm's variables contradict each other: {len(nodes)} nodes, tasks per node {tasks}, {world.size} tasks, "
            f"this is node number {world.node_index}"
        )
    # One machine can be several nodes, whose names are in no hosts file: slurmd's own word counts.
    named = environment.get("SLURMD_NODENAME")
    if named and named != world.node:
        raise WorldError(f"this is node {named}, but number {world.node_index} of {nodes} is {world.node}")
    return world


def from_mpi(environment: Mapping[str, str]) -> World:
    """The world of a process that Open MPI's ``mpirun`` started within a Slurm job (4.1); ``WorldError`` as above.

    The node is slurmd's word; ``mpirun`` fills them in Slurm's order with equally many ranks, as the script asks it to.
    """
    try:
        nodes = expand_nodes(environment["SLURM_JOB_NODELIST"])
        local_size = int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
        rank, size = int(environment["OMPI_COMM_WORLD_RANK"]), int(environment["OMPI_COMM_WORLD_SIZE"])
        world = World(
            rank=rank,
            size=size,
            local_rank=int(environment["OMPI_COMM_WORLD_LOCAL_RANK"]),
            nodes=nodes,
            tasks_per_node=(local_size,) * len(nodes),
            node_index=nodes.index(environment["SLURMD_NODENAME"]),
            cluster=environment.get("SLURM_CLUSTER_NAME") or "slurm",
            slurm_job_id=int(environment["SLURM_JOB_ID"]),
            # Each node's ranks are children of another step, or of the batch script.
            step_id=None,
            restart_count=int(environment.get("SLURM_RESTART_COUNT") or 0),
            shares_cpus=True,
            # Its --tag-output tags pieces of lines as they come.
            labelled=False,
        )
    except KeyError as error:
        raise WorldError(f"{error.args[0]} is not set: mpirun has to start the ranks within a Slurm job") from None
    except ValueError as error:
        raise WorldError(f"mpirun's and Slurm's variables cannot be read: {error}") from None
    if world.local_size * len(nodes) != size or rank != world.node_index * local_size + world.local_rank:
        raise WorldError(
            f"rank {rank} of {size} is local rank {world.local_rank} of {local_size} on {world.node}, number "
            f"{world.node_index} of {nodes}: mpirun has to start equally many ranks on each node, in Slurm's order"
        )
    return world


def local(rank: int, size: int, local_id: str, restart_count: int) -> World:
    """The world of ``size`` ranks that all run on this machine, without Slurm."""
    node = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).lstrip("._-") or "localhost"
    return World(
        rank=rank,
        size=size,
        local_rank=rank,
        nodes=(node,),
        tasks_per_node=(size,),
        node_index=0,
        cluster="local",
        slurm_job_id=None,
        step_id=None,
        restart_count=restart_count,
        local_id=local_id,
        shares_cpus=True,
    )
