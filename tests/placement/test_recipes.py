"""Plans for machines that people have, against where published recipes put the same threads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lockstep_slurm.placement import Communication, Memory, PlacementError, Request, Threads, Topology, plan
from lockstep_slurm.placement.cpulist import compress, parse
from support.placements import machine

XEON_18 = machine(sockets=2, cores_per_l3=18)
"""Two sockets, 0-17,36-53 and 18-35,54-71."""
XEON_28 = machine(sockets=2, cores_per_l3=28)
EPYC = machine(sockets=2, numa_per_socket=4, l3_per_numa=2, cores_per_l3=8)
"""Two sockets of 64 cores, four NUMA domains each, eight cores to a cache, two hardware threads to a core."""
PLAIN_EPYC = machine(sockets=2, numa_per_socket=4, cores_per_l3=16, smt=1)
"""The same with its second hardware threads switched off by the firmware."""
MANY_CORES = machine(sockets=1, cores_per_l3=64, smt=4)
"""One socket of 64 cores with four hardware threads each."""
ONE_SOCKET = machine(sockets=1, cores_per_l3=16)
EMULATED = machine(sockets=2, cores_per_l3=2)
"""The smallest of two sockets: two cores of two hardware threads each."""


def computing(topology: Topology, request: Request, granted: str = "") -> list[str]:
    placed = plan(topology, parse(granted) if granted else topology.cpus, request)
    return [compress(rank.compute) for rank in placed.ranks]


def communicating(topology: Topology, request: Request) -> list[Communication]:
    return [rank.communication for rank in plan(topology, topology.cpus, request).ranks]


def interleaved(topology: Topology) -> Topology:
    """The same machine where neighbouring numbers are in different sockets: even in the first, odd in the second."""
    half = len(topology.cores) // 2
    number = [2 * core + socket for socket in range(2) for core in range(half)]
    count = len(number)
    cores = [
        replace(core, cpus=tuple(number[at] + count * thread for thread in range(len(core.cpus))))
        for at, core in enumerate(topology.cores)
    ]
    return replace(topology, cores=tuple(cores))


def test_oneccl_with_horovod_has_the_last_cores_for_workers_and_a_sibling_for_horovods_thread() -> None:
    """The ``auto`` of oneCCL under Intel MPI: workers 16,17,34,35; Horovod's oneCCL page: threads 53,71."""
    found = communicating(XEON_18, Request(2, Threads(horovod=1, gloo=0, ccl=2)))
    assert found == [Communication(horovod=(53,), ccl=(16, 17)), Communication(horovod=(71,), ccl=(34, 35))]


def test_first_is_where_ipexrun_puts_four_workers() -> None:
    found = communicating(XEON_28, Request(2, Threads(horovod=0, gloo=0, ccl=4), policy="first"))
    assert [rank.ccl for rank in found] == [(0, 1, 2, 3), (28, 29, 30, 31)]


def test_sibling_is_where_mlperf_submissions_put_four_workers_and_every_core_computes() -> None:
    request = Request(2, Threads(horovod=0, gloo=0, ccl=4), policy="sibling")
    found = communicating(XEON_28, request)
    assert [rank.ccl for rank in found] == [tuple(parse("56-59")), tuple(parse("84-87"))]
    assert computing(XEON_28, request) == ["0-27", "28-55"]


def test_a_submissions_eight_workers_take_the_siblings_of_the_first_eight_cores() -> None:
    request = Request(2, Threads(horovod=0, gloo=0, ccl=8), policy="sibling")
    found = communicating(XEON_28, request)
    assert [rank.ccl for rank in found] == [tuple(range(56, 64)), tuple(range(84, 92))]
    assert computing(XEON_28, request) == ["0-27", "28-55"]


def test_numbers_that_alternate_between_sockets_leave_each_rank_in_its_own() -> None:
    placed = plan(interleaved(XEON_28), range(112), Request(2))
    assert [rank.compute for rank in placed.ranks] == [tuple(range(0, 54, 2)), tuple(range(1, 55, 2))]
    assert [rank.communication for rank in placed.ranks] == [
        Communication(horovod=(54,), gloo=(110,)),
        Communication(horovod=(55,), gloo=(111,)),
    ]
    assert [rank.memory for rank in placed.ranks] == [Memory("preferred", (0,)), Memory("preferred", (1,))]


