"""``Request``: what a node's ranks ask of its CPUs; what the spec and the backend come down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

POLICIES = ("last", "first", "sibling", "nic", "none")
"""Where communication threads go: the last or first cores of the rank, the SMT siblings of its compute cores, the cores
nearest the network card, or nowhere of their own."""
ROLES = ("horovod", "gloo", "exchange", "ccl")
"""Communication threads, in the order in which they are given CPUs: Horovod's background thread, Gloo's socket thread,
Lockstep's own exchange thread, oneCCL's workers."""
MEMORY = ("auto", "bind", "preferred", "local")


@dataclass(frozen=True)
class Threads:
    """How many communication threads one rank has, by role."""

    horovod: int = 1
    gloo: int = 1
    exchange: int = 0
    ccl: int = 0


@dataclass(frozen=True)
class Request:
    """What is asked of one node; the same for each of its ranks."""

    ranks: int
    """Ranks on this node."""
    threads: Threads = Threads()
    communication_cpus: Optional[int] = None  # noqa: UP045 - read by Python 3.9 on compute nodes
    """CPUs per rank for communication threads; None: as many as pay, 0: none."""
    policy: str = "last"
    """One of ``POLICIES``."""
    loader_cpus: int = 0
    """CPUs per rank set aside for the workers that load data; 0: these share the compute CPUs."""
    smt: bool = False
    """Compute on every hardware thread of a core and not only on its first."""
    memory: str = "auto"
    """One of ``MEMORY``. auto: preferred where a rank lies in one domain, else the kernel's default."""
    degrade: bool = False
    """What cannot be satisfied is done as well as possible and named, in place of an error."""
    cpus_per_rank: Optional[int] = None  # noqa: UP045
    """At most so many of the granted CPUs per rank, in hardware threads; None: a fair share."""
    card: Optional[str] = None  # noqa: UP045
    """The network interface that the ranks use, for the policy ``nic``; None: the first card that has a domain."""
