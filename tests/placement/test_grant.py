"""What Slurm started the ranks with: every way in which that goes wrong is a sentence with its cause."""

from __future__ import annotations

import pytest

from lockstep_slurm.placement import Core, NumaDomain, Topology, counts_cores, judge

MACHINE = Topology(
    tuple(Core((core, core + 4), core // 2, core // 2, core // 2) for core in range(4)), (NumaDomain(0, 0),)
)
BOUND = {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0x33,0xcc"}
TWO = {0: (0, 1, 4, 5), 1: (2, 3, 6, 7)}
EVERYTHING = tuple(range(8))


def judged(masks: dict[int, tuple[int, ...]], asked: int | None, variables: dict[str, str]) -> tuple[str, ...]:
    return judge(masks, asked=asked, topology=MACHINE, variables=variables)


@pytest.mark.parametrize(
    ("masks", "asked", "variables"),
    [
        (TWO, 4, BOUND),
        (TWO, 3, BOUND),  # rounded up to whole cores
        ({0: EVERYTHING}, 8, {}),
        ({0: EVERYTHING, 1: EVERYTHING}, 4, {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0xff"}),
        ({0: EVERYTHING, 1: EVERYTHING}, None, {}),  # no Slurm, or an mpirun
        ({0: (0, 4), 1: (1, 5)}, 1, {}),  # Slurm's CPUs are cores
        ({0: (0, 4)}, 1, {}),  # the same, or rounded up to a whole core
        ({0: (0, 1, 4, 5)}, 3, {}),
        # A whole node, and the larger one of unlike ones; and of one where slurmd has a part of the machine.
        ({0: EVERYTHING}, 2, {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0xff"}),
        ({0: tuple(range(7))}, 7, {}),
        ({0: tuple(range(7))}, 2, {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0x7f"}),
        ({}, 4, {}),
    ],
)
def test_what_is_well_has_no_sentence(
    masks: dict[int, tuple[int, ...]], asked: int | None, variables: dict[str, str]
) -> None:
    assert judged(masks, asked, variables) == ()


@pytest.mark.parametrize(
    ("variables", "masks"),
    [
        ({"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "1"}, {0: (0,), 1: (0,)}),  # as 22.05 hands on 0x1
        ({"SLURM_CPU_BIND": "quiet,mask_cpu:0x1*2"}, {0: (0,), 1: (0,)}),
        ({"SLURM_CPU_BIND_TYPE": "map_cpu:", "SLURM_CPU_BIND_LIST": "0,1"}, {0: (0,), 1: (1,)}),
        ({"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0x33"}, {0: (0, 1, 4, 5), 1: (0, 1, 4, 5)}),
    ],
)
def test_a_leftover_binding_is_known_by_having_been_carried_out(
    variables: dict[str, str], masks: dict[int, tuple[int, ...]]
) -> None:
    (sentence,) = judged(masks, 4, variables)
    assert sentence.startswith("SLURM_CPU_BIND")
    assert "where 4 CPUs for each rank had been asked for: it is left over from another job or shell" in sentence


def test_the_leftovers_sentence_names_value_and_cure() -> None:
    variables = {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0x1"}
    (sentence,) = judged({0: (0,), 1: (0,)}, 1, variables)
    assert sentence == (
        "SLURM_CPU_BIND_LIST=0x1 bound local rank 0 to 0, local rank 1 to 0, where 1 CPU for each rank had been "
        "asked for: it is left over from another job or shell; unset SLURM_CPU_BIND, SLURM_CPU_BIND_LIST, "
        "SLURM_CPU_BIND_TYPE and SLURM_CPU_BIND_VERBOSE before srun"
    )


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_CPU_BIND": "quiet,corescores", "SLURM_CPU_BIND_TYPE": "cores", "SLURM_CPU_BIND_LIST": "cores"},
        {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "1"},  # left over, and nobody there to heed it
    ],
)
def test_ranks_that_nothing_bound_point_to_the_task_plugin(variables: dict[str, str]) -> None:
    (sentence,) = judged({0: EVERYTHING, 1: EVERYTHING}, 2, variables)
    assert sentence == (
        "Slurm bound no rank: local ranks 0-1 were each started with 0-7, where 2 CPUs for each rank had been "
        "asked for; TaskPlugin in slurm.conf seems to be without task/affinity, so the plan divides what other "
        "jobs may be using as well"
    )
    (sentence,) = judged({0: EVERYTHING, 1: EVERYTHING}, 4, variables)
    assert sentence.endswith("without task/affinity, so the plan divides these CPUs itself")
    (sentence,) = judged({0: EVERYTHING}, 4, variables)
    assert sentence.startswith("Slurm bound no rank: local rank 0 was started with 0-7")


def test_a_rank_alone_that_nothing_bound_is_known_where_slurmd_has_a_part_of_the_machine() -> None:
    # Before, only a rank with every CPU of the machine was: all jobs of such a node sat on its first CPUs, unnoticed.
    (sentence,) = judged({0: tuple(range(7))}, 2, {})
    assert sentence.startswith(
        "Slurm bound no rank: local rank 0 was started with 0-6, where 2 CPUs for each rank had been asked for"
    )
    assert sentence.endswith("so the plan divides what other jobs may be using as well")


@pytest.mark.parametrize(
    ("masks", "asked", "cores"),
    [
        (TWO, 2, True),
        (TWO, 4, False),  # hardware threads
        (TWO, 3, False),  # the same, rounded up to whole cores
        ({0: EVERYTHING}, 4, True),
        ({0: EVERYTHING}, 8, False),
        ({0: (0, 1, 4, 5), 1: (0, 1, 4, 5)}, 2, False),  # hardware threads, bound in one piece
        ({0: EVERYTHING, 1: EVERYTHING}, 2, True),  # cores, bound in one piece
        ({0: (0, 1), 1: (2, 3)}, 2, False),  # one thread of each core: of --hint=nomultithread
        ({0: (0, 1, 4, 5), 1: (2, 3, 6)}, 2, False),
        ({0: (0, 4), 1: (1, 5)}, 1, True),
        ({0: (0, 4)}, 1, False),  # that says nothing
        ({}, 2, False),
    ],
)
def test_by_whole_cores_it_is_known_what_a_cpu_of_slurms_is(
    masks: dict[int, tuple[int, ...]], asked: int, cores: bool
) -> None:
    assert counts_cores(masks, asked=asked, topology=MACHINE) is cores


def test_a_core_without_a_second_thread_says_nothing_of_what_slurm_counts() -> None:
    hybrid = Topology((Core((0, 1), 0, 0, 0), *(Core((cpu,), 0, 0, 0) for cpu in range(2, 6))), (NumaDomain(0, 0),))
    assert not counts_cores({0: (2, 3, 4, 5)}, asked=4, topology=hybrid)
    single = Topology(tuple(Core((cpu,), 0, 0, 0) for cpu in range(4)), (NumaDomain(0, 0),))
    assert not counts_cores({0: (0, 1, 2, 3)}, asked=4, topology=single)


def test_a_line_that_wants_no_binding_is_named_and_no_plugin() -> None:
    (sentence,) = judged({0: EVERYTHING}, 4, {"SLURM_CPU_BIND": "quiet,none", "SLURM_CPU_BIND_TYPE": "none"})
    assert "that is --cpu-bind=none, so the plan divides" in sentence
    assert "TaskPlugin" not in sentence


def test_a_cpuset_that_is_smaller_than_asked_is_told_from_a_leftover() -> None:
    (sentence,) = judged({0: (0, 1), 1: (2, 3, 6, 7)}, 4, BOUND)
    assert sentence == (
        "local rank 0 was given 0-1, of 4 CPUs asked for: Slurm bound it to 0-1,4-5, so its cpuset is smaller than "
        "what Slurm meant to give"
    )
    assert judged({0: (0, 1), 1: (2, 3)}, 4, {}) == (
        "local rank 0 was given 0-1, of 4 CPUs asked for: its cpuset is smaller than what was asked for",
        "local rank 1 was given 2-3, of 4 CPUs asked for: its cpuset is smaller than what was asked for",
    )


def test_ranks_that_share_cpus_are_named() -> None:
    assert judged({0: (0, 1, 2, 3), 1: (2, 3, 4, 5)}, 4, {}) == (
        "local ranks 0 and 1 were both given 2-3, where 4 CPUs for each rank had been asked for",
    )


def test_ranks_that_share_a_core_since_their_cpus_are_no_whole_cores_are_told_so() -> None:
    variables = {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0x33,0x66"}
    (sentence,) = judged({0: (0, 1, 4, 5), 1: (1, 2, 5, 6)}, 3, variables)
    assert sentence == (
        "local ranks 0 and 1 were both given 1,5, where 3 CPUs for each rank had been asked for; ask for a multiple of "
        "2, so that none shares a core"
    )
