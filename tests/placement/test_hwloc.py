"""hwloc's XML: every machine comes back from it, whatever the version left out; what is not a machine is refused."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.placement import Card, Core, NumaDomain, Topology, TopologyError, from_xml
from support.machine_xml import xml_of
from support.topologies import topologies

MACHINES = Path(__file__).parent / "machines"
GIB = 1 << 30
PIECES = [
    '<object type="PU" os_index="0"/>', '<object type="PU" os_index="1" cpuset="0x2" complete_nodeset="0x6"/>',
    '<object type="NUMANode" os_index="1" cpuset="0x0"/>', '<object type="NUMANode" os_index="0"><object/></object>',
    '<object type="Core"><object type="PU" os_index="2"/></object>', '<object type="OSDev" osdev_type="2" name="e"/>',
    '<distances nbobjs="1" relative_depth="x"><latency value="inf"/></distances>', '<latency value="1"/>',
    '<distances2 type="NUMANode" indexing="os" kind="5"><indexes>0 1</indexes></distances2>',
    '<distances2 type="NUMANode" indexing="os" kind="5"><u64values>1 1 1 1</u64values></distances2>',
    '<distances2 kind="-"/>', '<u64values>1</u64values>', '<object type="Machine"/>', '<object type="MemCache"/>',
    "&amp;",
    '<object type="Cache" depth="2"><object type="Proc" os_index="3"/></object>',
]  # fmt: skip


def told(topology: Topology, version: int) -> Topology:
    """What hwloc's XML can tell of a machine: no card of memory alone; in 1, distances only of nodes with cores."""
    used = {core.numa for core in topology.cores}
    cards = tuple(card if card.numa in used else Card(card.name, None) for card in topology.cards)
    numa = topology.numa
    if version == 1 and len(used) < len(numa):
        numa = tuple(replace(domain, distances=()) for domain in numa)
    return replace(topology, cards=cards, numa=numa, name="n<&1")


@pytest.mark.parametrize("version", [1, 2, 3])
@given(topology=topologies())
def test_every_machine_comes_back(version: int, topology: Topology) -> None:
    expected = told(topology, version)
    assert from_xml(xml_of(expected, version)) == expected


@pytest.mark.parametrize("file", ["two-sockets-four-domains.xml", "two-sockets-four-domains-hwloc1.xml"])
def test_an_export_of_hwloc_itself(file: str) -> None:
    """Made by hwloc 2.9, with ``--export-xml-flags 1`` for the second.

    lstopo -i 'pack:2 group:2 [numa(memory=1GiB)] l3:1 core:2 pu:2(indexes=pack:group:core)' --of xml
    """
    topology = from_xml((MACHINES / file).read_text())
    places = [(socket, group, core) for socket in (0, 1) for group in (0, 1) for core in (0, 1)]
    assert topology.cores == tuple(
        Core((first, first + 8), socket, domain, domain)
        for socket, group, core in places
        for first, domain in [(socket + 2 * group + 4 * core, 2 * socket + group)]
    )
    assert topology.numa == tuple(NumaDomain(number, GIB) for number in range(4))
    assert (topology.cards, topology.offline) == ((), ())


def machine(*objects: str, root: str = "", version: str = "2.0", after: str = "") -> str:
    """XML of a machine with ``objects`` in it."""
    return f'<topology version="{version}"><object type="Machine" {root}>{"".join(objects)}</object>{after}</topology>'


def part(kind: str, *inside: str, more: str = "") -> str:
    return f'<object type="{kind}" {more}>{"".join(inside)}</object>'


def pus(*numbers: int) -> str:
    return "".join(f'<object type="PU" os_index="{number}"/>' for number in numbers)


def node(number: int, more: str = "") -> str:
    return part("NUMANode", more=f'os_index="{number}" local_memory="{GIB}" {more}')


def test_a_machine_of_nothing_but_cpus() -> None:
    assert from_xml(machine(pus(3, 1))) == Topology((Core((3,), 0, 0, 0), Core((1,), 0, 0, 0)), (NumaDomain(0, 0),))


def test_hardware_threads_of_one_l1_cache_are_a_core_where_no_core_is_told() -> None:
    topology = from_xml(machine(part("L1Cache", part("L1iCache", pus(0)), pus(4)), part("L1Cache", pus(1, 5))))
    assert [core.cpus for core in topology.cores] == [(0, 4), (1, 5)]


