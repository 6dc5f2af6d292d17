"""A real Slurm on one machine, for development, tests and the demo: its daemons and all their files in one folder."""

from lockstep_slurm.cluster.cores import NodeCores
from lockstep_slurm.cluster.info import (
    ClusterError,
    ClusterInfo,
    ClusterStatus,
    Host,
    LinkStatus,
    Network,
    NodeStatus,
    cluster_folder,
)
from lockstep_slurm.cluster.lifecycle import down, link, status, up

__all__ = [
    "ClusterError",
    "ClusterInfo",
    "ClusterStatus",
    "Host",
    "LinkStatus",
    "Network",
    "NodeCores",
    "NodeStatus",
    "cluster_folder",
    "down",
    "link",
    "status",
    "up",
]
