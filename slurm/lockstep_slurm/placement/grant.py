"""What Slurm started the ranks of a node with: ``judge``, what is wrong with it; ``counts_cores``, what a CPU is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Optional

from lockstep_slurm.placement.causes import said
from lockstep_slurm.placement.cpulist import compress, from_mask
from lockstep_slurm.placement.topology import Topology


def judge(
    masks: Mapping[int, Sequence[int]],
    *,
    asked: Optional[int],  # noqa: UP045 - read by Python 3.9 on compute nodes
    topology: Topology,
    variables: Mapping[str, str],
) -> tuple[str, ...]:
    """Plain sentences about what Slurm gave; empty when all is well, or when it was asked for nothing (``asked``).

    ``masks`` are the Linux CPUs that each local rank was started with, ``asked`` is srun's ``-c``, ``variables`` are
    Slurm's in the ranks' environment.

    A leftover SLURM_CPU_BIND and Slurm's own binding both end in SLURM_CPU_BIND_LIST (22.05). What gives the leftover
    away is that it was carried out to the letter and still is not what was asked for; a cpuset that is too small, that
    it was not. Ranks that were bound to the step's CPUs in one piece ("auto binding off" in slurmd's log) are well: the
    plan divides these.
    """
    if asked is None or not masks:
        return ()
    given = {rank: frozenset(masks[rank]) for rank in sorted(masks)}
    listed = {rank: _listed(variables, rank) for rank in given}
    short = [rank for rank, cpus in given.items() if len(cpus) < asked]
    alike = len(set(given.values())) == 1
    some = next(iter(given.values()))
    one_piece = alike and len(some) >= asked * len(given)
    pair = next(((one, other) for one, other in combinations(given, 2) if given[one] & given[other]), None)
    overlap = pair is not None and not one_piece
    # Of 3 CPUs for each rank on cores of 2, Slurm's own binding gives one core to two ranks.
    uneven = overlap and not alike and not short and asked % topology.threads_per_core != 0
    if (
        (short or overlap)
        and not uneven
        and all(cpus and cpus & set(topology.cpus) == given[rank] for rank, cpus in listed.items())
    ):
        text = variables.get("SLURM_CPU_BIND_LIST") or variables.get("SLURM_CPU_BIND", "")
        sentence = (
            f"{said('SLURM_CPU_BIND_LIST', text)} bound {_given(given)}, where {_count(asked)} for each rank had "
            "been asked for: it is left over from another job or shell; unset SLURM_CPU_BIND, "
            "SLURM_CPU_BIND_LIST, SLURM_CPU_BIND_TYPE and SLURM_CPU_BIND_VERBOSE before srun"
        )
        return (sentence,)
    bound = any(cpus >= given[rank] for rank, cpus in listed.items())
    # slurmd may itself be confined to a part of the machine, so "all of it" is not enough to go by. However a request
    # is rounded up, and even where Slurm's CPU is a core, a rank has no more cores than the CPUs that it asked for.
    too_much = some >= set(topology.cpus) or sum(not some.isdisjoint(core.cpus) for core in topology.cores) > asked
    if alike and not bound and one_piece and len(some) > asked and (too_much or len(given) > 1):
        others = len(some) > asked * len(given)
        none = variables.get("SLURM_CPU_BIND_TYPE") == "none"
        cause = "that is --cpu-bind=none" if none else "TaskPlugin in slurm.conf seems to be without task/affinity"
        sentence = (
            f"Slurm bound no rank: {_ranks(given)} started with {compress(some)}, where {_count(asked)} for each rank "
            f"had been asked for; {cause}, so the plan divides "
            + ("what other jobs may be using as well" if others else "these CPUs itself")
        )
        return (sentence,)
    found = []
    if pair is not None and overlap:
        cure = f"; ask for a multiple of {topology.threads_per_core}, so that none shares a core" if uneven else ""
        found.append(
            f"local ranks {pair[0]} and {pair[1]} were both given {compress(given[pair[0]] & given[pair[1]])}, where "
            f"{_count(asked)} for each rank had been asked for{cure}"
        )
    for rank in short:
        meant = listed[rank]
        less = (
            f": Slurm bound it to {compress(meant)}, so its cpuset is smaller than what Slurm meant to give"
            if meant > given[rank]
            else ": its cpuset is smaller than what was asked for"
        )
        found.append(f"local rank {rank} was given {compress(given[rank])}, of {_count(asked)} asked for{less}")
    return tuple(found)


def counts_cores(masks: Mapping[int, Sequence[int]], *, asked: int, topology: Topology) -> bool:
    """Whether a CPU of Slurm's is a core on this node, which slurm.conf says by ``CPUs=`` the number of cores.

    Then each rank has all hardware threads of as many cores as it asked for CPUs; where a CPU is a hardware thread, of
    half as many at most. One CPU for one rank is rounded up to a core either way, and taken for a hardware thread.
    ``masks`` and ``asked`` are ``judge``'s, which has to find them well: a rank that nobody bound has any cores.
    """
    threads = topology.threads_per_core
    if threads == 1 or asked * len(masks) <= 1:
        return False
    # Of a core with a single thread, one that Slurm counts is all, whatever it counts.
    cores = [frozenset(core.cpus) for core in topology.cores if len(core.cpus) == threads]
    given = [frozenset(cpus) for cpus in masks.values()]

    def whole(cpus: frozenset[int]) -> int:
        return sum(core <= cpus for core in cores)

    # Together, too: ranks that were bound in one piece each have the cores of all.
    together = frozenset(cpu for cpus in given for cpu in cpus)
    return all(whole(cpus) >= asked for cpus in given) and whole(together) >= asked * len(given)


def _listed(variables: Mapping[str, str], rank: int) -> frozenset[int]:
    """The CPUs that a list of masks or of CPUs in Slurm's variables names for a local rank; empty: there is none."""
    kind, text = variables.get("SLURM_CPU_BIND_TYPE", ""), variables.get("SLURM_CPU_BIND_LIST", "")
    if not text:
        whole = variables.get("SLURM_CPU_BIND", "")
        position = max(whole.find("mask_cpu:"), whole.find("map_cpu:"))
        kind, _, text = whole[position:].partition(":") if position >= 0 else ("", "", "")
    entries = list(_entries(text))
    if not entries:
        return frozenset()
    entry = entries[rank % len(entries)]
    try:
        if kind.startswith("mask_cpu"):
            return frozenset(from_mask(int(entry, 16)))
        if kind.startswith("map_cpu"):
            return frozenset([int(entry, 0)])
    except ValueError:
        pass  # no number: nothing that Slurm could have carried out either
    return frozenset()


def _entries(text: str) -> Iterable[str]:
    """``a*2,b`` is a, a, b (man srun, 22.05)."""
    for part in filter(None, text.split(",")):
        entry, _, times = part.partition("*")
        yield from [entry] * (min(int(times), 4096) if times.isdecimal() else 1)


def _given(given: Mapping[int, Iterable[int]]) -> str:
    return ", ".join(f"local rank {rank} to {compress(cpus)}" for rank, cpus in given.items())


def _ranks(ranks: Iterable[int]) -> str:
    numbers = list(ranks)
    return f"local rank {numbers[0]} was" if len(numbers) == 1 else f"local ranks {compress(numbers)} were each"


def _count(asked: int) -> str:
    return f"{asked} CPU{'' if asked == 1 else 's'}"