def test_four_ranks_share_two_sockets_two_by_two() -> None:
    placed = plan(XEON_28, XEON_28.cpus, Request(4))
    assert [compress(rank.compute) for rank in placed.ranks] == ["0-12", "14-26", "28-40", "42-54"]
    assert [rank.communication.horovod + rank.communication.gloo for rank in placed.ranks] == [
        (13, 69), (27, 83), (41, 97), (55, 111)
    ]  # fmt: skip
    assert [rank.numa for rank in placed.ranks] == [(0,), (0,), (1,), (1,)]
    assert not placed.warnings


def test_without_hardware_threads_each_communication_thread_takes_a_core_of_its_ranks_domain() -> None:
    placed = plan(PLAIN_EPYC, PLAIN_EPYC.cpus, Request(8))
    for rank in placed.ranks:
        start = 16 * rank.local_rank
        assert rank.compute == tuple(range(start, start + 14))
        assert rank.communication == Communication(horovod=(start + 14,), gloo=(start + 15,))
        assert rank.numa == (rank.local_rank,)
        assert rank.memory == Memory("preferred", (rank.local_rank,))
    assert placed.spare == ()


def test_one_of_64_cores_with_four_hardware_threads_serves_all_communication() -> None:
    assert computing(MANY_CORES, Request(1)) == ["0-62"]
    assert communicating(MANY_CORES, Request(1)) == [Communication(horovod=(63,), gloo=(127,))]
    with_smt = plan(MANY_CORES, MANY_CORES.cpus, Request(4, smt=True))
    assert compress(with_smt.ranks[0].compute) == "0-14,64-78,128-142,192-206"
    assert compress(with_smt.ranks[3].compute) == "48-62,112-126,176-190,240-254"
    assert with_smt.ranks[3].communication == Communication(horovod=(63,), gloo=(127,))
    assert compress(with_smt.spare) == "143,159,175,191,207,223,239,255"


def test_gloo_gives_up_one_core_of_a_large_rank_for_its_two_threads() -> None:
    request = Request(8)
    assert computing(EPYC, request)[:2] == ["0-14", "16-30"]
    assert communicating(EPYC, request)[7] == Communication(horovod=(127,), gloo=(255,))


