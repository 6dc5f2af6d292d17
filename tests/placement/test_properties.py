"""What holds for every plan, on machines of every kind, for every grant and every request: 10,000 cases and more.

What is "possible" or "must be" is defined here anew, by counting or by trying all ways, never by asking the planner.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lockstep_slurm.placement import (
    Core,
    NumaDomain,
    Placement,
    PlacementError,
    RankPlacement,
    Request,
    Threads,
    Topology,
    environment,
    plan,
)
from lockstep_slurm.placement.request import MEMORY, POLICIES
from support.topologies import relabelled, topologies

CASES = 10_000
tried: Counter[str] = Counter()
"""How many cases each property was really tried on, by its name."""


class Case(NamedTuple):
    """One question to the planner."""

    topology: Topology
    granted: tuple[int, ...]
    request: Request


@st.composite
def grants(draw: st.DrawFn, topology: Topology) -> tuple[int, ...]:
    """All CPUs, some whole cores, or any CPUs, in any order."""
    kind = draw(st.sampled_from(["all", "cores", "first threads", "any"]))
    chance = random.Random(draw(st.integers(0, 1 << 20)))
    share = chance.choice([0.2, 0.5, 0.8, 0.95])
    if kind == "all":
        return topology.cpus
    if kind == "cores":
        found = [cpu for core in topology.cores if chance.random() < share for cpu in core.cpus]
    elif kind == "first threads":
        found = [core.cpus[0] for core in topology.cores]
    else:
        found = [cpu for cpu in topology.cpus if chance.random() < share]
    chance.shuffle(found)
    return tuple(found or topology.cpus[:1])


@st.composite
def requests(draw: st.DrawFn, topology: Topology, granted: Sequence[int], *, communicating: bool) -> Request:
    """Anything that may be asked for, the usual more often than the strange."""
    usual = st.integers(1, 8)
    cores = len(topology.cores)
    return Request(
        ranks=draw(usual | st.integers(1, cores) | st.integers(1, len(granted) + 2)),
        threads=Threads(
            horovod=1 if communicating else draw(st.integers(0, 1)),
            gloo=draw(st.integers(0, 1)),
            exchange=draw(st.integers(0, 1)),
            ccl=draw(st.sampled_from([0, 0, 1, 2, 4])),
        ),
        communication_cpus=draw(st.none() | st.none() | st.integers(int(communicating), 6)),
        policy=draw(st.sampled_from(POLICIES[:-1] if communicating else POLICIES)),
        loader_cpus=draw(st.sampled_from([0, 0, 0, 1, 2, 5])),
        smt=draw(st.booleans()),
        memory=draw(st.sampled_from(MEMORY)),
        degrade=communicating or draw(st.booleans()),
        cpus_per_rank=draw(st.none() | st.none() | st.integers(1, 12)),
        card=draw(st.none() | st.sampled_from(["ib0", "eth0"])),
    )


@st.composite
def cases(draw: st.DrawFn, *, communicating: bool = False) -> Case:
    """Anything; with ``communicating`` such that most ranks keep CPUs for communication."""
    topology = draw(topologies())
    granted = draw(grants(topology))
    return Case(topology, granted, draw(requests(topology, granted, communicating=communicating)))


def planned(case: Case) -> Placement:
    """The plan, where there is one."""
    try:
        return plan(*case)
    except PlacementError:
        assume(False)
        raise


def cores_of(topology: Topology) -> dict[int, Core]:
    return {cpu: core for core in topology.cores for cpu in core.cpus}


def sharing(case: Case) -> bool:
    """Whether there are fewer CPUs than ranks."""
    return len(case.granted) < case.request.ranks


@settings(max_examples=2000)
@given(case=cases())
def test_every_granted_cpu_has_one_purpose_of_one_rank_or_is_named_as_spare(case: Case) -> None:
    placed = planned(case)
    tried["purpose"] += 1
    assert [rank.local_rank for rank in placed.ranks] == list(range(case.request.ranks))
    assert len({len(rank.compute) for rank in placed.ranks}) == 1, "a faster rank would only wait"
    assert all(rank.compute for rank in placed.ranks)
    uses = [
        cpu for rank in placed.ranks for part in (rank.compute, rank.communication.cpus, rank.loader) for cpu in part
    ]
    if not sharing(case):
        assert len(set(uses)) == len(uses), "a CPU has two purposes"
        assert Counter([*uses, *placed.spare]) == Counter(case.granted)
    else:
        assert all(rank.degraded for rank in placed.ranks)
        assert set(uses) == set(case.granted)
        assert not placed.spare


@settings(max_examples=1300)
@given(case=cases())
def test_lists_are_in_tree_order_and_cores_and_threads_are_a_ranks_own(case: Case) -> None:
    placed = planned(case)
    tried["own"] += 1
    place = {cpu: at for at, cpu in enumerate(case.topology.cpus)}
    core = cores_of(case.topology)
    granted_cores = {core[cpu] for cpu in case.granted}
    for rank in placed.ranks:
        for part in (rank.compute, rank.loader, rank.numa and rank.compute, placed.spare):
            assert list(part) == sorted(part, key=place.__getitem__)
        computing = Counter(core[cpu] for cpu in rank.compute)
        variables = environment(placed, rank.local_rank)
        assert variables["OMP_NUM_THREADS"] == str(sum(computing.values()))
        if not case.request.smt:
            assert set(computing.values()) == {1}, "one OpenMP thread per compute core"
        assert set(rank.numa) == {one.numa for one in computing}
        if case.request.cpus_per_rank:
            assert len(rank.cpus) <= case.request.cpus_per_rank
    if len(granted_cores) >= case.request.ranks:
        owners = Counter(one for rank in placed.ranks for one in {core[cpu] for cpu in rank.cpus})
        assert max(owners.values()) == 1, "two ranks on one core"
    elif not sharing(case):
        assert any("hardware threads of one core" in warning for warning in placed.warnings)


@settings(max_examples=1500)
@given(case=cases(communicating=True))
def test_communication_is_in_its_ranks_domain_whenever_that_is_possible(case: Case) -> None:
    """Possible: the rank's cores that do not compute can be so chosen that each domain keeps one that does."""
    placed = planned(case)
    assume(any(rank.communication.cpus for rank in placed.ranks))
    tried["domain"] += 1
    core = cores_of(case.topology)
    for rank in placed.ranks:
        own = {core[cpu] for cpu in rank.cpus}
        computing = {core[cpu] for cpu in rank.compute}
        keeps = sum(count - 1 for count in Counter(one.numa for one in own).values())
        if len(own - computing) <= keeps:
            assert {core[cpu].numa for cpu in rank.communication.cpus} <= set(rank.numa)
        assert not set(rank.communication.cpus) & {cpu for other in placed.ranks for cpu in other.compute}


