"""``plan``: from a machine, the CPUs that were granted on it and a request to the place of every rank and thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from lockstep_slurm.placement import policies, remarks
from lockstep_slurm.placement.distribute import Unit
from lockstep_slurm.placement.errors import PlacementError
from lockstep_slurm.placement.granted import check, granted_cores, hardware_threads, whole_cores
from lockstep_slurm.placement.memory import distance, memory
from lockstep_slurm.placement.placement import Placement, RankPlacement
from lockstep_slurm.placement.policies import Cpus
from lockstep_slurm.placement.request import ROLES, Request
from lockstep_slurm.placement.topology import Topology


@dataclass(frozen=True)
class _Part:
    """One rank's cores, and what of them does not compute."""

    share: tuple[Unit, ...]
    """Its cores in tree order, with the CPUs of each that are the rank's own."""
    communication: Cpus
    loader: Cpus
    degraded: tuple[str, ...] = ()

    def compute(self, *, smt: bool) -> list[tuple[Unit, int]]:
        """Its compute CPUs, each with its core, in tree order."""
        off = {*self.communication.others, *self.loader.others}
        gone = self.communication.cores | self.loader.cores
        return [
            (unit, cpu)
            for unit in self.share
            if unit.place not in gone
            for cpu in (unit.cpus if smt else unit.cpus[:1])
            if cpu not in off
        ]


def plan(topology: Topology, granted: Sequence[int], request: Request) -> Placement:
    """Where each of ``request.ranks`` local ranks computes, communicates, loads its data and has its memory.

    ``granted`` are the CPUs that the job really has on this node, in any order. All ranks get equally many cores and
    compute CPUs, no two share a core, and they lie in NUMA domains as ``distribute`` says. What a rank keeps for
    communication follows ``request.policy``; the rules are in ``policies``, and in docs/placement.md in plain words.

    Fewer cores than ranks: the hardware threads of a core go to several ranks, and a warning says so. Fewer CPUs than
    ranks: CPUs are shared, which is a degradation, or an error without ``request.degrade``. Whatever nothing was
    planned for is ``spare``.

    Raises ``PlacementError`` for CPUs that the machine does not have or that are named twice, and for what these CPUs
    cannot satisfy; the message has the numbers and the cure.
    """
    check(request)
    cores = granted_cores(topology, granted)
    strict = replace(request, degrade=False)
    try:
        return _plan(topology, cores, strict, tidy=True)
    except PlacementError as error:
        # The cores that were given up for tidy borders may be the ones that are missing.
        for less, tidy in ((strict, False), *([(request, True)] if request.degrade else [])):
            try:
                return _plan(topology, cores, less, tidy=tidy)
            except PlacementError:
                continue
        raise error from None


def _plan(topology: Topology, cores: Sequence[Unit], request: Request, *, tidy: bool) -> Placement:
    cpus = [cpu for unit in cores for cpu in unit.cpus]
    if len(cpus) < request.ranks:
        return _shared(topology, cores, request)
    warnings = []
    divided = len(cores) < request.ranks
    if divided:
        warnings.append(
            f"{request.ranks} ranks on {len(cores)} cores: hardware threads of one core belong to different ranks, "
            f"which slow each other down; ask for at least {request.ranks} cores or for fewer ranks"
        )
    shares = (hardware_threads if divided else whole_cores)(cores, request.ranks, request.cpus_per_rank, tidy=tidy)
    policy, lacking = _policy(topology, shares, request)
    parts = [_part(topology, rank, share, request, policy) for rank, share in enumerate(shares)]
    parts = [replace(part, degraded=(*lacking, *part.degraded)) for part in parts]
    ranks = _ranks(parts, request)
    ranks, told = _with_memory(topology, ranks, request.memory)
    used = {cpu for rank in ranks for cpu in rank.cpus}
    return Placement(
        ranks=tuple(ranks),
        spare=tuple(cpu for cpu in cpus if cpu not in used),
        warnings=(*warnings, *remarks.spanning(cores, shares, request), *remarks.communication(shares, request), *told),
        policy=policy,
    )