@pytest.mark.parametrize(
    ("ranks", "domains"),
    [
        (1, [(0, 1, 2, 3, 4, 5, 6, 7)]),
        (2, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (4, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (8, [(0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,)]),
        (16, [(0,), (0,), (1,), (1,), (2,), (2,), (3,), (3,), (4,), (4,), (5,), (5,), (6,), (6,), (7,), (7,)]),
    ],
)
def test_ranks_have_whole_domains_or_lie_within_one(ranks: int, domains: list[tuple[int, ...]]) -> None:
    placed = plan(EPYC, EPYC.cpus, Request(ranks))
    assert [rank.numa for rank in placed.ranks] == domains
    assert all(rank.memory.policy == ("preferred" if ranks >= 8 else "local") for rank in placed.ranks)
    assert len(placed.warnings) == (ranks if ranks < 8 else 0)


def test_two_ranks_of_a_domain_have_a_cache_each() -> None:
    assert computing(EPYC, Request(16, communication_cpus=0))[:3] == ["0-7", "8-15", "16-23"]


def test_one_large_socket_is_one_rank_or_many() -> None:
    assert computing(ONE_SOCKET, Request(1)) == ["0-14"]
    assert computing(ONE_SOCKET, Request(4)) == ["0-2", "4-6", "8-10", "12-14"]


@pytest.mark.parametrize(
    ("policy", "compute", "first"),
    [
        ("last", ["0-1", "2-3"], Communication(horovod=(5,), gloo=(4,))),
        ("first", ["0-1", "2-3"], Communication(horovod=(4,), gloo=(5,))),
        ("sibling", ["0-1", "2-3"], Communication(horovod=(4,), gloo=(5,))),
        ("nic", ["0-1", "2-3"], Communication(horovod=(5,), gloo=(4,))),
        ("none", ["0-1", "2-3"], Communication()),
    ],
)
def test_small_ranks_give_up_no_core_where_siblings_are_idle(
    policy: str, compute: list[str], first: Communication
) -> None:
    request = Request(2, policy=policy)
    assert computing(EMULATED, request) == compute
    assert communicating(EMULATED, request)[0] == first


def test_a_rank_for_each_core_has_its_communication_on_the_cores_other_thread() -> None:
    request = Request(4, policy="sibling")
    assert computing(EMULATED, request) == ["0", "1", "2", "3"]
    assert communicating(EMULATED, request)[3] == Communication(horovod=(7,), gloo=(7,))


def test_without_siblings_the_policy_sibling_is_an_error_or_a_named_degradation() -> None:
    plain = machine(sockets=2, cores_per_l3=2, smt=1)
    with pytest.raises(
        PlacementError, match=r'policy "sibling" needs 1 idle hardware threads.* local rank 0 has 0 on 1'
    ):
        plan(plain, plain.cpus, Request(4, policy="sibling"))
    placed = plan(plain, plain.cpus, Request(4, policy="sibling", degrade=True))
    assert placed.policy == "last"
    assert all('policy "last" in place of "sibling"' in rank.degraded[0] for rank in placed.ranks)
    assert [rank.compute for rank in placed.ranks] == [(0,), (1,), (2,), (3,)]


def test_memory_of_a_rank_in_one_domain_is_preferred_there() -> None:
    placed = plan(XEON_18, XEON_18.cpus, Request(2))
    assert [rank.memory for rank in placed.ranks] == [Memory("preferred", (0,)), Memory("preferred", (1,))]


@pytest.mark.parametrize(
    ("granted", "ranks", "each", "domains", "idle"),
    [
        ("0-18,32-52", 2, 19, [(0,), (1,)], "2 cores stay idle"),
        ("0-15,32-55", 2, 20, [(0, 1), (1,)], ""),
        ("0-15,32-47", 3, 10, [(0,), (0, 1), (1,)], ""),
        ("0-19,32-33", 1, 20, [(0,)], "2 cores stay idle"),
    ],
)
def test_a_tenth_of_a_fair_share_at_most_is_given_up_for_borders(
    granted: str, ranks: int, each: int, domains: list[tuple[int, ...]], idle: str
) -> None:
    """The examples of docs/placement.md, on two sockets of 32 cores."""
    wide = machine(sockets=2, cores_per_l3=32, smt=1)
    placed = plan(wide, parse(granted), Request(ranks, policy="none"))
    assert [rank.numa for rank in placed.ranks] == domains
    assert {len(rank.compute) for rank in placed.ranks} == {each}
    assert any(idle in warning for warning in placed.warnings) if idle else len(placed.spare) < ranks * 2


def test_what_was_given_up_for_borders_is_taken_back_where_it_is_missing() -> None:
    wide = machine(sockets=2, cores_per_l3=32, smt=1)
    placed = plan(wide, parse("0-18,32-52"), Request(2, communication_cpus=2, loader_cpus=17))
    assert [len(rank.cpus) for rank in placed.ranks] == [20, 20]
    with pytest.raises(PlacementError, match="ask for at least 21 CPUs per rank"):
        plan(wide, parse("0-18,32-52"), Request(2, communication_cpus=2, loader_cpus=18))


def test_a_rank_that_crosses_sockets_has_neighbouring_domains_on_both_sides() -> None:
    assert [rank.numa for rank in plan(EPYC, EPYC.cpus, Request(3)).ranks] == [(0, 1, 2), (2, 3, 4, 5), (5, 6, 7)]


def test_with_fewer_cpus_than_threads_the_later_ones_share_the_last() -> None:
    eight = machine(sockets=1, cores_per_l3=8, smt=1)
    request = Request(1, Threads(horovod=1, gloo=1, ccl=2), communication_cpus=2)
    assert communicating(eight, request) == [Communication(horovod=(6,), gloo=(7,), ccl=(7, 7))]
    three = Request(1, Threads(horovod=1, gloo=1, ccl=2), communication_cpus=3)
    assert communicating(eight, three) == [Communication(horovod=(5,), gloo=(6,), ccl=(7, 7))]
