"""Where a rank keeps computing when communication takes almost all of it."""

from __future__ import annotations

from lockstep_slurm.placement import Core, NumaDomain, Request, Topology, plan


def test_the_last_core_that_computes_is_in_the_domain_of_most_communication() -> None:
    # As on a machine of hwloc's own tests: three domains of two cores, and two ranks with three cores each.
    machine = Topology(
        tuple(Core((cpu,), cpu // 2, cpu // 2, cpu // 2) for cpu in range(6)),
        tuple(NumaDomain(number, 1 << 30) for number in range(3)),
    )
    for policy in ("last", "first"):
        for rank in plan(machine, machine.cpus, Request(ranks=2, communication_cpus=2, policy=policy)).ranks:
            (compute,) = rank.compute
            assert compute // 2 in {cpu // 2 for cpu in rank.communication.cpus}, rank
