"""What is written as JSON on a node is read back as the same values elsewhere."""

from __future__ import annotations

import json

from lockstep_slurm.placement import (
    Card,
    Communication,
    Core,
    Memory,
    NumaDomain,
    Observation,
    Placement,
    RankPlacement,
    Thread,
    ThreadVerdict,
    Topology,
    Verdict,
)

TOPOLOGY = Topology(
    cores=(Core((0, 4), 0, 0, 0), Core((1,), 0, 0, 0), Core((2, 6), 1, 1, 1)),
    numa=(NumaDomain(0, 1 << 30, (10, 20)), NumaDomain(1, 0, (20, 10))),
    cards=(Card("eth0", None), Card("ib0", 1)),
    offline=(5,),
    name="n1",
)
PLACEMENT = Placement(
    ranks=(
        RankPlacement(0, (0, 1), Communication(horovod=(4,), gloo=(4,)), (), (0,), Memory("preferred", (0,)), ("no",)),
        RankPlacement(1, (2,)),
    ),
    spare=(6,),
    warnings=("a sentence",),
    policy="sibling",
)
OBSERVATION = Observation(
    rank=3, local_rank=1, pid=77, when="init", threads=(Thread(77, "main", "python", (0, 1), 1),), allowed=(0, 1, 2),
    memory_policy="prefer:0", pages={0: 5, 1: 7}, variables={"OMP_NUM_THREADS": "2"},
)  # fmt: skip
VERDICT = Verdict(
    rank=3, local_rank=1, node="n1", when="steps", result="deviates",
    threads=(ThreadVerdict(77, "main", "python", (0, 1), (0,), 0, "it may run on 0 alone"),),
    deviations=("it may run on 0 alone",), degradations=(),
)  # fmt: skip


def test_each_comes_back_as_it_was() -> None:
    assert Topology.parse(json.loads(json.dumps(TOPOLOGY.document()))) == TOPOLOGY
    assert Placement.parse(json.loads(json.dumps(PLACEMENT.document()))) == PLACEMENT
    assert Observation.parse(json.loads(json.dumps(OBSERVATION.document()))) == OBSERVATION
    assert Verdict.parse(json.loads(json.dumps(VERDICT.document()))) == VERDICT


def test_what_they_say_of_themselves() -> None:
    assert TOPOLOGY.cpus == (0, 4, 1, 2, 6)
    assert TOPOLOGY.threads_per_core == 2
    assert PLACEMENT.ranks[0].cpus == (0, 1, 4)
    assert PLACEMENT.degraded == ("no",)
