"""Where a rank's memory comes from: the NUMA domains of its compute CPUs, or the nearest that have any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from lockstep_slurm.placement.placement import Memory
from lockstep_slurm.placement.topology import Topology

UNKNOWN = 255
"""A distance that the firmware does not tell: farther than any that it does (ACPI 6.5, SLIT: 254 at most)."""


def distance(topology: Topology, start: int, end: int) -> int:
    """Between two NUMA domains, in the firmware's units (10: itself).

    Where these are not told, domains of one socket are nearer than others, and the nearer by number the nearer.
    """
    if start == end:
        return 10
    numbers = [domain.number for domain in topology.numa]
    told = topology.numa[numbers.index(start)].distances if start in numbers else ()
    if told and end in numbers and numbers.index(end) < len(told):
        return told[numbers.index(end)]
    sockets = {core.numa: core.socket for core in reversed(topology.cores)}
    together = start in sockets and sockets.get(start) == sockets.get(end)
    return UNKNOWN + abs(start - end) + (0 if together else 1 << 20)


def memory(topology: Topology, domains: Sequence[int], wanted: str) -> tuple[Memory, Optional[str]]:  # noqa: UP045
    """The policy for a rank that computes in ``domains``, and a sentence where these have no memory, or None.

    ``wanted`` is one of ``request.MEMORY``. auto: preferred for a rank in one domain (it goes on elsewhere once that
    is full), the kernel's default for one that spans. Domains of memory alone are used only where others have none.
    """
    stocked = {domain.number for domain in topology.numa if domain.memory}
    if wanted == "local" or (wanted == "auto" and len(domains) > 1):
        return Memory("local"), None
    policy = "preferred" if wanted == "auto" else wanted
    own = tuple(domain for domain in domains if domain in stocked)
    if own or not stocked:  # without any figure, the domains' memory is not known
        return Memory(policy, own or tuple(domains)), None
    near = min(
        (domain.number for domain in topology.numa if domain.memory),
        key=lambda number: min(distance(topology, domain, number) for domain in domains),
    )
    named = f"NUMA domain {domains[0]} has" if len(domains) == 1 else f"NUMA domains {_and(domains)} have"
    return Memory(policy, (near,)), f"{named} no memory of its own: it comes from domain {near}, the nearest that has"


def _and(numbers: Sequence[int]) -> str:
    return " and ".join((", ".join(map(str, numbers[:-1])), str(numbers[-1])))
