"""What a rank gets of cores that are unlike: as many as it takes to have the CPUs that it may have."""

from __future__ import annotations

import pytest

from lockstep_slurm.placement import Core, NumaDomain, Placement, Request, Topology, plan

HYBRID = Topology(
    tuple(Core((cpu, cpu + 1) if cpu < 16 else (cpu,), 0, 0, 0) for cpu in (*range(0, 16, 2), *range(16, 32))),
    (NumaDomain(0, 1 << 30),),
)
"""8 cores of 2 hardware threads, and 16 of one: 32 CPUs."""
PAIRS = Topology(tuple(Core((core, core + 8), 0, 0, 0) for core in range(8)), (NumaDomain(0, 1 << 30),))


def cores_used(topology: Topology, placed: Placement) -> int:
    used = {cpu for rank in placed.ranks for cpu in rank.cpus}
    return sum(not used.isdisjoint(core.cpus) for core in topology.cores)


@pytest.mark.parametrize(
    ("topology", "granted", "cap", "cores"),
    [
        # Counted by the larger cores, 16 of these were enough for 32 CPUs: 8 cores with 24, and no word of the others.
        (HYBRID, HYBRID.cpus, 32, 24),
        (HYBRID, HYBRID.cpus, 20, 18),
        # A cpuset of 0-8: 0 and 8 are one core's. 4 cores were enough for 8 CPUs, and had 5.
        (PAIRS, tuple(range(9)), 8, 8),
        # Like cores: as many as hold the cap, rounded up.
        (PAIRS, PAIRS.cpus, 8, 4),
        (PAIRS, PAIRS.cpus, 5, 3),
        # A single thread among pairs costs no more than a core.
        (PAIRS, PAIRS.cpus[:-1], 8, 5),
    ],
)
@pytest.mark.parametrize("smt", [False, True])
def test_a_rank_has_as_many_cores_as_hold_its_cpus(
    topology: Topology, granted: tuple[int, ...], cap: int, cores: int, *, smt: bool
) -> None:
    placed = plan(topology, granted, Request(1, policy="none", cpus_per_rank=cap, smt=smt))
    assert cores_used(topology, placed) == cores
    (rank,) = placed.ranks
    assert len(rank.compute) == (cap if smt else cores)


def test_all_of_a_hybrid_machine_has_a_use_with_communication_as_well() -> None:
    assert cores_used(HYBRID, plan(HYBRID, HYBRID.cpus, Request(1, cpus_per_rank=32))) == 24