@settings(max_examples=1300)
@given(case=cases())
def test_each_communication_thread_has_a_cpu_and_a_number_is_kept(case: Case) -> None:
    placed = planned(case)
    tried["threads"] += 1
    wanted, threads = case.request.communication_cpus, case.request.threads
    total = threads.horovod + threads.gloo + threads.exchange + threads.ccl
    for rank in placed.ranks:
        found = rank.communication
        if not found.cpus:
            assert (
                case.request.policy == "none"
                or wanted is None
                or wanted == 0
                or total == 0
                or any("communication" in said or "share" in said for said in rank.degraded)
            )
            continue
        assert [len(found.horovod), len(found.gloo), len(found.exchange), len(found.ccl)] == [
            threads.horovod, threads.gloo, threads.exchange, threads.ccl
        ]  # fmt: skip
        if wanted is not None and not rank.degraded:
            assert len(found.cpus) == min(wanted, total)
        if not rank.degraded:
            assert len(rank.loader) == case.request.loader_cpus
    if wanted and total < wanted and case.request.policy != "none" and not sharing(case):
        assert any("stay idle" in warning for warning in placed.warnings)


@settings(max_examples=1300)
@given(case=cases(), seed=st.integers(0, 1 << 20))
def test_other_cpu_numbers_on_the_same_tree_give_the_same_plan_in_these_numbers(case: Case, seed: int) -> None:
    placed = planned(case)
    tried["numbers"] += 1
    before = [*case.topology.cpus, *case.topology.offline]
    after = random.Random(seed).sample(range(4 * len(before)), len(before))
    number = dict(zip(before, after, strict=True))
    granted = [number[cpu] for cpu in case.granted]
    random.Random(seed + 1).shuffle(granted)
    again = plan(relabelled(case.topology, number), granted, case.request)

    def told(cpus: Sequence[int]) -> tuple[int, ...]:
        return tuple(number[cpu] for cpu in cpus)

    def renumbered(rank: RankPlacement) -> RankPlacement:
        roles = {role: told(cpus) for role, cpus in vars(rank.communication).items()}
        return replace(
            rank,
            compute=told(rank.compute),
            communication=replace(rank.communication, **roles),
            loader=told(rank.loader),
        )

    ranks = tuple(renumbered(rank) for rank in placed.ranks)
    assert again == replace(placed, ranks=ranks, spare=told(placed.spare))


