"""What a one-machine cluster is, as values: its error, where it lives, what ``up`` and ``status`` answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.cluster.cores import NodeCores
from lockstep_slurm.errors import InputError, LockstepError

# Where iproute2 keeps namespaces by name.
NAMESPACES = Path("/run/netns")
# Becomes part of Slurm's ClusterName, which must be lower case and is cut at 40 characters.
NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


class ClusterError(LockstepError):
    """The one-machine Slurm could not be brought up, looked at or ended; the message says what to do."""


class ClusterInputError(ClusterError, InputError):
    """No one-machine Slurm has such a name, number of nodes, host or link."""


@dataclass(frozen=True)
class Host:
    """One node as a host of its own: a network namespace with one interface."""

    node: str
    namespace: str
    """Its name for ``ip netns``."""
    port: str
    """The bridge's end of its link, on the machine's own side."""
    interface: str
    """The host's end: its only interface but the loopback's."""
    address: str

    @property
    def inside(self) -> list[str]:
        """What to put before a command so that it runs on this host, in its network and nothing else of its own.

        Not ``ip netns exec``: that mounts another /sys, without the cgroups that slurmd looks for, and needs a root
        that is a mount point, which a chroot's is not.
        """
        return ["nsenter", f"--net={NAMESPACES / self.namespace}"]


@dataclass(frozen=True)
class Network:
    """The network of a cluster whose nodes are hosts of their own."""

    bridge: str
    address: str
    """The bridge's: this machine as the hosts see it, and where they find the controller."""
    subnet: str
    rate: str | None
    """What ``up`` limited each link to, in tc's form; None for no limit."""
    hosts: tuple[Host, ...]

    def host(self, node: str) -> Host:
        """The host of this node; ``ClusterInputError`` naming those that there are."""
        for found in self.hosts:
            if found.node == node:
                return found
        raise ClusterInputError(f"There is no host {node!r}, only {', '.join(host.node for host in self.hosts)}.")


@dataclass(frozen=True)
class LinkStatus:
    """A host's link as it is now."""

    node: str
    host: Host
    state: str
    """``up``, ``cut``, or ``missing`` where somebody took it away."""
    rate: str | None = None
    """Bits per second in tc's form; None for no limit."""


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
    network: Network | None = None
    """Where the nodes are hosts of their own."""


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
    links: tuple[LinkStatus, ...] = ()
    """Where the nodes are hosts of their own, in the nodes' order. A cut link is no problem: somebody cut it."""

    @property
    def running(self) -> bool:
        """Whether every daemon runs and the controller answers."""
        return not self.problems


def cluster_folder(name: str, home: Path) -> Path:
    """Where the cluster of this name keeps everything; ``ClusterInputError`` for a name that Slurm would not take."""
    if not NAME.fullmatch(name):
        raise ClusterInputError(
            f"{name!r} cannot be a cluster's name: at most 20 lower-case letters, digits and hyphens, a letter first."
        )
    return home.absolute() / "cluster" / name
