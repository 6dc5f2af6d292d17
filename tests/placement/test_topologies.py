"""The generated machines are machines: the properties that other tests take for granted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from lockstep_slurm.placement import Topology
from support.topologies import in_linux_order, relabelled, topologies


@given(topology=topologies())
def test_every_cpu_has_one_place_and_every_number_a_meaning(topology: Topology) -> None:
    cpus = topology.cpus
    assert cpus
    assert len(set(cpus) | set(topology.offline)) == len(cpus) + len(topology.offline)
    assert all(1 <= len(core.cpus) <= 8 for core in topology.cores)
    for numbers in ([core.socket for core in topology.cores], [core.l3 for core in topology.cores]):
        assert list(dict.fromkeys(numbers)) == list(range(max(numbers) + 1)), "in the tree's order, from 0"
        assert numbers == sorted(numbers)
    domains = [domain.number for domain in topology.numa]
    assert domains == sorted(set(domains))
    assert {core.numa for core in topology.cores} <= set(domains)
    assert {card.numa for card in topology.cards} <= {None, *domains}
    assert all(len(domain.distances) in (0, len(domains)) for domain in topology.numa)
    assert any(domain.memory for domain in topology.numa)
    assert Topology.parse(topology.document()) == topology


@given(topology=topologies(), seed=st.randoms())
def test_relabelling_keeps_the_tree(topology: Topology, seed: random.Random) -> None:
    every = [*topology.cpus, *topology.offline]
    other = dict(zip(every, seed.sample(range(len(every) * 2), len(every)), strict=True))
    back = {new: old for old, new in other.items()}
    assert relabelled(relabelled(topology, other), back) == relabelled(topology, lambda cpu: cpu)


@given(topology=topologies())
def test_linux_order_is_the_same_machine(topology: Topology) -> None:
    ordered = in_linux_order(topology)
    assert {frozenset(core.cpus) for core in ordered.cores} == {frozenset(core.cpus) for core in topology.cores}
    assert in_linux_order(ordered) == ordered
    assert ordered.cores[0].cpus[0] == min(topology.cpus)


def _socket(machine: Topology, cpu: int) -> int | None:
    return next((core.socket for core in machine.cores if cpu in core.cpus), None)


@pytest.mark.parametrize(
    "kind",
    [
        lambda machine: {domain.number for domain in machine.numa} > {core.numa for core in machine.cores},
        lambda machine: any(domain.memory == 0 for domain in machine.numa),
        lambda machine: {(core.socket, core.numa) for core in machine.cores} == {(0, 0), (1, 0)},
        lambda machine: len({(core.l3, core.numa) for core in machine.cores}) > machine.cores[-1].l3 + 1,
        lambda machine: machine.threads_per_core == 8,
        lambda machine: len({len(core.cpus) for core in machine.cores}) > 1 and not machine.offline,
        lambda machine: len(machine.offline) > 4,
        lambda machine: _socket(machine, 0) == 0 and _socket(machine, 1) == 1,
        lambda machine: len({card.numa for card in machine.cards} - {None}) > 1,
    ],
    ids=[
        "a domain of memory alone", "a domain without memory", "one domain over two sockets",
        "a cache over two domains", "eight threads", "unlike cores", "many off", "interleaved", "cards apart",
    ],
)  # fmt: skip
def test_each_kind_of_machine_is_met(kind: Callable[[Topology], bool]) -> None:
    """Each kind is some 4 % of the machines or more: none of them is met or missed by the luck of the draw."""
    find(topologies(), kind, settings=settings(max_examples=3000, derandomize=True, database=None))
