"""Which CPUs of one rank's share go to its communication threads and to the workers that load its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from lockstep_slurm.placement.distribute import Unit
from lockstep_slurm.placement.placement import Communication
from lockstep_slurm.placement.request import ROLES, Threads

CORES_TO_GIVE_UP_ONE = 4
"""From so many cores of a rank on, an undisturbed communication thread gives back more than its core's computing."""
CORES_TO_GIVE_EACH_ITS_OWN = 16
"""From so many on, each communication thread has a CPU to itself."""

Distance = Callable[[int], int]
"""From a NUMA domain to the network card's, in the firmware's units."""


@dataclass(frozen=True)
class Cpus:
    """What a rank keeps off computing for one purpose."""

    firsts: tuple[int, ...] = ()
    """First hardware threads of cores given up, in tree order."""
    others: tuple[int, ...] = ()
    """Further hardware threads of these, and siblings of cores that compute, in the order of the policy."""
    cores: frozenset[int] = frozenset()
    """Places of the cores given up."""
    missing: int = 0
    """CPUs that were asked for by number and are not there."""

    @property
    def count(self) -> int:
        """How many CPUs there are in all."""
        return len(self.firsts) + len(self.others)


def order(share: Sequence[Unit], policy: str, distance: Optional[Distance] = None) -> list[Unit]:  # noqa: UP045
    """A share's cores in the order in which they are given up; the last one never is.

    Of a rank that spans NUMA domains, the domain with most of its cores gives first (with ``distance``: the one
    nearest the card), and each keeps a core for computing as long as that is possible: a communication thread whose
    rank computes elsewhere would be in the wrong domain. Where it is not, the domain that gives first
    computes to the end.
    """
    line = list(share) if policy == "first" else list(share)[::-1]
    size = Counter(unit.numa for unit in share)
    if distance is not None:
        line.sort(key=lambda unit: distance(unit.numa))
    elif len(size) > 1:
        largest = max(line, key=lambda unit: size[unit.numa]).numa
        line.sort(key=lambda unit: unit.numa != largest)
    kept = {unit.numa: unit.place for unit in line}.values()
    return [unit for unit in line if unit.place not in kept] + [unit for unit in line[::-1] if unit.place in kept]


def siblings(cores: Sequence[Unit]) -> list[int]:
    """The further hardware threads of cores: all second ones, in the cores' order, then all third ones, ..."""
    most = max((len(core.cpus) for core in cores), default=0)
    return [core.cpus[level] for level in range(1, most) for core in cores if level < len(core.cpus)]


def as_many_as_pay(line: Sequence[Unit], threads: Threads, *, smt: bool) -> Cpus:
    """Communication CPUs where nobody gave a number; ``line`` is the share as ``order`` has it.

    Fewer than 4 cores: none is given up, idle siblings serve where there are any. 4 to 15: one core. 16 or more: a CPU
    for each thread on as few cores as that takes, with a core for each of oneCCL's workers, at most half of all.
    """
    total, workers = _total(threads), threads.ccl
    if len(line) < CORES_TO_GIVE_UP_ONE:
        return Cpus(others=tuple([] if smt else siblings(line)[:total]))
    limit = 1 if len(line) < CORES_TO_GIVE_EACH_ITS_OWN else len(line) // 2
    return _given_up(line, min(total, sum(len(unit.cpus) for unit in line[:limit])), workers, limit)


def so_many(line: Sequence[Unit], threads: Threads, wanted: int, *, smt: bool) -> Cpus:
    """Exactly ``wanted`` communication CPUs, on as few cores as possible; what is not there is ``missing``.

    One core at least computes. Where the cores do not suffice, siblings of those that compute serve, and below 4 cores
    idle siblings come first.
    """
    idle = [] if smt else siblings(line)
    if len(line) < CORES_TO_GIVE_UP_ONE and len(idle) >= wanted:
        return Cpus(others=tuple(idle[:wanted]))
    workers = max(0, min(threads.ccl, wanted - (_total(threads) - threads.ccl)))
    found = _given_up(line, wanted, workers, len(line) - 1)
    if found.count == wanted:
        return found
    more = siblings([unit for unit in line if unit.place not in found.cores])[: wanted - found.count]
    return Cpus(found.firsts, (*found.others, *more), found.cores, wanted - found.count - len(more))


def beside(share: Sequence[Unit], wanted: int) -> Cpus:
    """Communication CPUs on idle siblings, the first cores' first; nothing is given up."""
    found = siblings(share)[:wanted]
    return Cpus(others=tuple(found), missing=wanted - len(found))


def assign(cpus: Cpus, threads: Threads) -> Communication:
    """One CPU for each thread; where there are too few, the later ones (in the order of ``ROLES``) share the last.

    oneCCL's workers add up gradients, so they have first hardware threads as far as these go; the others mostly wait.
    """
    total = _total(threads)
    if not cpus.count or not total:
        return Communication()
    count = min(cpus.count, total)
    workers = max(0, min(threads.ccl, count - (total - threads.ccl), len(cpus.firsts)))
    cut = len(cpus.firsts) - workers
    rest = [*cpus.firsts[:cut], *cpus.others][: count - workers]
    line = [*rest, *cpus.firsts[cut:]]
    found: dict[str, tuple[int, ...]] = {}
    at = 0
    for role in ROLES:
        number = getattr(threads, role)
        found[role] = tuple(line[min(position, count - 1)] for position in range(at, at + number))
        at += number
    return Communication(**found)


def loaders(share: Sequence[Unit], taken: Cpus, wanted: int, *, smt: bool) -> Cpus:
    """``wanted`` CPUs for loader workers: idle siblings of the cores that compute, else cores of their own.

    ``taken`` is what communication has of the share. As few cores are given up as that takes, and one at least goes on
    computing, where each domain still has one if that is possible; the siblings are those of the last cores. Where all
    that does not suffice, hardware threads serve that would compute or that were kept quiet beside communication's.
    """
    own = order([unit for unit in share if unit.place not in taken.cores], "last")
    busy = {*taken.firsts, *taken.others}
    for given in range(len(own)):
        mine, computing = own[:given], own[given:]
        idle = [] if smt else siblings(computing)
        found = [cpu for cpu in (*(cpu for unit in mine for cpu in unit.cpus), *idle) if cpu not in busy]
        if given == len(own) - 1:
            quiet = (cpu for unit in share if unit.place in taken.cores for cpu in unit.cpus)
            found = list(dict.fromkeys(cpu for cpu in (*found, *siblings(computing), *quiet) if cpu not in busy))
        if len(found) >= wanted or given == len(own) - 1:
            used = frozenset(unit.place for unit in mine)
            return Cpus(others=tuple(found[:wanted]), cores=used, missing=max(0, wanted - len(found)))
    return Cpus(missing=wanted)


def _given_up(line: Sequence[Unit], cpus: int, workers: int, limit: int) -> Cpus:
    """The first cores of ``line`` that have ``cpus`` CPUs and a core for each of ``workers``, at most ``limit``."""
    chosen: list[Unit] = []
    held = 0
    while len(chosen) < limit and cpus and (held < cpus or len(chosen) < workers):
        chosen.append(line[len(chosen)])
        held += len(chosen[-1].cpus)
    firsts = [unit.cpus[0] for unit in sorted(chosen, key=lambda unit: unit.place)][:cpus]
    others = siblings(chosen)[: cpus - len(firsts)]
    return Cpus(tuple(firsts), tuple(others), frozenset(unit.place for unit in chosen))


def _total(threads: Threads) -> int:
    return sum(getattr(threads, role) for role in ROLES)
