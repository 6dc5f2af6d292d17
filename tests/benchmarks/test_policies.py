"""Which policies a machine can tell apart, and which the benchmark names as one and the same or not to be had."""

from __future__ import annotations

import re
from functools import partial

from benchmarks.side_by_side.arms import Work
from benchmarks.side_by_side.policies import Sweep, candidates, name_of, sweep
from lockstep_slurm.placement import Card, Core, NumaDomain, Topology, plan


def machine(*, sockets: int, cores: int, threads: int, card: int | None = None) -> Topology:
    """``cores`` on each socket; the CPUs numbered hardware thread by hardware thread, as Linux mostly does."""
    total = sockets * cores
    return Topology(
        cores=tuple(
            Core(tuple(number + total * thread for thread in range(threads)), number // cores, number // cores, 0)
            for number in range(total)
        ),
        numa=tuple(NumaDomain(number, 1 << 30) for number in range(sockets)),
        cards=() if card is None else (Card("eth0", card),),
    )


def swept(topology: Topology, ranks: int) -> Sweep:
    """The sweep of a whole machine shared out evenly."""
    cpus = len(topology.cpus) // ranks
    return sweep(Work("small-cnn", 32, ranks, cpus), partial(plan, topology, topology.cpus))


def test_one_core_a_rank_leaves_nothing_to_tell_apart() -> None:
    found = swept(machine(sockets=1, cores=2, threads=1), 2)
    assert found.variants == ()
    assert any(note.startswith("the default and policy=first") and "one and the same" in note for note in found.notes)
    assert any("communication_cpus=1" in note and "cannot be had here" in note for note in found.notes)


def test_two_cores_of_one_rank_tell_first_from_last_but_not_nic_from_last() -> None:
    found = swept(machine(sockets=1, cores=2, threads=1, card=0), 1)
    names = {name_of(one) for one in found.variants}
    assert names == {"threads=cpu", "communication_cpus=1", "policy=first with communication_cpus=1"}
    assert any("communication_cpus=1 and" in note and "policy=nic" in note for note in found.notes)
    assert any("policy=sibling with communication_cpus=1" in note and "cannot be had" in note for note in found.notes)


def test_a_machine_whose_card_is_nowhere_says_so() -> None:
    found = swept(machine(sockets=2, cores=2, threads=1), 2)
    assert any(
        note.startswith("policy=nic") and "cannot be had here" in note and "card" in note for note in found.notes
    )


def test_a_large_machine_tells_all_policies_apart() -> None:
    found = swept(machine(sockets=2, cores=8, threads=2, card=1), 2)
    chosen = {dict(one).get("policy", "last") for one in found.variants if "threads" not in dict(one)}
    assert {"first", "sibling", "none"} <= chosen


def test_every_candidate_is_the_default_or_measured_or_named() -> None:
    for topology in (machine(sockets=1, cores=2, threads=1), machine(sockets=2, cores=8, threads=2, card=1)):
        for ranks in (1, 2):
            found = swept(topology, ranks)
            named = set(re.findall(r"the default|[a-z_]+=\w+(?: with [a-z_]+=\w+)*", "\n".join(found.notes)))
            named |= {name_of(one) for one in found.variants}
            assert {name_of(one) for one in candidates()} - {"the default"} <= named


def test_an_arm_sets_what_its_name_says() -> None:
    found = swept(machine(sockets=1, cores=2, threads=1), 1)
    assert found.arms()["lockstep, policy=first with communication_cpus=1"] == {
        "placement.policy": "first",
        "placement.communication_cpus": "1",
    }
