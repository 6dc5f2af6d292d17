"""What Slurm started the ranks with: every way in which that goes wrong is a sentence with its cause."""

from __future__ import annotations

import pytest

from lockstep_slurm.placement import Core, NumaDomain, Topology, judge

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
