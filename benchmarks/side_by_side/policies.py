"""Which of a spec's ways to place threads come to different placements on this machine, and which do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.side_by_side.arms import Work
from lockstep_slurm.placement import Placement, PlacementError, Request, request_of
from lockstep_slurm.placement.request import POLICIES

Settings = tuple[tuple[str, str], ...]
"""Keys of the spec's ``placement`` and their values, as ``--set`` takes them; empty: the defaults."""
DEFAULT: Settings = ()


@dataclass(frozen=True)
class Sweep:
    """What there is to measure for a case beside the default, and what needs no measuring."""

    variants: tuple[Settings, ...]
    """One of each placement that differs from the default's and from the others'."""
    notes: tuple[str, ...]
    """What could not be told apart or cannot be had on this machine, a plain sentence each."""

    def arms(self) -> dict[str, dict[str, str]]:
        """By an arm's name, what its spec sets."""
        return {f"lockstep, {name_of(one)}": {f"placement.{key}": value for key, value in one} for one in self.variants}


def candidates() -> list[Settings]:
    """Every policy with 0, 1 or as many communication CPUs as are set aside by default; then threads on a CPU each."""
    found: list[Settings] = []
    for cpus in ("auto", "0", "1"):
        for policy in POLICIES:
            settings = {"policy": policy, "communication_cpus": cpus}
            usual = {"policy": "last", "communication_cpus": "auto"}
            found.append(tuple((key, value) for key, value in settings.items() if value != usual[key]))
    return [*found, (("threads", "cpu"),), (("communication_cpus", "1"), ("threads", "cpu"))]


def sweep(work: Work, planned: Callable[[Request], Placement]) -> Sweep:
    """The candidates sorted by what ``planned``, which knows the machine, makes of them."""
    same: dict[object, list[Settings]] = {}
    impossible: dict[str, list[Settings]] = {}
    for one in candidates():
        # A number of CPUs is one for JSON, as the spec's own file has it.
        placement = {key: int(value) if value.isdecimal() else value for key, value in one}
        spec = {"placement": {**placement, "ranks_per_node": work.ranks, "cpus_per_rank": work.cpus}}
        try:
            plan = planned(request_of(spec, ranks=work.ranks))
        except PlacementError as error:
            impossible.setdefault(str(error), []).append(one)
            continue
        if plan.degraded:
            # The policy cannot be had, and another was taken: named by the plan itself.
            impossible.setdefault("; ".join(plan.degraded), []).append(one)
            continue
        same.setdefault(threads_of(plan, placement), []).append(one)
    notes = []
    for members in same.values():
        first, *others = members
        if others:
            notes.append(f"{name_of(first)} and {', '.join(map(name_of, others))} are one and the same placement here")
    notes += [f"{', '.join(map(name_of, members))} cannot be had here: {why}" for why, members in impossible.items()]
    return Sweep(tuple(members[0] for members in same.values() if DEFAULT not in members), tuple(notes))


def threads_of(plan: Placement, placement: Mapping[str, object]) -> object:
    """All that a placement settles: on which CPUs each thread may run, and where memory comes from, rank by rank."""
    alone = placement.get("threads") == "cpu"
    return tuple(
        (
            tuple((cpu,) if alone else rank.compute for cpu in rank.compute),
            rank.communication,
            rank.loader,
            rank.memory,
        )
        for rank in plan.ranks
    )


def name_of(settings: Settings) -> str:
    """As a person would say it."""
    return " with ".join(f"{key}={value}" for key, value in settings) or "the default"
