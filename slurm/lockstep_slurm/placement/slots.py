"""Where the plan lets each thread of a rank run, by its role."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lockstep_slurm.placement.observation import COMPUTE, LOADER, MAIN, Thread
from lockstep_slurm.placement.placement import RankPlacement
from lockstep_slurm.placement.request import ROLES

ALL, WITHIN, ONE, ONE_OR_ALL = "all", "within", "one", "one or all"


@dataclass(frozen=True)
class Slot:
    """What one thread may have."""

    planned: tuple[int, ...]
    """The CPUs of its role, sorted."""
    mode: str
    """``ALL`` of them, any ``WITHIN`` them, ``ONE`` of them that no other thread of the role has, or either."""
    free: frozenset[int] = frozenset()
    """For ``ONE``: those that this thread may have."""

    def takes(self, cpus: Collection[int]) -> bool:
        """Whether a mask is as planned."""
        mask = frozenset(cpus)
        if self.mode in (ONE, ONE_OR_ALL) and len(mask) == 1 and mask <= self.free:
            return True
        if self.mode == WITHIN:
            return bool(mask) and mask <= frozenset(self.planned)
        return self.mode in (ALL, ONE_OR_ALL) and mask == frozenset(self.planned)


def slots(plan: RankPlacement, threads: Sequence[Thread], *, one_by_one: bool) -> list[Slot]:
    """One for each thread, in their order; ``one_by_one``: OpenMP binds each compute thread to a CPU of its own.

    Where threads have one CPU each, it is nobody's business which of them has which: the first that has a CPU may have
    it, and what is left over is for the others.
    """
    families: dict[str, list[int]] = {}
    for index, thread in enumerate(threads):
        families.setdefault(COMPUTE if thread.role == MAIN else thread.role, []).append(index)
    found: dict[int, Slot] = {}
    for role, members in families.items():
        planned, mode = _rule(plan, role, len(members), one_by_one=one_by_one)
        free, kept = set(planned), {}
        for index in members:
            mask = threads[index].cpus
            if len(mask) == 1 and mask[0] in free:
                free.discard(mask[0])
                kept[index] = frozenset(mask)
        for index in members:
            found[index] = Slot(planned, mode, kept.get(index, frozenset(free)))
    return [found[index] for index in range(len(threads))]


def _rule(plan: RankPlacement, role: str, members: int, *, one_by_one: bool) -> tuple[tuple[int, ...], str]:
    if role == COMPUTE:
        return tuple(sorted(plan.compute)), ONE if one_by_one else ALL
    if role in ROLES:
        own = tuple(sorted(set(getattr(plan.communication, role))))
        if not own:
            return tuple(sorted(plan.compute)), WITHIN
        if len(own) == 1:
            return own, ALL
        return own, ONE_OR_ALL if members <= len(own) else WITHIN
    if role == LOADER:
        return tuple(sorted(plan.loader or plan.compute)), WITHIN
    return tuple(sorted(plan.cpus)), WITHIN
