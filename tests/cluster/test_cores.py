"""Which cores a node gets: shared out whole and equally, told to Slurm in its own numbering."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.cluster.cores import Machine, read_machine, share_out


def machine(sockets: int, cores: int, threads: int) -> Machine:
    """A machine numbered as Linux does on x86: first threads of all cores, then second threads."""
    count = sockets * cores
    return Machine(
        sockets, cores, threads, tuple(tuple(core + count * t for t in range(threads)) for core in range(count))
    )


def names(count: int) -> tuple[str, ...]:
    return tuple(f"node{number}" for number in range(1, count + 1))


def write_sysfs(folder: Path, siblings: Sequence[Sequence[int]], package_of: dict[int, int]) -> Path:
    for group in siblings:
        for cpu in group:
            topology = folder / f"cpu{cpu}" / "topology"
            topology.mkdir(parents=True)
            (topology / "physical_package_id").write_text(f"{package_of[cpu]}\n")
            (topology / "thread_siblings_list").write_text(",".join(map(str, group)) + "\n")
    (folder / "cpufreq").mkdir()
    return folder


machines = st.builds(machine, st.integers(1, 2), st.integers(1, 8), st.integers(1, 2))


@given(machines, st.integers(1, 20))
def test_no_cpu_is_given_twice_as_long_as_there_are_enough_cores(of: Machine, nodes: int) -> None:
    shares, warning = share_out(of, names(nodes), range(of.cpus))
    if nodes <= len(of.cores):
        assert warning is None
        assert all(not set(a.cpus) & set(b.cpus) for a, b in combinations(shares, 2))
        assert len({len(share.cpus) for share in shares}) == 1
    else:
        assert warning is not None
        assert "share" in warning


@given(machines, st.integers(1, 20))
def test_what_a_node_does_not_have_is_reserved_on_it(of: Machine, nodes: int) -> None:
    for share in share_out(of, names(nodes), range(of.cpus))[0]:
        # Slurm counts CPUs core by core, Linux may not: the reserved ones are compared core by core.
        reserved = {of.cores[cpu // of.threads_per_core][cpu % of.threads_per_core] for cpu in share.reserved}
        assert reserved | set(share.cpus) == set(range(of.cpus))
        assert not reserved & set(share.cpus)


def test_two_nodes_on_two_cores_get_one_each() -> None:
    shares, _ = share_out(machine(1, 2, 1), names(2), [0, 1])
    assert [(share.cpus, share.reserved) for share in shares] == [((0,), (1,)), ((1,), (0,))]


def test_a_core_is_given_with_both_its_hardware_threads() -> None:
    shares, _ = share_out(machine(1, 2, 2), names(2), range(4))
    assert [(share.cpus, share.reserved) for share in shares] == [((0, 2), (2, 3)), ((1, 3), (0, 1))]


def test_only_cores_that_this_process_may_use_are_given() -> None:
    shares, warning = share_out(machine(1, 8, 1), names(2), [4, 5, 6, 7])
    assert [share.cpus for share in shares] == [(4, 5), (6, 7)]
    assert warning is None


def test_the_machine_is_read_with_its_hardware_threads(tmp_path: Path) -> None:
    siblings = [(0, 4), (1, 5), (2, 6), (3, 7)]
    sysfs = write_sysfs(tmp_path, siblings, {cpu: (cpu % 4) // 2 for cpu in range(8)})
    assert read_machine(sysfs) == Machine(2, 2, 2, ((0, 4), (1, 5), (2, 6), (3, 7)))


def test_an_offline_cpu_does_not_count(tmp_path: Path) -> None:
    sysfs = write_sysfs(tmp_path, [(0,), (1,)], {0: 0, 1: 0})
    (sysfs / "cpu2").mkdir()
    (sysfs / "cpu2" / "online").write_text("0\n")
    assert read_machine(sysfs) == Machine(1, 2, 1, ((0,), (1,)))


def test_cores_that_are_not_alike_count_as_one_socket_of_single_threads(tmp_path: Path) -> None:
    sysfs = write_sysfs(tmp_path, [(0, 1), (2,), (3,)], dict.fromkeys(range(4), 0))
    assert read_machine(sysfs) == Machine(1, 4, 1, ((0,), (1,), (2,), (3,)))


@pytest.mark.parametrize("cpus", [1, 3])
def test_a_hidden_topology_counts_as_one_socket_of_single_threads(tmp_path: Path, cpus: int) -> None:
    for cpu in range(cpus):
        (tmp_path / f"cpu{cpu}").mkdir()
    assert read_machine(tmp_path) == Machine(1, cpus, 1, tuple((cpu,) for cpu in range(cpus)))
