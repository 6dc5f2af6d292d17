"""From the CPUs that a node really granted to a set of CPUs for each rank on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

# Below this, a CPU taken from computing costs a rank more than an undisturbed communication thread gives back.
SPARE_FROM = 4


class PlacementError(ValueError):
    """The CPUs do not suffice for what was asked; the message names both numbers and what to change."""


@dataclass(frozen=True)
class RankPlacement:
    """The CPUs of one rank, as Linux CPU ids."""

    compute: tuple[int, ...]
    """Where the rank's process and its OpenMP threads run: its affinity mask."""
    communication: tuple[int, ...] = ()
    """Where communication threads run; empty: they share the compute CPUs."""
    degraded: Optional[str] = None  # noqa: UP045 - read by Python 3.9 on compute nodes
    """What is not as it should be, in one plain sentence, or None."""


def plan(
    cpus: Sequence[int],
    ranks: int,
    communication: Optional[int] = None,  # noqa: UP045
    *,
    share: bool = False,
) -> tuple[RankPlacement, ...]:
    """Divides ``cpus`` (Linux ids, granted) among ``ranks`` local ranks: equal, disjoint, in the order of the ids.

    ``communication`` is the number of CPUs that each rank keeps for communication threads, taken from the end of its
    share; None means one where a share has at least ``SPARE_FROM`` CPUs. With ``share`` too few CPUs for the ranks are
    a named degradation (ranks share CPUs) and not an error. CPUs that cannot be divided equally stay idle, since a
    rank that is faster than the others only waits for them.

    Raises ``PlacementError`` for no ranks, no CPUs, a CPU named twice, or fewer CPUs than the request needs.
    """
    if ranks < 1:
        raise PlacementError(f"{ranks} ranks were asked for; a node needs at least 1")
    granted = sorted(cpus)
    if len(set(granted)) != len(granted):
        raise PlacementError(f"a CPU is named twice in {granted}")
    if not granted:
        raise PlacementError("no CPU was granted; ask for at least one per rank")
    each = len(granted) // ranks
    if each == 0:
        if not share:
            raise PlacementError(
                f"{ranks} ranks on {len(granted)} CPUs: each rank needs one of its own; "
                f"ask for at least {ranks} CPUs or for fewer ranks"
            )
        return tuple(
            RankPlacement(
                (granted[rank % len(granted)],), (), f"{ranks} ranks share {len(granted)} CPUs: each waits for others"
            )
            for rank in range(ranks)
        )
    spare = (1 if each >= SPARE_FROM else 0) if communication is None else communication
    if spare >= each:
        raise PlacementError(
            f"{spare} communication CPUs of {each} CPUs per rank leave none to compute on; "
            f"ask for at least {spare + 1} CPUs per rank or for fewer communication CPUs"
        )
    shares = [granted[rank * each : (rank + 1) * each] for rank in range(ranks)]
    return tuple(RankPlacement(tuple(own[: each - spare]), tuple(own[each - spare :])) for own in shares)
