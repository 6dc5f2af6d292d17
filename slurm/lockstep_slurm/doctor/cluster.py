"""What is known of the cluster: the facts that the checks of ``slurm_checks`` and ``site_checks`` judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lockstep_slurm.client import values


@dataclass(frozen=True)
class Node:
    """One node as Slurm knows it."""

    name: str
    state: str
    flags: tuple[str, ...]
    reason: str | None
    host: str
    """NodeHostName."""
    address: str
    """NodeAddr."""
    started: int | None
    """When its slurmd started, by the node's own clock, in seconds since the epoch."""


@dataclass(frozen=True)
class Limit:
    """One limit on this user's jobs: whose it is (an account's, a QOS's), Slurm's word, how many."""

    of: str
    word: str
    jobs: int


@dataclass(frozen=True)
class Cluster:
    """The cluster as its controller tells it to this user on this machine."""

    settings: Mapping[str, str]
    """``scontrol show config``: names and texts, cgroup.conf's among them where a plugin reads it."""
    user: str
    privileged: bool
    """Whether this user is root or SlurmUser, who see everything."""
    runs: Path
    runs_filesystem: str
    own_names: frozenset[str]
    """This machine's host names and addresses."""
    nodes: tuple[Node, ...] | None = None
    client_version: str | None = None
    mpi: tuple[str, ...] | None = None
    """What ``srun --mpi=list`` offers."""
    controller_ahead: tuple[float, float] | None = None
    """Bounds of the controller's clock less this machine's, in seconds."""
    controller_time: float | None = None
    """The controller's clock when it was asked, in seconds since the epoch."""
    accounts: tuple[str, ...] | None = None
    """This user's accounts; None where there is no accounting."""
    limits: tuple[Limit, ...] = ()
    login_seconds: float | None = None
    """How long this user's login shell takes to start; None where it did not come to an end."""
    unanswered: Mapping[str, str] = field(default_factory=dict)
    """Questions that Slurm did not answer, with its words."""
    reconcile_seconds: float = 10.0
    """The service's longest pause between two looks at the queue."""
    lookup_seconds: float | None = None
    """The service's pause between two look-ups for a submit whose answer was lost; None: twice MessageTimeout."""

    def text(self, name: str) -> str:
        """A setting's text; empty where the cluster has no such setting, or it is ``(null)``."""
        value = self.settings.get(name, "").strip()
        return "" if value in {"(null)", "N/A"} else value

    def words(self, name: str) -> list[str]:
        """A setting that is a list, in lower case; ``none`` counts as empty."""
        return [word for word in self.text(name).lower().split(",") if word and word != "none"]

    def seconds(self, name: str) -> int | None:
        """A setting that is a time; None where it cannot be read."""
        return values.seconds(self.text(name))


@dataclass(frozen=True)
class Silence:
    """Slurm did not answer at all, with what it said."""

    words: str
    munge: str | None = None
    """What is wrong with munge on this machine, where that could be asked."""