@settings(max_examples=1300)
@given(case=cases())
def test_what_cannot_be_had_is_an_error_or_a_named_degradation_and_nothing_else_is(case: Case) -> None:
    """With ``degrade`` there is always a plan; without, an error exactly where that plan names a degradation."""
    tried["degraded"] += 1
    placed = plan(case.topology, case.granted, replace(case.request, degrade=True))
    strict = replace(case.request, degrade=False)
    if placed.degraded:
        with pytest.raises(PlacementError, match=r"ask for at least|take another policy"):
            plan(case.topology, case.granted, strict)
    else:
        assert plan(case.topology, case.granted, strict) == placed
    if placed.policy != case.request.policy:
        assert all("in place of" in said or "share" in said for rank in placed.ranks for said in rank.degraded[:1])
    unlike = len({len(core.cpus) for core in case.topology.cores}) > 1 or len(case.granted) < len(case.topology.cpus)
    if placed.degraded and not unlike:
        assert not satisfiable(case)


def satisfiable(case: Case) -> bool:
    """Whether like cores, all of them granted, have enough for every rank."""
    request, threads = case.request, len(case.topology.cores[0].cpus)
    if request.ranks > len(case.granted):
        return False
    each = len(case.topology.cores) // request.ranks * threads or len(case.granted) // request.ranks
    each = each if request.cpus_per_rank is None else min(each, request.cpus_per_rank)
    communicates = request.policy != "none" and request.communication_cpus != 0
    total = sum(vars(request.threads).values())
    if communicates and request.policy == "sibling" and (total or request.communication_cpus):
        cores = -(-each // threads)
        if request.smt or each - cores < (request.communication_cpus or 1):
            return False
    if communicates and request.policy == "nic" and (total or request.communication_cpus):
        cards = [card for card in case.topology.cards if request.card in (None, card.name)]
        if all(card.numa is None for card in cards):
            return False
    wanted = (request.communication_cpus or 0) if communicates else 0
    return each > wanted + request.loader_cpus


class Small(NamedTuple):
    """A distribution alone: nothing is kept for communication, so a rank's compute CPUs are its cores."""

    topology: Topology
    granted: tuple[int, ...]
    ranks: int


@st.composite
def small(draw: st.DrawFn) -> Small:
    topology = draw(topologies(max_cpus=24))
    granted = draw(grants(topology))
    core = cores_of(topology)
    return Small(topology, granted, draw(st.integers(1, min(10, len({core[cpu] for cpu in granted})))))


@st.composite
def lopsided(draw: st.DrawFn) -> Small:
    """Few large domains of unlike sizes, where a tenth of a fair share is a core and more."""
    sockets = draw(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=3))
    cores: list[Core] = []
    for socket, domains in enumerate(sockets):
        for size in domains:
            domain = len({core.numa for core in cores})
            cores += [Core((len(cores) + at,), socket, domain, domain) for at in range(size)]
    numbers = range(cores[-1].numa + 1)
    topology = Topology(tuple(cores), tuple(NumaDomain(number, 1 << 30) for number in numbers))
    return Small(topology, topology.cpus, draw(st.integers(1, min(8, len(cores)))))