def _shared(topology: Topology, cores: Sequence[Unit], request: Request) -> Placement:
    line = [(unit.numa, cpu) for unit in cores for cpu in unit.cpus]
    if not request.degrade:
        raise PlacementError(
            f"{request.ranks} ranks on {len(line)} CPUs: each rank needs one of its own; "
            f'ask for at least {request.ranks} CPUs or for fewer ranks, or allow it by on_shortage = "degrade"'
        )
    said = (
        f"{request.ranks} ranks share {len(line)} CPUs: each waits for others, and all their threads take turns there"
    )
    mine = [line[rank * len(line) // request.ranks] for rank in range(request.ranks)]
    ranks = [RankPlacement(rank, (cpu,), numa=(numa,), degraded=(said,)) for rank, (numa, cpu) in enumerate(mine)]
    ranks, told = _with_memory(topology, ranks, request.memory)
    return Placement(
        ranks=tuple(ranks),
        spare=(),
        warnings=tuple(told),
        policy="none",
    )


def _policy(topology: Topology, shares: Sequence[Sequence[Unit]], request: Request) -> tuple[str, tuple[str, ...]]:
    """The policy that can be applied, and the degradation where it is another than was asked for."""
    lacking: Optional[str] = None  # noqa: UP045 - read by Python 3.9 on compute nodes
    if request.communication_cpus == 0 or not (_threads(request) or request.communication_cpus):
        return request.policy, ()
    if request.policy == "sibling":
        lacking = _no_siblings(shares, request)
    elif request.policy == "nic" and _card_domain(topology, request) is None:
        lacking = _no_card(topology, request)
    if lacking is None:
        return request.policy, ()
    if not request.degrade:
        raise PlacementError(f'{lacking}; take another policy, or allow "last" in its place by on_shortage = "degrade"')
    return "last", (f'policy "last" in place of "{request.policy}": {lacking}',)


def _no_siblings(shares: Sequence[Sequence[Unit]], request: Request) -> Optional[str]:  # noqa: UP045
    if request.smt:
        return 'policy "sibling" needs hardware threads that do not compute, and smt = true computes on all of them'
    wanted = request.communication_cpus or 1
    idle = [sum(len(unit.cpus) - 1 for unit in share) for share in shares]
    least = min(range(len(shares)), key=lambda rank: idle[rank])
    if idle[least] >= wanted:
        return None
    return (
        f'policy "sibling" needs {wanted} idle hardware threads beside the compute cores of each rank, and local rank '
        f"{least} has {idle[least]} on {len(shares[least])} cores"
    )


def _card_domain(topology: Topology, request: Request) -> Optional[int]:  # noqa: UP045
    return next(
        (
            card.numa
            for card in topology.cards
            if card.numa is not None and (request.card is None or card.name == request.card)
        ),
        None,
    )


def _no_card(topology: Topology, request: Request) -> str:
    known = ", ".join(
        f"{card.name} ({'domain not told' if card.numa is None else f'domain {card.numa}'})" for card in topology.cards
    )
    card = "a network card" if request.card is None else f"the network card {request.card!r}"
    return f'policy "nic" needs the NUMA domain of {card}, which is not known; known cards: {known or "none"}'


def _part(topology: Topology, rank: int, share: Sequence[Unit], request: Request, policy: str) -> _Part:
    """What the rank keeps off computing; raises ``PlacementError`` where too little would be left."""
    near = _card_domain(topology, request) if policy == "nic" else None
    line = policies.order(share, policy, None if near is None else lambda numa: distance(topology, numa, near))
    communication = _kept(share, line, request, policy)
    loader = policies.loaders(share, communication, request.loader_cpus, smt=request.smt)
    if loader.missing and request.communication_cpus is None:
        communication = Cpus()  # nobody asked for these by number
        loader = policies.loaders(share, communication, request.loader_cpus, smt=request.smt)
    degraded = []
    cpus = sum(len(unit.cpus) for unit in share)
    if communication.missing or loader.missing:
        wanted = (0 if policy == "none" else request.communication_cpus or 0) + request.loader_cpus
        said = " and ".join(
            f"{number} {purpose} CPUs"
            for number, purpose in (
                (request.communication_cpus if policy != "none" else 0, "communication"),
                (request.loader_cpus, "loader"),
            )
            if number
        )
        if not request.degrade:
            raise PlacementError(
                f"{said} of {cpus} CPUs per rank leave none to compute on (local rank {rank}); "
                f"ask for at least {wanted + 1} CPUs per rank or for fewer communication CPUs"
                + (" or loader CPUs" if request.loader_cpus else "")
            )
        degraded.append(_fewer(rank, cpus, said, communication, loader))
    return _Part(tuple(share), communication, loader, tuple(degraded))


def _kept(share: Sequence[Unit], line: Sequence[Unit], request: Request, policy: str) -> Cpus:
    wanted, threads = request.communication_cpus, request.threads
    if policy == "none" or wanted == 0:
        return Cpus()
    if policy == "sibling":
        idle = sum(len(unit.cpus) - 1 for unit in share)
        return policies.beside(share, min(_threads(request), idle) if wanted is None else wanted)
    if wanted is None:
        return policies.as_many_as_pay(line, threads, smt=request.smt)
    return policies.so_many(line, threads, wanted, smt=request.smt)


def _fewer(rank: int, cpus: int, said: str, communication: Cpus, loader: Cpus) -> str:
    if cpus == 1:
        return f"local rank {rank} has one CPU for everything: {said} were asked for, and it has to compute there too"
    return (
        f"local rank {rank} has {cpus} CPUs: {said} were asked for, {communication.count} are kept for communication "
        f"and {loader.count} for loading"
    )


def _ranks(parts: Sequence[_Part], request: Request) -> list[RankPlacement]:
    """With as many compute CPUs each as the rank has that has fewest: a faster rank only waits."""
    computing = [part.compute(smt=request.smt) for part in parts]
    count = min(len(line) for line in computing)
    lines = list(zip(parts, computing))  # noqa: B905 - of one length, and strict= is not in Python 3.9
    return [_rank(rank, part, line, count, request) for rank, (part, line) in enumerate(lines)]


def _rank(rank: int, part: _Part, line: list[tuple[Unit, int]], count: int, request: Request) -> RankPlacement:
    numa = {cpu: unit.numa for unit in part.share for cpu in unit.cpus}
    kept = _trimmed(line, count, {numa[cpu] for cpu in (*part.communication.firsts, *part.communication.others)})
    return RankPlacement(
        local_rank=rank,
        compute=tuple(cpu for _, cpu in kept),
        communication=policies.assign(part.communication, request.threads),
        loader=tuple(cpu for unit in part.share for cpu in unit.cpus if cpu in set(part.loader.others)),
        numa=tuple(dict.fromkeys(unit.numa for unit, _ in kept)),
        degraded=part.degraded,
    )


def _trimmed(line: list[tuple[Unit, int]], count: int, communicating: set[int]) -> list[tuple[Unit, int]]:
    """``count`` of the compute CPUs: first go those of domains that the rank's communication is not in."""
    sizes: dict[int, int] = {}
    first: dict[int, int] = {}
    for at, (unit, _) in enumerate(line):
        sizes[unit.numa] = sizes.get(unit.numa, 0) + 1
        first.setdefault(unit.numa, at)
    stay = {at for numa, at in first.items() if numa in communicating}
    go = sorted(
        range(len(line)),
        key=lambda at: (at in stay, line[at][0].numa in communicating, sizes[line[at][0].numa], -at),
    )[: len(line) - count]
    return [one for at, one in enumerate(line) if at not in set(go)]


def _with_memory(
    topology: Topology, ranks: Sequence[RankPlacement], wanted: str
) -> tuple[list[RankPlacement], list[str]]:
    """The ranks with their memory, and what is to be said of it, each sentence once."""
    found = [(rank, *memory(topology, rank.numa, wanted)) for rank in ranks]
    told = dict.fromkeys(remark for _, _, remark in found if remark)
    return [replace(rank, memory=policy) for rank, policy, _ in found], list(told)


def _threads(request: Request) -> int:
    return sum(getattr(request.threads, role) for role in ROLES)
