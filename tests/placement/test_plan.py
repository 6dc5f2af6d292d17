"""Dividing a node's CPUs among its ranks: rules that hold for every input, and the cases people meet."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.placement import PlacementError, RankPlacement, environment, plan

cpu_sets = st.sets(st.integers(0, 511), min_size=1, max_size=128).map(sorted)


@given(cpus=cpu_sets, ranks=st.integers(1, 16), communication=st.none() | st.integers(0, 8))
def test_ranks_never_overlap_and_stay_within_what_was_granted(
    cpus: list[int], ranks: int, communication: int | None
) -> None:
    try:
        placements = plan(cpus, ranks, communication)
    except PlacementError as error:
        assert len(cpus) // ranks <= (communication or 0), error
        return
    used = [cpu for placement in placements for cpu in (*placement.compute, *placement.communication)]
    assert len(placements) == ranks
    assert len(used) == len(set(used))
    assert set(used) <= set(cpus)
    assert len({len(placement.compute) for placement in placements}) == 1, "a faster rank would only wait"
    assert all(placement.compute and placement.degraded is None for placement in placements)
    if communication is not None:
        assert all(len(placement.communication) == communication for placement in placements)


@given(cpus=cpu_sets, ranks=st.integers(1, 16))
def test_sharing_is_named(cpus: list[int], ranks: int) -> None:
    placements = plan(cpus, ranks, share=True)
    assert all(bool(placement.degraded) == (ranks > len(cpus)) for placement in placements)


def test_auto_spares_a_communication_cpu_only_where_four_are_had() -> None:
    assert plan(range(3), 1) == (RankPlacement((0, 1, 2)),)
    assert plan(range(8), 2) == (RankPlacement((0, 1, 2), (3,)), RankPlacement((4, 5, 6), (7,)))


def test_cpus_that_cannot_be_divided_stay_idle() -> None:
    assert plan(range(5), 2, 0) == (RankPlacement((0, 1)), RankPlacement((2, 3)))


@pytest.mark.parametrize(
    ("cpus", "ranks", "communication", "words"),
    [
        ([], 1, None, "no CPU was granted"),
        ([0], 0, None, "at least 1"),
        ([0, 0], 1, None, "named twice"),
        ([0, 1], 3, None, "3 ranks on 2 CPUs"),
        ([0, 1], 1, 2, "2 communication CPUs of 2 CPUs per rank"),
    ],
)
def test_what_cannot_be_satisfied_names_the_numbers(
    cpus: list[int], ranks: int, communication: int | None, words: str
) -> None:
    with pytest.raises(PlacementError, match=words):
        plan(cpus, ranks, communication)


def test_environment_counts_compute_cpus_and_fills_the_affinity_list_for_every_local_rank() -> None:
    first, second = plan(range(8), 2)
    variables = environment(second, local_rank=1, local_size=2)
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["HOROVOD_THREAD_AFFINITY"].split(",")[1] == "7"
    assert len(variables["HOROVOD_THREAD_AFFINITY"].split(",")) == 2
    assert "HOROVOD_THREAD_AFFINITY" not in environment(RankPlacement((0,)), local_rank=0, local_size=1)
    with pytest.raises(ValueError, match="local rank 2"):
        environment(first, local_rank=2, local_size=2)


def test_the_room_needs_only_the_standard_library() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"  # Debian's Python has a sitecustomize; the editable install a finder
        "import lockstep_slurm.placement\n"
        "names = {m.split('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(names - set(sys.stdlib_module_names) - {'lockstep_slurm'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