def test_a_shared_l2_is_the_last_cache_where_there_is_no_l3() -> None:
    tiles = [part("L2Cache", part("Core", pus(cpu)), part("Core", pus(cpu + 1))) for cpu in (0, 2)]
    assert [core.l3 for core in from_xml(machine(*tiles)).cores] == [0, 0, 1, 1]
    private = [part("L2Cache", part("Core", pus(cpu))) for cpu in (0, 2)]
    assert [core.l3 for core in from_xml(machine(*private)).cores] == [0, 0]


def test_cores_without_the_l3_of_their_neighbours_are_a_group_of_their_own() -> None:
    fast = part("L3Cache", part("Core", pus(0, 1)), part("Core", pus(2, 3)))
    slow = part("L2Cache", part("Core", pus(4)), part("Core", pus(5)))
    assert [core.l3 for core in from_xml(machine(part("Package", fast, slow))).cores] == [0, 0, 1, 1]


def test_books_drawers_dies_and_groups_are_no_sockets() -> None:
    book = part("Group", part("Package", part("Die", part("Core", pus(0))), part("Die", part("Core", pus(1)))))
    other = part("Group", part("Group", part("Package", part("Core", pus(2)))))
    assert [core.socket for core in from_xml(machine(book, other)).cores] == [0, 0, 1]


def test_memory_near_cores_is_not_the_domain_of_these_cores() -> None:
    """Knights Landing in flat mode, and a node of fast memory that is nearer than the one Linux counts the CPUs to."""
    flat = from_xml(machine(part("Package", node(1, 'subtype="MCDRAM"'), node(0), part("Core", pus(0)))))
    assert (flat.cores[0].numa, [domain.number for domain in flat.numa]) == (0, [0, 1])
    near = part("Group", node(2, 'subtype="HBM"'), part("Core", pus(1)))
    assert from_xml(machine(part("Package", node(3), near))).cores[0].numa == 3
    assert from_xml(machine(part("Package", part("Core", pus(1)), node(2, 'subtype="HBM"')))).cores[0].numa == 2


def test_memory_behind_a_memory_side_cache_belongs_to_the_cores_beside_it() -> None:
    groups = [part("Group", part("MemCache", node(n)), part("Core", pus(n))) for n in (0, 1)]
    assert [core.numa for core in from_xml(machine(*groups)).cores] == [0, 1]


def test_memory_alone_in_hwloc_1_has_an_empty_cpuset() -> None:
    gpu = '<object type="NUMANode" os_index="252" cpuset="0x0" local_memory="5"/>'
    ours = part("NUMANode", part("Socket", part("Core", pus(0, 1))), more='os_index="8" cpuset="0x3"')
    topology = from_xml(machine(gpu, ours, version="1.0"))
    assert topology == Topology((Core((0, 1), 0, 8, 0),), (NumaDomain(8, 0), NumaDomain(252, 5)))


def test_a_node_that_was_withheld_keeps_its_number() -> None:
    core = part("Core", '<object type="PU" os_index="4" complete_nodeset="0x4"/>')
    topology = from_xml(machine(core, part("Group", node(1), part("Core", pus(5)))))
    assert [core.numa for core in topology.cores] == [2, 1]
    assert topology.numa == (NumaDomain(1, GIB), NumaDomain(2, 0))


def test_cpus_that_are_off_or_withheld_have_no_core() -> None:
    cores = [part("Core", pus(cpu, cpu + 4)) for cpu in range(4)]
    sets = 'complete_cpuset="0x3ff" online_cpuset="0x000000fe" allowed_cpuset="0x0000007f"'
    topology = from_xml(machine(*cores, root=sets, version="1.0"))
    assert [core.cpus for core in topology.cores] == [(4,), (1, 5), (2, 6), (3,)]
    assert topology.offline == (0, 7, 8, 9)


@pytest.mark.parametrize("version", ["1.0", "2.0", "3.0"])
def test_cards_are_where_their_bridge_hangs(version: str) -> None:
    network, fabrics, other = ("16", "32", "4") if version == "3.0" else ("2", "3", "0")

    def device(name: str, kind: str) -> str:
        return part("Bridge", part("PCIDev", part("OSDev", more=f'name="{name}" osdev_type="{kind}"')))

    def domain(number: int, *devices: str) -> str:
        return part("Group", node(number), part("Core", pus(number)), *devices)

    first = part("Package", domain(0), domain(1, device("ib0", network), device("mlx5_0", fabrics)))
    second = part("Package", domain(2), domain(3), device("eth1", network), device("sda", other))
    assert from_xml(machine(first, second, device("eth0", network), version=version)).cards == (
        Card("eth0", None), Card("eth1", None), Card("ib0", 1), Card("mlx5_0", 1),
    )  # fmt: skip
    assert from_xml(machine(domain(7), device("eth0", network), version=version)).cards == (Card("eth0", 7),)


