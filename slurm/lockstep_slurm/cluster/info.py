"""What a one-machine cluster is, as values: its error, where it lives, what ``up`` and ``status`` answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.cluster.cores import NodeCores
from lockstep_slurm.errors import LockstepError

# Becomes part of Slurm's ClusterName, which must be lower case and is cut at 40 characters.
NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


class ClusterError(LockstepError):
    """The one-machine Slurm could not be brought up, looked at or ended; the message says what to do."""


@dataclass(frozen=True)
class ClusterInfo:
    """A cluster that runs. ``slurm_conf`` is what ``SLURM_CONF`` must name for Slurm's commands to reach it."""

    name: str
    folder: Path
    slurm_conf: Path
    cluster_name: str
    """Slurm's own ``ClusterName``: no other cluster on this machine has it."""
    nodes: tuple[str, ...]
    cores: tuple[NodeCores, ...]
    """For each node the CPUs that its jobs get, as Linux ids."""
    warnings: tuple[str, ...] = ()
    already_running: bool = False


@dataclass(frozen=True)
class NodeStatus:
    """One node as it is now."""

    name: str
    state: str
    """Slurm's word in lower case (``idle``, ``mixed``...), or ``unknown`` where the controller does not answer."""
    cpus: tuple[int, ...]
    """Linux ids of the CPUs that its jobs get."""
    daemon: bool
    """Whether its slurmd runs. Slurm itself notices a dead one only after ``SlurmdTimeout``."""


@dataclass(frozen=True)
class ClusterStatus:
    """What ``status`` found; ``problems`` is empty exactly when everything runs."""

    name: str
    folder: Path
    slurm_conf: Path
    nodes: tuple[NodeStatus, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Whether every daemon runs and the controller answers."""
        return not self.problems


def cluster_folder(name: str, home: Path) -> Path:
    """Where the cluster of this name keeps everything; ``ClusterError`` for a name that Slurm would not take."""
    if not NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} cannot be a cluster's name: at most 20 lower-case letters, digits and hyphens, a letter first."
        )
    return home.absolute() / "cluster" / name
