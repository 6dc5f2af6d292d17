"""``Placement``: the answer for one node: where each local rank computes, communicates, loads and keeps its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lockstep_slurm.placement.request import ROLES


@dataclass(frozen=True)
class Communication:
    """The CPUs of a rank's communication threads, one per thread and role; empty: they share the compute CPUs.

    Threads of different roles may be given the same CPU where a rank has too few for one each.
    """

    horovod: tuple[int, ...] = ()
    gloo: tuple[int, ...] = ()
    exchange: tuple[int, ...] = ()
    ccl: tuple[int, ...] = ()

    @property
    def cpus(self) -> tuple[int, ...]:
        """All of them, each once, in the order of the roles."""
        return tuple(dict.fromkeys(cpu for role in ROLES for cpu in getattr(self, role)))


@dataclass(frozen=True)
class Memory:
    """Where the kernel takes a rank's pages from."""

    policy: str
    """``bind`` (only there), ``preferred`` (there first), ``local`` (where the thread that asks runs: the default)."""
    domains: tuple[int, ...] = ()
    """Linux's numbers of the NUMA domains; empty for ``local``."""


@dataclass(frozen=True)
class RankPlacement:
    """One rank's part of the node. CPUs are Linux's numbers, in the topology's tree order."""

    local_rank: int
    compute: tuple[int, ...]
    """Where its main thread and its OpenMP threads run: the process's affinity mask."""
    communication: Communication = Communication()
    loader: tuple[int, ...] = ()
    """Where the workers that load data run; empty: on the compute CPUs."""
    numa: tuple[int, ...] = ()
    """NUMA domains of its compute CPUs, by Linux's numbers."""
    memory: Memory = Memory("local")
    degraded: tuple[str, ...] = ()
    """What is not as was asked for, a plain sentence each."""

    @property
    def cpus(self) -> tuple[int, ...]:
        """Everything that belongs to the rank, each once: compute, communication, loader."""
        return tuple(dict.fromkeys((*self.compute, *self.communication.cpus, *self.loader)))


@dataclass(frozen=True)
class Placement:
    """One node's plan."""

    ranks: tuple[RankPlacement, ...]
    """By local rank."""
    spare: tuple[int, ...] = ()
    """Granted CPUs that nothing was planned for."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the node as a whole, a plain sentence each."""
    policy: str = "last"
    """The policy that was applied; another than was asked for only with a degradation that says so."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """The degradations of all ranks, each sentence once."""
        return tuple(dict.fromkeys(sentence for rank in self.ranks for sentence in rank.degraded))

    def document(self) -> dict[str, Any]:
        """As JSON takes it; ``Placement.parse`` is the inverse."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Placement:
        """From ``document()``'s form."""
        return cls(
            ranks=tuple(_rank(one) for one in document["ranks"]),
            spare=tuple(document["spare"]),
            warnings=tuple(document["warnings"]),
            policy=document["policy"],
        )


def _rank(one: Mapping[str, Any]) -> RankPlacement:
    return RankPlacement(
        local_rank=one["local_rank"],
        compute=tuple(one["compute"]),
        communication=Communication(**{role: tuple(one["communication"][role]) for role in ROLES}),
        loader=tuple(one["loader"]),
        numa=tuple(one["numa"]),
        memory=Memory(one["memory"]["policy"], tuple(one["memory"]["domains"])),
        degraded=tuple(one["degraded"]),
    )
