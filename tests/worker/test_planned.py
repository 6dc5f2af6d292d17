"""The plan that each rank of a node makes for itself, inside what Slurm gave to all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lockstep_slurm.placement import (
    Communication,
    Core,
    NumaDomain,
    Placement,
    PlacementError,
    RankPlacement,
    Topology,
    from_sysfs,
)
from lockstep_worker.placing import bind, planned
from lockstep_worker.world import local
from support.ranks import slurms, told

ALLOWED = sorted(os.sched_getaffinity(0))
EIGHT = Topology(tuple(Core((cpu,), cpu // 4, cpu // 4, cpu // 4) for cpu in range(8)),
                 (NumaDomain(0, 1 << 30), NumaDomain(1, 1 << 30)))  # fmt: skip
SMT = Topology(tuple(Core((core, core + 56), core // 28, core // 28, core // 28) for core in range(56)),
               (NumaDomain(0, 1 << 30), NumaDomain(1, 1 << 30)))  # fmt: skip
"""2 x 28 cores of 2 hardware threads."""


class TestThePlan:
    def test_every_rank_of_a_node_plans_the_same_and_takes_its_own_part(self) -> None:
        masks = told((0, 1, 2, 3), (4, 5, 6, 7))
        first, second = (planned(masks, slurms(rank), {}, {"SLURM_CPUS_PER_TASK": "4"}, EIGHT) for rank in range(2))
        assert first.placement == second.placement
        assert (first.own.local_rank, second.own.local_rank) == (0, 1)
        assert set(first.own.cpus) | set(second.own.cpus) <= set(first.granted)
        assert not set(first.own.cpus) & set(second.own.cpus)
        assert first.grant == ()
        assert first.variables["OMP_NUM_THREADS"] == str(len(first.own.compute))
        assert first.helpers
        assert not set(first.helpers) & {*first.own.compute, *second.own.compute}

    def test_helpers_go_to_an_idle_core_or_to_communication_before_a_sibling_of_what_computes(self) -> None:
        smt = Topology(tuple(Core((cpu, cpu + 8), 0, 0, 0) for cpu in range(8)), (NumaDomain(0, 1 << 30),))
        world = local(0, 1, "x", 0)

        def helpers(compute: Sequence[int], spare: Sequence[int], communication: Sequence[int] = ()) -> tuple[int, ...]:
            rank = RankPlacement(0, tuple(compute), Communication(horovod=tuple(communication)))
            placed = planned(told(range(16)), world, {}, {}, smt)
            return replace(placed, placement=Placement((rank,), tuple(spare))).helpers

        assert helpers(range(6), [6, 8, 14], [7]) == (6, 14)
        assert helpers(range(7), [8, 9], [7]) == (7,)
        assert helpers(range(8), [8, 9]) == (8, 9)
        assert helpers(range(16), []) == ()

    def test_ranks_that_were_given_their_cpus_together_part_them(self) -> None:
        world = local(1, 2, "x", 0)
        placed = planned(told(range(8), range(8)), world, {}, {}, EIGHT)
        assert not set(placed.placement.ranks[0].cpus) & set(placed.own.cpus)
        assert placed.grant == ()
        assert placed.placement.degraded == ()

    def test_without_slurm_too_few_cpus_are_a_degradation_that_says_so(self) -> None:
        placed = planned(told((0,), (0,), (0,)), local(2, 3, "x", 0), {}, {}, EIGHT)
        assert placed.own.compute == (0,)
        assert placed.own.degraded

    def test_under_slurm_too_few_cpus_are_an_error_unless_the_spec_takes_them(self) -> None:
        masks = told((0,), (0,))
        with pytest.raises(PlacementError):
            planned(masks, slurms(0), {}, {}, EIGHT)
        taken = planned(masks, slurms(0), {"placement": {"on_shortage": "degrade"}}, {}, EIGHT)
        assert taken.own.degraded

    def test_fewer_cpus_than_were_asked_for_are_an_error_that_names_both_numbers(self) -> None:
        masks, spec = told((0, 1), (2, 3)), {"placement": {"cpus_per_rank": 4}}
        with pytest.raises(PlacementError, match=r"2 ranks 4 CPUs together, and placement.cpus_per_rank asks for 4"):
            planned(masks, slurms(0), spec, {"SLURM_CPUS_PER_TASK": "4"}, EIGHT)
        spec["placement"]["on_shortage"] = "degrade"  # type: ignore[assignment]
        taken = planned(masks, slurms(0), spec, {"SLURM_CPUS_PER_TASK": "4"}, EIGHT)
        assert any("4 CPUs" in sentence for sentence in taken.grant)

    def cores_used(self, asked: int, *masks: Sequence[int]) -> int:
        """How many of ``SMT``'s cores have a use where ranks of ``masks`` asked Slurm for ``asked`` CPUs each."""
        spec = {"placement": {"cpus_per_rank": asked}}
        placed = planned(told(*masks), slurms(0), spec, {"SLURM_CPUS_PER_TASK": str(asked)}, SMT)
        used = {cpu for rank in placed.placement.ranks for cpu in rank.cpus}
        return sum(not used.isdisjoint(core.cpus) for core in SMT.cores)

    def test_cores_that_slurm_counts_as_its_cpus_are_all_used(self) -> None:
        # CPUs=56 of these in slurm.conf. Taken for hardware threads, the 28 of a rank were 14 cores: half of all idle.
        sockets = [(*range(at, at + 28), *range(at + 56, at + 84)) for at in (0, 28)]
        assert self.cores_used(28, *sockets) == 56
        assert self.cores_used(56, *sockets) == 56  # hardware threads
        assert self.cores_used(28, *(mask[:28] for mask in sockets)) == 56  # one of each core: --hint=nomultithread

    def test_a_cap_below_what_slurm_was_asked_for_is_in_slurms_unit_too(self) -> None:
        # Whole nodes: srun asks for all, and placement.cpus_per_rank is for the plan.
        sockets = [(*range(at, at + 28), *range(at + 56, at + 84)) for at in (0, 28)]
        spec = {"placement": {"cpus_per_rank": 14}}
        for asked, cores in (("28", 14), ("56", 7)):
            placed = planned(told(*sockets), slurms(0), spec, {"SLURM_CPUS_PER_TASK": asked}, SMT)
            used = set(placed.own.cpus)
            assert sum(not used.isdisjoint(core.cpus) for core in SMT.cores) == cores

    def test_cpus_that_nobody_bound_are_counted_as_hardware_threads_and_said_to_be_unbound(self) -> None:
        everything = tuple(range(112))
        spec = {"placement": {"cpus_per_rank": 28}}
        placed = planned(told(everything, everything), slurms(0), spec, {"SLURM_CPUS_PER_TASK": "28"}, SMT)
        assert placed.grant
        assert len({cpu % 56 for rank in placed.placement.ranks for cpu in rank.cpus}) == 28

    def test_too_few_cores_are_named_in_the_unit_that_they_were_asked_for_in(self) -> None:
        masks = told((*range(4), *range(56, 60)), (*range(4, 8), *range(60, 64)))
        spec = {"placement": {"cpus_per_rank": 6}}
        with pytest.raises(PlacementError, match=r"2 ranks 8 CPUs together, and placement.cpus_per_rank asks for 6"):
            planned(masks, slurms(0), spec, {"SLURM_CPUS_PER_TASK": "4"}, SMT)

    def test_what_slurm_gave_wrongly_is_said(self) -> None:
        masks, variables = told((0, 1, 2), (1, 2, 3)), {"SLURM_CPUS_PER_TASK": "3"}
        taken = planned(masks, slurms(0), {"placement": {"on_shortage": "degrade"}}, variables, EIGHT)
        assert taken.grant

    def test_a_cpu_that_the_kernel_refuses_is_named(self) -> None:
        absent = max(from_sysfs().cpus) + 1000
        code = (
            "import sys\n"
            "from lockstep_slurm.placement import PlacementError, RankPlacement\n"
            "from lockstep_worker.placing import bind\n"
            f"try: bind(RankPlacement(1, ({ALLOWED[0]}, {absent})), 'node7')\n"
            "except PlacementError as error: sys.exit(str(error))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert f"local rank 1 on node7 the CPUs [{absent}]" in done.stderr, done.stderr

    def test_a_process_is_bound_to_what_computes(self) -> None:
        before = os.sched_getaffinity(0)
        try:
            bind(RankPlacement(0, tuple(ALLOWED[:1]), loader=tuple(ALLOWED[1:2])), "n")
            assert sorted(os.sched_getaffinity(0)) == ALLOWED[:1]
        finally:
            os.sched_setaffinity(0, before)
