"""The kernel's files: every machine comes back from them, and a container that hides some still has a machine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockstep_slurm.placement import Card, Core, NumaDomain, Topology, TopologyError, from_sysfs, sysfs
from support.topologies import in_linux_order, topologies

GIB = 1 << 30


def lay(topology: Topology, root: Path) -> Path:
    """A /sys that tells of this machine as Linux does; the folder of a CPU that is off has no topology in it."""
    cpus = root / "devices/system/cpu"
    every = sorted([*topology.cpus, *topology.offline])
    put(cpus / "online", listed(topology.cpus))
    put(cpus / "present", listed(every))
    for cpu in topology.offline:
        put(cpus / f"cpu{cpu}/online", "0")
    for core in topology.cores:
        socket = [cpu for other in topology.cores if other.socket == core.socket for cpu in other.cpus]
        group = [cpu for other in topology.cores if other.l3 == core.l3 for cpu in other.cpus]
        for cpu in core.cpus:
            put(cpus / f"cpu{cpu}/topology/core_cpus_list", listed(core.cpus))
            put(cpus / f"cpu{cpu}/topology/package_cpus_list", listed(socket))
            put(cpus / f"cpu{cpu}/cache/index0/level", "1")
            put(cpus / f"cpu{cpu}/cache/index0/type", "Data")
            put(cpus / f"cpu{cpu}/cache/index0/shared_cpu_list", listed(core.cpus))
            put(cpus / f"cpu{cpu}/cache/index1/level", "3")
            put(cpus / f"cpu{cpu}/cache/index1/type", "Unified")
            put(cpus / f"cpu{cpu}/cache/index1/shared_cpu_list", listed(group))
    for domain in topology.numa:
        folder = root / f"devices/system/node/node{domain.number}"
        own = [cpu for core in topology.cores if core.numa == domain.number for cpu in core.cpus]
        put(folder / "cpulist", listed(own))
        put(folder / "meminfo", f"Node {domain.number} MemTotal:       {domain.memory // 1024} kB")
        put(folder / "distance", " ".join(map(str, domain.distances)))
    for card in topology.cards:
        put(root / f"class/net/{card.name}/device/numa_node", str(-1 if card.numa is None else card.numa))
    return root


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def listed(cpus: tuple[int, ...] | list[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


def small(root: Path) -> Topology:
    """Two sockets of one domain each, two cores of two hardware threads in each; CPU 9 is off."""
    topology = Topology(
        cores=(Core((0, 4), 0, 0, 0), Core((1, 5), 0, 0, 0), Core((2, 6), 1, 1, 1), Core((3, 7), 1, 1, 1)),
        numa=(NumaDomain(0, GIB, (10, 21)), NumaDomain(1, GIB, (21, 10))),
        cards=(Card("eth0", 1),),
        offline=(9,),
    )
    lay(topology, root)
    return topology


@settings(max_examples=30)
@given(topology=topologies())
def test_every_machine_comes_back(topology: Topology) -> None:
    expected = in_linux_order(topology)
    with tempfile.TemporaryDirectory() as folder:
        assert from_sysfs(lay(expected, Path(folder))) == expected


def test_this_machine_has_the_cpus_that_linux_says_are_on() -> None:
    topology = from_sysfs()
    assert len(topology.cpus) == len(set(topology.cpus)) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert set(os.sched_getaffinity(0)) <= set(topology.cpus)
    assert {core.numa for core in topology.cores} <= {domain.number for domain in topology.numa}


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ("devices/system/node", ((Core((0, 4), 0, 0, 0), Core((1, 5), 0, 0, 0)), (Core((2, 6), 1, 0, 1),))),
        ("class", ((Core((0, 4), 0, 0, 0), Core((1, 5), 0, 0, 0)), (Core((2, 6), 1, 1, 1),))),
    ],
)
def test_what_a_container_hides_is_made_up_for(
    hidden: str, expected: tuple[tuple[Core, ...], ...], tmp_path: Path
) -> None:
    small(tmp_path)
    (tmp_path / hidden).rename(tmp_path / "hidden")
    topology = from_sysfs(tmp_path)
    assert topology.cores[:3] == (*expected[0], *expected[1])
    assert topology.offline == (9,)
    assert (topology.cards == ()) == (hidden == "class")


def test_cpus_of_which_nothing_is_told_are_cores_of_one_socket(tmp_path: Path) -> None:
    put(tmp_path / "devices/system/cpu/online", "0-2")
    assert [core.cpus for core in from_sysfs(tmp_path).cores] == [(0,), (1,), (2,)]
    assert {(core.socket, core.numa) for core in from_sysfs(tmp_path).cores} == {(0, 0)}


def test_old_kernels_tell_masks_and_other_names(tmp_path: Path) -> None:
    for cpu in (0, 1):
        put(tmp_path / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings", "00000000,00000003")
        put(tmp_path / f"devices/system/cpu/cpu{cpu}/topology/core_siblings", "00000000,00000003")
    put(tmp_path / "devices/system/node/node0/cpumap", "3")
    assert from_sysfs(tmp_path).cores == (Core((0, 1), 0, 0, 0),)


def test_a_card_is_where_its_device_or_the_one_above_it_says(tmp_path: Path) -> None:
    small(tmp_path)
    virtio = tmp_path / "devices/pci0/0000:81:00.0/virtio3"
    virtio.mkdir(parents=True)
    put(virtio.parent / "numa_node", "1")
    put(tmp_path / "class/infiniband/mlx5_0/device/numa_node", "0")
    for name in ("ens3", "bond0", "docker0"):
        (tmp_path / f"class/net/{name}").mkdir(parents=True)
    (tmp_path / "class/net/ens3/device").symlink_to(virtio)
    (tmp_path / "class/net/bond0/lower_ens3").mkdir()
    found = {card.name: card.numa for card in from_sysfs(tmp_path).cards}
    assert found == {"eth0": 1, "ens3": 1, "bond0": 1, "mlx5_0": 0}


def test_ports_below_an_interface_give_it_a_domain_only_where_they_agree(tmp_path: Path) -> None:
    small(tmp_path)
    net = tmp_path / "class/net"
    put(net / "eth1/device/numa_node", "0")
    put(net / "eth2/device/numa_node", "1")
    put(net / "usb0/device/numa_node", "-1")
    below = {"bond0": ["eth0", "eth2"], "bond0.7": ["bond0"], "bond1": ["eth0", "eth1"], "docker0": ["veth1"]}
    for name, ports in {**below, "veth1": [], "lo": [], "itself": ["itself"]}.items():
        (net / name).mkdir()
        for port in ports:
            (net / name / f"lower_{port}").mkdir()
    found = {card.name: card.numa for card in from_sysfs(tmp_path).cards}
    assert found == {"eth0": 1, "eth1": 0, "eth2": 1, "usb0": None, "bond0": 1, "bond0.7": 1, "bond1": None}


def test_an_l2_is_the_last_cache_only_where_cores_share_it(tmp_path: Path) -> None:
    """Four cores of two hardware threads on one socket; core n has CPUs n and n + 4."""
    lay(Topology(tuple(Core((cpu, cpu + 4), 0, 0, 0) for cpu in range(4)), (NumaDomain(0, GIB),)), tmp_path)
    caches = {cpu: tmp_path / f"devices/system/cpu/cpu{cpu}/cache/index1" for cpu in range(8)}

    def groups(kind: str, told: Callable[[int], str]) -> list[int]:
        for cpu, cache in caches.items():
            put(cache / "level", "2")
            put(cache / "type", kind)
            put(cache / "shared_cpu_list", told(cpu % 4))
        return [core.l3 for core in from_sysfs(tmp_path).cores]

    pairs = {0: "0-1,4-5", 1: "0-1,4-5", 2: "2-3,6-7", 3: "2-3,6-7"}
    assert groups("Unified", lambda core: pairs[core]) == [0, 0, 1, 1]
    assert groups("Instruction", lambda core: pairs[core]) == [0, 0, 0, 0]
    assert groups("Unified", lambda core: f"{core},{core + 4}") == [0, 0, 0, 0], "private ones group nothing"
    assert groups("Unified", lambda core: pairs[3 - core]) == [0, 0, 0, 0], "a list without the CPU itself is none"


def test_a_cache_that_is_told_to_reach_over_sockets_is_one_in_each(tmp_path: Path) -> None:
    small(tmp_path)
    for cpu in range(8):
        put(tmp_path / f"devices/system/cpu/cpu{cpu}/cache/index1/shared_cpu_list", "0-7")
    assert [core.l3 for core in from_sysfs(tmp_path).cores] == [0, 0, 1, 1]


def test_a_domain_that_is_off_is_named_by_its_cpus(tmp_path: Path) -> None:
    """As on a real machine whose first socket had its first CPU off and no memory: Linux had no node 0 at all."""
    small(tmp_path)
    (tmp_path / "devices/system/node/node1").rename(tmp_path / "hidden")
    for cpu in (2, 3, 6, 7):
        (tmp_path / f"devices/system/cpu/cpu{cpu}/node1").symlink_to("../../node/node1")
    topology = from_sysfs(tmp_path)
    assert [core.numa for core in topology.cores] == [0, 0, 1, 1]
    assert topology.numa == (NumaDomain(0, GIB), NumaDomain(1, 0)), "no distances to what is not there"


def test_lists_that_contradict_each_other_still_give_each_cpu_one_core(tmp_path: Path) -> None:
    small(tmp_path)
    for cpu in range(8):
        put(tmp_path / f"devices/system/cpu/cpu{cpu}/topology/core_cpus_list", "0-7")
    put(tmp_path / "devices/system/cpu/cpu0/topology/core_cpus_list", "0,2,31")
    topology = from_sysfs(tmp_path)
    assert topology.cores[0].cpus == (0, 2)
    assert sorted(topology.cpus) == list(range(8))


def test_a_nul_at_a_files_end_is_no_part_of_it(tmp_path: Path) -> None:
    """Linux 3 wrote one after some lists of nodes and CPUs."""
    expected = small(tmp_path)
    for file in [*tmp_path.rglob("*list"), tmp_path / "devices/system/cpu/online"]:
        file.write_text(file.read_text() + "\0")
    assert from_sysfs(tmp_path) == expected


def test_where_all_is_hidden_the_cpus_of_the_process_are_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysfs, "SYS", tmp_path / "sys")  # no test can hide the real one
    topology = from_sysfs(tmp_path / "sys")
    assert topology.cores == tuple(Core((cpu,), 0, 0, 0) for cpu in sorted(os.sched_getaffinity(0)))


def test_what_no_kernel_writes_is_refused_with_the_file(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "devices/system/cpu/online").write_text("zero\n")
    with pytest.raises(TopologyError, match="cpu/online"):
        from_sysfs(tmp_path)
    with pytest.raises(TopologyError, match="names no CPU"):
        from_sysfs(tmp_path / "nothing")


@example(text="0-9999999999")
@given(text=st.text(alphabet="0123456789-, x\n", max_size=12))
def test_whatever_a_file_holds_the_answer_is_a_machine_or_a_sentence(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        small(Path(folder))
        put(Path(folder) / "devices/system/cpu/cpu1/topology/core_cpus_list", text)
        try:
            topology = from_sysfs(Path(folder))
        except TopologyError as error:
            assert "core_cpus_list" in str(error)
        else:
            assert sorted(topology.cpus) == list(range(8))


def test_a_machine_of_256_cpus_is_read_at_once(tmp_path: Path) -> None:
    cores = tuple(Core((core, core + 128), core // 64, core // 16, core // 8) for core in range(128))
    numa = tuple(NumaDomain(number, GIB) for number in range(8))
    lay(Topology(cores, numa), tmp_path)
    begun = time.process_time()
    assert len(from_sysfs(tmp_path).cpus) == 256
    assert time.process_time() - begun < 1.0, "each rank reads it at its start"