def test_large_sets_leave_their_empty_words_out() -> None:
    sets = 'complete_cpuset="0x1,,,0x80000001,0x0" allowed_cpuset="0xf...f"'
    assert from_xml(machine(pus(32, 128), root=sets)).offline == (63,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not XML: no element found"),
        ("pack:2 core:4", "not XML: syntax error: line 1, column 0"),
        ("<topology><object type='Machine'>", "not XML: no element found"),
        ("<topology>\ud800</topology>", "not XML"),
        ("<!DOCTYPE html><html/>", "starts with <html>"),
        ("<topologydiff/>", "difference between two machines"),
        ('<topology version="4.0"/>', 'version "4.0"'),
        ("<topology/>", "no PU"),
        (machine(part("Core")), "no PU (hardware thread) among the 2 objects"),
        (machine(pus(0), pus(0)), "CPU 0 is described twice"),
        (machine(part("PU")), "the PU in line 1: os_index is missing"),
        (machine(part("PU", more='os_index="-1"')), 'os_index "-1" is not a number'),
        (machine(part("PU", more='os_index="99999999999"')), 'os_index "99999999999" is not a number'),
        (machine(part("PU", more='os_index="\u0661"')), "is not a number"),
        (machine(node(0, 'local_memory="no"').replace(f'local_memory="{GIB}"', ""), pus(0)), 'local_memory "no"'),
        (machine(pus(0), root='allowed_cpuset="zebra"'), 'allowed_cpuset "zebra" is not a set'),
        (machine(pus(0), root='allowed_cpuset="-0x1"'), 'allowed_cpuset "-0x1" is not a set'),
        (machine(pus(0), root=f'complete_cpuset="{"," * 5000}"'), "complete_cpuset holds numbers above 65535"),
        (machine(pus(0), root=f'complete_cpuset="0x{"f" * 50000}"'), "is not a set of numbers from 0 to 65535"),
        (machine(pus(0, 1), root='allowed_cpuset="0x4"'), "none of the 2 CPUs is online and allowed"),
        (f"<topology>{2 * part('Machine', pus(0))}</topology>", "2 machines (the second: the Machine in line 1)"),
    ],
    ids=range(21),
)  # fmt: skip
def test_what_is_no_machine_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(TopologyError) as refused:
        from_xml(text)
    assert words in str(refused.value)


def test_entities_are_refused_and_never_expanded() -> None:
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 20))
    bomb = f'<!DOCTYPE topology [<!ENTITY l0 "lol">{lines}]><topology>&l19;</topology>'
    with pytest.raises(TopologyError, match='declares the entity "l0"'):
        from_xml(bomb)
    with pytest.raises(TopologyError, match='declares the entity "file"'):
        from_xml('<!DOCTYPE topology [<!ENTITY file SYSTEM "file:///etc/passwd">]><topology>&file;</topology>')


def test_a_tree_of_any_depth_is_read() -> None:
    deep = 20_000
    assert from_xml(machine('<object type="Group">' * deep, pus(0), "</object>" * deep)).cpus == (0,)


@given(text=st.text() | st.builds(machine, *[st.sampled_from(PIECES)] * 4))
def test_whatever_the_text_the_answer_is_a_machine_or_a_sentence(text: str) -> None:
    try:
        topology = from_xml(text)
    except TopologyError as refused:
        assert str(refused)
    else:
        assert topology.cpus


def test_many_cpus_are_read_at_once() -> None:
    """512 CPUs, each object with the six sets that hwloc 1 writes; 0.5 s is the whole of `lockstep plan`."""
    zeros = f'cpuset="0x1{",0x00000000" * 15}" nodeset="0x1" complete_nodeset="0x1"'

    def core(number: int) -> str:
        threads = [part("PU", more=f'os_index="{2 * number + thread}" {zeros}') for thread in (0, 1)]
        return part("L2Cache", part("L1Cache", part("Core", *threads, more=zeros), more=zeros), more=zeros)

    text = machine(*(part("Package", *(core(64 * s + n) for n in range(64)), more=zeros) for s in range(4)))
    times = []
    for _ in range(5):
        start = time.process_time()
        assert len(from_xml(text).cpus) == 512
        times.append(time.process_time() - start)
    assert min(times) < 0.1