@settings(max_examples=2000)
@given(case=small() | lopsided())
def test_a_rank_spans_domains_only_when_it_must_and_then_it_is_said(case: Small) -> None:
    placed = plan(case.topology, case.granted, Request(case.ranks, policy="none"))
    tried["spans"] += 1
    core = cores_of(case.topology)
    where = {cpu: (core[cpu].socket, core[cpu].numa) for cpu in case.granted}
    line = dict.fromkeys(core[cpu] for cpu in case.topology.cpus if cpu in where)
    sizes = Counter((one.socket, one.numa) for one in line)
    fair = len(line) // case.ranks
    each = len(placed.ranks[0].compute)
    least = max(1, fair - fair // 10)
    assert least <= each <= fair, "more than a tenth was given up"
    touched = [{where[cpu] for cpu in rank.compute} for rank in placed.ranks]
    spanning = [rank for rank, places in enumerate(touched) if len(places) > 1]
    assert len(spanning) == case.ranks - most_within(tuple(sizes.values()), each, case.ranks)
    crossing = [rank for rank, places in enumerate(touched) if len({socket for socket, _ in places}) > 1]
    sockets: Counter[int] = Counter()
    for (socket, _), size in sizes.items():
        sockets[socket] += size
    for n in range(least, fair + 1):
        if most_within(tuple(sizes.values()), n, case.ranks) == case.ranks:
            assert not spanning, f"with {n} cores each, no rank would have to"
        if most_within(tuple(sockets.values()), n, case.ranks) == case.ranks:
            assert not crossing, f"with {n} cores each, no rank would have to cross sockets"
    for rank in spanning:
        domains = {numa for _, numa in touched[rank]}
        said = [warning for warning in placed.warnings if f"local rank {rank} " in warning]
        assert len(said) == 1
        assert len(domains) == 1 or all(str(numa) in said[0] for numa in domains)
    shared = len([place for places in touched for place in places]) > len(set().union(*touched))
    if case.ranks <= len(sizes) and avoidable(sizes, case.ranks, each, len(spanning)):
        assert not shared, "two ranks share a domain, and need not"


@settings(max_examples=1300)
@given(case=small() | lopsided(), cap=st.integers(1, 32), smt=st.booleans())
def test_a_rank_alone_has_the_cpus_that_it_may_have_or_it_is_said_which_cores_stay_idle(
    case: Small, cap: int, smt: bool
) -> None:
    """A spare CPU of a core that the rank is on is one that it was not planned for, not one that it could not have."""
    placed = plan(case.topology, case.granted, Request(1, policy="none", cpus_per_rank=cap, smt=smt))
    tried["alone"] += 1
    core = cores_of(case.topology)
    (rank,) = placed.ranks
    own = {core[cpu] for cpu in rank.cpus}
    held = len(rank.cpus) + sum(core[cpu] in own for cpu in placed.spare)
    assert len(rank.cpus) <= cap
    assert held >= min(cap, len(case.granted)) or any("stay idle" in warning for warning in placed.warnings)


@cache
def most_within(sizes: tuple[int, ...], each: int, ranks: int) -> int:
    """The most of ``ranks`` ranks of ``each`` cores that can lie within one domain each: tries all ways."""
    if ranks == 0:
        return 0
    ways = [
        1 + most_within(tuple(sorted((*sizes[:at], size - each, *sizes[at + 1 :]))), each, ranks - 1)
        for at, size in enumerate(sizes)
        if size >= each and size not in sizes[:at]
    ]
    return max(ways, default=0)


def avoidable(sizes: Counter[tuple[int, int]], ranks: int, each: int, spanning: int) -> bool:
    """Whether some division into neighbouring whole domains, within sockets, makes no more ranks span."""
    line = list(sizes.items())
    for cuts in combinations(range(1, len(line)), ranks - 1):
        groups = [line[start:end] for start, end in zip((0, *cuts), (*cuts, len(line)), strict=True)]
        crossing = any(len({socket for (socket, _), _ in group}) > 1 for group in groups)
        enough = all(sum(size for _, size in group) >= each for group in groups)
        need = sum(max(size for _, size in group) < each for group in groups)
        if enough and not crossing and need <= spanning:
            return True
    return False


@pytest.fixture(scope="module", autouse=True)
def count_cases() -> Iterator[None]:
    """Says how many cases there were, in the captured output of the last test."""
    yield
    print(f"{sum(tried.values())} cases: {dict(tried)}")


def test_there_were_ten_thousand_cases(request: pytest.FixtureRequest) -> None:
    names = {name for name, value in globals().items() if hasattr(value, "hypothesis")}
    selected = {item.name for item in request.session.items if item.path == request.path}
    if names <= selected:
        assert sum(tried.values()) >= CASES, dict(tried)
