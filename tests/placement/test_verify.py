"""The verdict: what is as planned is called so, and each thing that goes wrong in the field is named with its cause."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.placement import Communication, Memory, Observation, RankPlacement, Thread, summary, verify
from lockstep_slurm.placement.request import ROLES

PLAN = RankPlacement(1, (8, 9, 10), Communication(horovod=(11,), gloo=(12,)), (13,), (1,), Memory("preferred", (1,)))
PLANNED = {"OMP_NUM_THREADS": "3", "OMP_PROC_BIND": "false", "HOROVOD_THREAD_AFFINITY": "3,11"}
BY_CPU = {**PLANNED, "OMP_PROC_BIND": "close", "OMP_PLACES": "{8},{9},{10}"}


def observation(plan: RankPlacement, *, by_cpu: bool = False, **changed: Any) -> Observation:
    """What the kernel says when everything is as the plan has it."""
    roles = ["main", *["compute"] * (len(plan.compute) - 1)]
    masks = [(cpu,) if by_cpu else plan.compute for cpu in plan.compute]
    for role in ROLES:
        for cpu in getattr(plan.communication, role):
            roles.append(role)
            masks.append((cpu,))
    roles += ["loader", "imported", "unclassified"]
    masks += [plan.loader or plan.compute, plan.compute, plan.communication.cpus or plan.compute]
    seen = Observation(
        rank=3, local_rank=plan.local_rank, pid=100, when="init",
        threads=tuple(
            Thread(100 + index, role, "python", tuple(sorted(mask)), mask[0])
            for index, (role, mask) in enumerate(zip(roles, masks, strict=True))
        ),
        allowed=tuple(sorted(plan.cpus)),
        memory_policy="prefer:1" if plan.memory.policy == "preferred" else "default",
        pages=dict.fromkeys(plan.numa, 1000),
    )  # fmt: skip
    return replace(seen, **changed)


def with_mask(seen: Observation, role: str, cpus: tuple[int, ...], *, which: int = 0) -> Observation:
    """The same with one thread of ``role`` elsewhere."""
    index = [index for index, thread in enumerate(seen.threads) if thread.role == role][which]
    return replace(seen, threads=tuple(replace(t, cpus=cpus) if i == index else t for i, t in enumerate(seen.threads)))


def without(seen: Observation, role: str) -> Observation:
    return replace(seen, threads=tuple(thread for thread in seen.threads if thread.role != role))


def said(seen: Observation, **known: Any) -> tuple[str, ...]:
    return verify(PLAN, seen, node="n2", **{"variables": PLANNED, **known}).deviations


def test_what_is_as_planned_has_no_sentence() -> None:
    verdict = verify(PLAN, observation(PLAN), node="n2", variables=PLANNED)
    assert (verdict.result, verdict.deviations) == ("as planned", ())
    assert (verdict.rank, verdict.local_rank, verdict.node, verdict.when) == (3, 1, "n2", "init")
    assert [thread.planned for thread in verdict.threads][:5] == [(8, 9, 10)] * 3 + [(11,), (12,)]
    assert summary(verdict) == "rank 3 on n2: as planned: 8 threads"


def test_a_plan_that_names_what_it_could_not_do_is_degraded_and_not_deviating() -> None:
    verdict = verify(replace(PLAN, degraded=("4 ranks share 2 CPUs",)), observation(PLAN), node="n2", variables=PLANNED)
    assert (verdict.result, verdict.degradations) == ("degraded", ("4 ranks share 2 CPUs",))
    assert summary(verdict) == (
        "rank 3 on n2: degraded: 8 threads as planned, by a plan that says: 4 ranks share 2 CPUs"
    )


def test_horovod_sent_out_of_its_cpuset_is_named_with_the_variable() -> None:
    seen = with_mask(observation(PLAN), "horovod", (8, 9, 10))
    seen = replace(seen, variables={**PLANNED, "HOROVOD_THREAD_AFFINITY": "3,63"})
    (sentence,) = said(seen)
    assert sentence == (
        "rank 3 on n2: Horovod's background thread (103) may run on 8-10, planned on 11: "
        "HOROVOD_THREAD_AFFINITY=3,63 sends the thread of local rank 1 to CPU 63, outside of the cpuset 8-13: "
        "Horovod could not move it, and only logged that"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("3", "HOROVOD_THREAD_AFFINITY=3 has 1 entries and so none for local rank 1"),
        ("3,x", "'x' for local rank 1, which is no CPU"),
        ("3,12", "to CPU 12"),
        ("3,11", "is as planned, so something else moved it"),
        (None, "is not set, though it was planned"),
    ],
)
def test_other_ways_to_lose_horovods_thread(value: str | None, words: str) -> None:
    variables = {"OMP_NUM_THREADS": "3"} | ({"HOROVOD_THREAD_AFFINITY": value} if value else {})
    (sentence,) = said(with_mask(observation(PLAN, variables=variables), "horovod", (12,)))
    assert words in sentence


def test_too_many_openmp_threads_are_named_with_the_variable() -> None:
    seen = observation(PLAN)
    more = tuple(Thread(200 + number, "compute", "python", (8, 9, 10), 8) for number in range(5))
    seen = replace(seen, threads=(*seen.threads, *more), variables={**PLANNED, "OMP_NUM_THREADS": "8"})
    (sentence,) = said(seen)
    assert sentence == (
        "rank 3 on n2: 8 threads compute on 3 compute CPUs (8-10), so they wait for one another: "
        "OMP_NUM_THREADS is 8, planned 3"
    )


def test_too_few_openmp_threads_are_named_but_a_program_without_openmp_is_well() -> None:
    seen = without(observation(PLAN), "compute")
    (sentence,) = said(replace(seen, variables={**PLANNED, "OMP_NUM_THREADS": "1"}))
    assert sentence == (
        "rank 3 on n2: 1 thread computes on 3 compute CPUs (8-10), so CPUs stay idle: OMP_NUM_THREADS is 1, planned 3"
    )
    assert said(replace(seen, variables=PLANNED)) == ()


def test_kmp_affinity_compact_with_all_ranks_on_core_0_is_named_with_the_variable() -> None:
    variables = {**PLANNED, "KMP_AFFINITY": "granularity=fine,compact,1,0"}
    seen = with_mask(observation(PLAN, variables=variables), "main", (0,))
    (sentence,) = said(seen)
    assert sentence == (
        "rank 3 on n2: the main thread (100) may run on 0, planned on 8-10: "
        "KMP_AFFINITY=granularity=fine,compact,1,0 packs the threads onto the machine's first cores (CPU 0 among "
        "them), those of every rank of the node onto the same ones"
    )


def test_threads_that_deviate_alike_are_one_sentence_that_each_of_them_carries() -> None:
    seen = observation(PLAN, variables={**PLANNED, "OMP_PLACES": "{0}"})
    seen = with_mask(with_mask(seen, "compute", (0,), which=1), "compute", (0,))
    verdict = verify(PLAN, seen, node="n2", variables=PLANNED)
    assert verdict.deviations == (
        "rank 3 on n2: 2 compute threads (101-102) may run on 0, planned on 8-10: OMP_PLACES={0} (not planned)",
    )
    assert [bool(thread.deviation) for thread in verdict.threads] == [False, True, True, *[False] * 5]
    assert summary(verdict).startswith("rank 3 on n2: deviates: 2 of 8 threads: 2 compute threads (101-102)")


def test_swapped_masks_are_called_swapped() -> None:
    seen = with_mask(with_mask(observation(PLAN), "horovod", (12,)), "gloo", (11,))
    (sentence,) = said(seen)
    assert sentence == (
        "rank 3 on n2: the masks of Horovod's background thread (103) and Gloo's socket thread (104) are swapped: "
        "they may run on 12 and 11, planned on 11 and 12"
    )
    seen = with_mask(with_mask(observation(PLAN), "horovod", (8, 9, 10)), "compute", (11,))
    assert ["are swapped" in sentence for sentence in said(seen)] == [True]
    seen = with_mask(with_mask(observation(PLAN, by_cpu=True), "horovod", (9,)), "compute", (11,))
    (sentence,) = said(seen, variables=BY_CPU)
    assert "are swapped: they may run on 11 and 9, planned on one of 8-10 for itself and 11" in sentence


def test_compute_threads_with_a_cpu_each_may_not_share_one() -> None:
    seen = observation(PLAN, by_cpu=True)
    assert said(seen, variables=BY_CPU) == ()
    (sentence,) = said(with_mask(seen, "compute", (8,)), variables=BY_CPU)
    assert "a compute thread (101) may run on 8, planned on one of 8-10 for itself" in sentence
    assert said(with_mask(seen, "compute", (8, 9, 10)), variables=BY_CPU), "bound one by one, all is too much"


def test_workers_of_oneccl_may_not_share_a_cpu_either() -> None:
    plan = replace(PLAN, communication=Communication(horovod=(11,), gloo=(11,), ccl=(12, 13)), loader=())
    seen = observation(plan, variables={**PLANNED, "CCL_WORKER_AFFINITY": "auto"})
    assert verify(plan, seen, node="n2", variables=PLANNED).result == "as planned"
    (sentence,) = verify(plan, with_mask(seen, "ccl", (12,), which=1), node="n2", variables=PLANNED).deviations
    assert "may run on 12, planned on one of 12-13 for itself: CCL_WORKER_AFFINITY=auto" in sentence
    fewer = replace(seen, threads=seen.threads[:6] + seen.threads[7:])
    assert verify(plan, fewer, node="n2").result == "as planned", "they begin with the first collective"
    (sentence,) = verify(plan, replace(fewer, when="steps"), node="n2").deviations
    assert sentence.endswith("2 workers of oneCCL's were planned on 12-13, and 1 seen")


def test_roles_without_cpus_of_their_own_stay_among_the_compute_cpus() -> None:
    plan = RankPlacement(1, (8, 9, 10), numa=(1,))
    seen = observation(plan)
    extra = Thread(300, "horovod", "python", (9,), 9)
    assert verify(plan, replace(seen, threads=(*seen.threads, extra)), node="n2").result == "as planned"
    outside = replace(extra, cpus=(9, 63))
    (sentence,) = verify(plan, replace(seen, threads=(*seen.threads, outside)), node="n2").deviations
    assert "may run on 9,63, planned on 8-10" in sentence


def test_loaders_stay_off_the_communication_cpus() -> None:
    (sentence,) = said(with_mask(observation(PLAN), "loader", (11, 13)))
    assert "a loader (105) may run on 11,13, planned on 13; on 11 it is in the way of communication threads" in sentence


def test_a_thread_of_unknown_birth_deviates_only_outside_of_its_rank() -> None:
    assert said(with_mask(observation(PLAN), "unclassified", (8, 11, 13))) == ()
    (sentence,) = said(with_mask(observation(PLAN), "unclassified", (7, 8)))
    assert "a thread of unknown birth (107) may run on 7-8, planned on 8-13" in sentence


def test_a_planned_thread_that_nobody_saw_is_named() -> None:
    seen = without(observation(PLAN), "horovod")
    assert said(seen) == ("rank 3 on n2: Horovod's background thread was planned on 11, and none seen",)
    assert said(without(observation(PLAN), "gloo")) == (
        "rank 3 on n2: Gloo's socket thread was planned on 12, and none seen",
    )


def test_a_rank_alone_has_no_gloo_thread_and_torch_distributed_no_thread_of_horovods() -> None:
    alone = without(observation(PLAN), "gloo")
    assert said(alone, size=1) == ()
    assert said(replace(alone, variables={**PLANNED, "HOROVOD_SIZE": "1"})) == ()
    assert said(without(alone, "horovod"), size=1) != (), "it said that it had started"
    assert said(replace(without(alone, "horovod"), when="steps")) == (), "no communication library was started yet"
    of_torch = without(observation(PLAN), "horovod")
    assert said(replace(of_torch, libraries=("torch",))) == ()
    assert said(replace(of_torch, libraries=("torch", "horovod"))) != (), "Horovod was started as well"


def test_a_cpuset_that_leaves_out_planned_cpus_is_named() -> None:
    (sentence,) = said(observation(PLAN, allowed=(8, 9, 10, 11)))
    assert sentence == "rank 3 on n2: its cpuset allows 8-11, which leaves out 12-13 of the plan"


def test_affinity_that_the_script_has_set_anew_is_suspected() -> None:
    (sentence,) = said(with_mask(observation(PLAN), "main", tuple(range(64))))
    assert "may run on 0-63, planned on 8-10: something has set its affinity anew" in sentence


def test_what_slurm_gave_wrongly_comes_first() -> None:
    seen = with_mask(observation(PLAN), "main", (8,))
    sentences = said(seen, grant=("Slurm bound no rank",))
    assert sentences[0] == "Slurm bound no rank"
    assert len(sentences) == 2


def test_a_rank_of_which_nothing_was_seen_is_not_as_planned() -> None:
    assert said(observation(PLAN, threads=())) == (
        "rank 3 on n2: nothing was seen of its threads, so nothing is proved",
    )


@pytest.mark.parametrize(
    ("memory", "policy", "fine"),
    [
        (Memory("local"), "default", True),
        (Memory("local"), "local", True),
        (Memory("local"), "interleave:0-1", False),
        (Memory("bind", (0, 1)), "bind:all", False),
        (Memory("preferred", (1,)), "prefer:1", True),
        (Memory("preferred", (0, 1)), "prefer:0", True),
        (Memory("preferred", (1,)), "default", False),
        (Memory("preferred", (1,)), "prefer", False),
        (Memory("preferred", (0, 1)), "prefer", True),
        (Memory("bind", (0, 1)), "bind:0-1", True),
        (Memory("bind", (0, 1)), "bind:0", False),
        (Memory("bind", (1,)), "", True),
    ],
)
def test_the_memory_policy_is_the_planned_one_where_the_kernel_has_any(memory: Memory, policy: str, fine: bool) -> None:
    verdict = verify(replace(PLAN, memory=memory), observation(PLAN, memory_policy=policy), node="n2")
    assert (verdict.deviations == ()) is fine, verdict.deviations
    assert fine or f"its memory policy is {policy}, planned {memory.policy}" in verdict.deviations[0]


def test_memory_elsewhere_is_named_beyond_the_pages_of_libraries() -> None:
    assert said(observation(PLAN, pages={0: 131_072, 1: 1000})) == (), "libraries lie where they were first read"
    assert said(observation(PLAN, pages={0: 200_000, 1: 2_000_000})) == (), "a few pages spill"
    (sentence,) = said(observation(PLAN, pages={0: 1_000_000, 1: 1_000_000}))
    assert sentence == (
        "rank 3 on n2: 50% of its memory (1,000,000 of 2,000,000 pages) lies on NUMA domain 0, planned on 1: that "
        "was full, or what the rank uses was made by a process elsewhere"
    )


@st.composite
def plans(draw: st.DrawFn) -> RankPlacement:
    cpus = draw(st.lists(st.integers(0, 255), unique=True, min_size=1, max_size=24))
    own = draw(st.integers(0, min(6, len(cpus) - 1)))
    spare, compute = cpus[:own], cpus[own:]
    roles: dict[str, tuple[int, ...]] = {}
    for role in ROLES:
        width = draw(st.integers(0, 3 if role == "ccl" else 1))
        roles[role] = tuple(draw(st.permutations(spare))[:width]) if width else ()
    taken = {cpu for one in roles.values() for cpu in one}
    loader = tuple(cpu for cpu in spare if cpu not in taken)
    return RankPlacement(1, tuple(compute), Communication(**roles), loader, (0,))


@given(plan=plans(), by_cpu=st.booleans())
def test_what_is_built_from_the_plan_is_always_as_planned(plan: RankPlacement, by_cpu: bool) -> None:
    variables = {"OMP_PROC_BIND": "close"} if by_cpu else {}
    verdict = verify(plan, observation(plan, by_cpu=by_cpu), node="n", variables=variables)
    assert (verdict.result, verdict.deviations) == ("as planned", ())


@given(plan=plans(), by_cpu=st.booleans(), data=st.data())
def test_any_thread_that_is_moved_out_of_its_planned_cpus_is_named(
    plan: RankPlacement, by_cpu: bool, data: st.DataObject
) -> None:
    variables = {"OMP_PROC_BIND": "close"} if by_cpu else {}
    seen = observation(plan, by_cpu=by_cpu)
    good = verify(plan, seen, node="n", variables=variables)
    index = data.draw(st.integers(0, len(seen.threads) - 1))
    away = data.draw(st.sets(st.integers(0, 300), min_size=1, max_size=8).map(lambda cpus: tuple(sorted(cpus))))
    if set(away) <= set(good.threads[index].planned):
        away = (*away, 400)
    threads = tuple(replace(t, cpus=away) if i == index else t for i, t in enumerate(seen.threads))
    verdict = verify(plan, replace(seen, threads=threads), node="n", variables=variables)
    assert verdict.result == "deviates"
    assert [i for i, thread in enumerate(verdict.threads) if thread.deviation] == [index]
    assert f"({seen.threads[index].tid})" in verdict.threads[index].deviation
    assert verdict.deviations == (verdict.threads[index].deviation,)


@given(plan=plans(), by_cpu=st.booleans(), data=st.data())
def test_two_threads_whose_masks_are_swapped_are_named_together(
    plan: RankPlacement, by_cpu: bool, data: st.DataObject
) -> None:
    variables = {"OMP_PROC_BIND": "close"} if by_cpu else {}
    seen = observation(plan, by_cpu=by_cpu)
    one, other = data.draw(st.permutations(range(len(seen.threads))))[:2]
    masks = [thread.cpus for thread in seen.threads]
    masks[one], masks[other] = masks[other], masks[one]
    threads = tuple(replace(t, cpus=mask) for t, mask in zip(seen.threads, masks, strict=True))
    verdict = verify(plan, replace(seen, threads=threads), node="n", variables=variables)
    wrong = [i for i, thread in enumerate(verdict.threads) if thread.deviation]
    # Of workers that may have any one CPU of several, it is nobody's business which of them has a wrong one.
    assert Counter(threads[index].role for index in wrong) <= Counter(threads[index].role for index in (one, other))
    if len(wrong) == 2:
        (sentence,) = verdict.deviations
        assert all(f"({threads[index].tid})" in sentence for index in wrong)
        assert "are swapped" in sentence
