"""The emulated machine is the one that it is said to be, by the kernel's word and by what placement reads of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from two_sockets import WITH_SMT, WITHOUT_SMT, Shape

from support.emulated import Case, Result

SPEC = Path(__file__).parents[2] / "examples" / "resnet50-synthetic.toml"
READ = """
import json, pathlib
from lockstep_slurm.placement import from_sysfs
topology = from_sysfs()
kernel = sorted(tuple(int(pathlib.Path(f'/sys/devices/system/cpu/cpu{cpu}/topology/{name}').read_text())
    for name in ('physical_package_id', 'core_id')) + (cpu,) for cpu in range(8))
nodes = {node: pathlib.Path(f'/sys/devices/system/node/node{node}/cpulist').read_text().strip() for node in (0, 1)}
card = pathlib.Path('/sys/class/net/eth0/device/numa_node').read_text().strip()
cgroup = pathlib.Path('/sys/fs/cgroup/cgroup.controllers').read_text().split()
print(json.dumps({'topology': topology.document(), 'kernel': kernel, 'nodes': nodes, 'card': card, 'cgroup': cgroup}))
"""


def reading(shape: Shape) -> Case:
    name = "the machine with SMT" if shape == WITH_SMT else "the machine without SMT"
    return Case(name, argv=("/usr/bin/python3", "-c", READ), shape=shape)


@pytest.mark.parametrize("case", [reading(WITH_SMT), reading(WITHOUT_SMT)], ids=lambda case: case.id)
def test_what_sysfs_is_read_as_is_what_qemu_was_told(case: Case, run: Callable[[Case], Result]) -> None:
    result = run(case)
    assert result.exit == 0, result.log
    found = json.loads(result.out)
    sockets, cores, threads = case.shape
    topology = found["topology"]
    assert len(topology["cores"]) == sockets * cores
    assert {len(core["cpus"]) for core in topology["cores"]} == {threads}
    # The kernel's own files, read without Lockstep.
    of_kernel: dict[tuple[int, int], list[int]] = {}
    for socket, core, cpu in found["kernel"]:
        of_kernel.setdefault((socket, core), []).append(cpu)
    assert [core["cpus"] for core in topology["cores"]] == list(of_kernel.values())
    assert [core["socket"] for core in topology["cores"]] == [0] * cores + [1] * cores
    assert found["nodes"] == {"0": "0-3", "1": "4-7"}
    assert [core["numa"] for core in topology["cores"]] == [0] * cores + [1] * cores
    assert all(domain["memory"] > 1 << 30 for domain in topology["numa"])
    assert found["card"] == "1"
    assert {"name": "eth0", "numa": 1} in topology["cards"]
    assert "cpuset" in found["cgroup"]


PLAN = Case(
    "lockstep plan on the machine",
    argv=("{bin}/lockstep", "plan", str(SPEC), "--set", "placement.ranks_per_node=2", "--json"),
)


@pytest.mark.parametrize("case", [PLAN], ids=lambda case: case.id)
def test_the_command_plans_for_the_machine_that_it_runs_on(case: Case, run: Callable[[Case], Result]) -> None:
    result = run(case)
    assert result.exit == 0, result.log
    ranks = json.loads(result.out)["ranks"]
    # A socket each: the cores' first hardware threads compute, their siblings communicate.
    assert [rank["compute"] for rank in ranks] == [[0, 2], [4, 6]]
    assert [rank["numa_nodes"] for rank in ranks] == [[0], [1]]
    for rank, siblings in zip(ranks, ({1, 3}, {5, 7}), strict=True):
        assert {*rank["comm"]["horovod"], *rank["comm"]["gloo"]} == siblings
