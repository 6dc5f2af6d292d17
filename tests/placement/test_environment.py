"""The variables of a placement: what they say, and that real OpenMP runtimes do as they say."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from lockstep_slurm.placement import (
    Communication,
    Placement,
    RankPlacement,
    common_environment,
    environment,
)

TWO = Placement(
    ranks=(
        RankPlacement(0, (0, 4, 1, 5), Communication(horovod=(2,), gloo=(6,), ccl=(2, 6))),
        RankPlacement(1, (8, 12, 9, 13), Communication(horovod=(10,), gloo=(14,), ccl=(10, 14))),
    )
)
SHARED = Placement(ranks=(RankPlacement(0, (0, 1, 2)), RankPlacement(1, (3, 4, 5))))


def test_the_thread_counts_are_the_compute_cpus() -> None:
    for threads in ("rank", "cpu"):
        variables = environment(TWO, 1, threads=threads)
        assert variables["OMP_NUM_THREADS"] == variables["MKL_NUM_THREADS"] == "4"
        assert variables["LOCKSTEP_INTEROP_THREADS"] == "1"


def test_threads_of_a_rank_are_bound_by_its_mask_alone() -> None:
    variables = environment(TWO, 0)
    assert variables["OMP_PROC_BIND"] == "false"
    assert not variables.keys() & {"OMP_PLACES", "KMP_AFFINITY", "GOMP_CPU_AFFINITY"}
    assert variables["OPENBLAS_NUM_THREADS"] == "4"


def test_threads_on_a_cpu_each_have_one_place_in_the_plans_order() -> None:
    variables = environment(TWO, 1, threads="cpu")
    assert variables["OMP_PLACES"] == "{8},{12},{9},{13}"
    assert variables["OMP_PROC_BIND"] == "close"
    assert variables["KMP_AFFINITY"] == "granularity=fine,norespect,proclist=[8,12,9,13],explicit"
    assert variables["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("backend", ["gloo", "mpi", "ccl"])
def test_horovods_thread_has_one_id_for_each_local_rank(backend: str) -> None:
    for rank in (0, 1):
        assert environment(TWO, rank, backend=backend)["HOROVOD_THREAD_AFFINITY"] == "2,10"
    assert "HOROVOD_THREAD_AFFINITY" not in environment(SHARED, 0, backend=backend)


def test_a_rank_without_a_cpu_for_horovods_thread_keeps_the_others_entries_in_their_places() -> None:
    mixed = Placement(ranks=(SHARED.ranks[0], TWO.ranks[1]))
    assert environment(mixed, 1)["HOROVOD_THREAD_AFFINITY"] == "2,10"


@pytest.mark.parametrize(
    ("placement", "workers", "affinity"),
    [
        (TWO, None, "2,6,10,14"),
        (TWO, 1, "2,10"),
        (TWO, 3, "2,6,2,10,14,10"),
        (SHARED, None, "2,5"),
        (SHARED, 2, "1,2,4,5"),
        (SHARED, 4, "0,1,2,0,3,4,5,3"),
    ],
)
def test_oneccl_gets_workers_times_local_ranks_ids_and_never_auto(
    placement: Placement, workers: int | None, affinity: str
) -> None:
    variables = environment(placement, 0, backend="ccl", ccl_workers=workers)
    assert variables["CCL_WORKER_AFFINITY"] == affinity
    ids = affinity.split(",")
    assert int(variables["CCL_WORKER_COUNT"]) * len(placement.ranks) == len(ids)
    assert not [name for name in environment(placement, 0) if name.startswith("CCL_")]


def test_intel_mpi_does_not_bind_anew() -> None:
    assert "I_MPI_PIN" not in environment(TWO, 0)
    assert environment(TWO, 0, backend="mpi")["I_MPI_PIN"] == "0"
    assert environment(TWO, 0, backend="ccl")["I_MPI_PIN"] == "0"


def test_what_all_ranks_have_in_common_is_told_apart() -> None:
    common = common_environment(TWO, backend="ccl", threads="cpu")
    assert common.keys() == environment(TWO, 0, backend="ccl", threads="cpu").keys() - {"OMP_PLACES", "KMP_AFFINITY"}
    for rank in (0, 1):
        assert environment(TWO, rank, backend="ccl", threads="cpu").items() >= common.items()


@pytest.mark.parametrize(
    ("rank", "wanted", "message"),
    [
        (2, {}, "local rank 2 is not within the 2 ranks"),
        (-1, {}, "local rank -1 is not within"),
        (0, {"backend": "nccl"}, "'nccl' is none of gloo, mpi, ccl"),
        (0, {"threads": "core"}, "'core' is none of rank, cpu"),
        (0, {"backend": "ccl", "ccl_workers": 0}, "ccl_workers is 0"),
    ],
)
def test_what_there_is_not_is_refused(rank: int, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        environment(TWO, rank, **wanted)


@pytest.mark.parametrize("threads", ["rank", "cpu"])
def test_torch_starts_the_threads_that_were_planned_and_where(threads: str) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("one CPU cannot tell threads apart")
    # Not in the order of their numbers, to see that the plan's order is what counts.
    cpus = tuple(reversed(allowed[:2]))
    variables = environment(Placement(ranks=(RankPlacement(0, cpus),)), 0, threads=threads)
    program = (
        f"import os; os.sched_setaffinity(0, {set(cpus)})\n"
        "import torch; torch.ones(1 << 18).sum()\n"
        "of = lambda thread: sorted(os.sched_getaffinity(int(thread)))\n"
        "print([torch.get_num_threads(), [of(thread) for thread in sorted(os.listdir('/proc/self/task'), key=int)]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    count, masks = ast.literal_eval(done.stdout)
    assert count == 2
    if threads == "cpu":
        assert (masks[0], masks[-1]) == ([cpus[0]], [cpus[1]])
    else:
        assert {tuple(mask) for mask in masks} == {tuple(sorted(cpus))}
