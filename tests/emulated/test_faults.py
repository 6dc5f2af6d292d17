"""What goes wrong in the field, done on purpose on a machine with two sockets: the verdict names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from two_sockets import WITHOUT_SMT

from support.emulated import Case, Result

STALE = {
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1,0x2",
    "SLURM_CPU_BIND_LIST": "0x1,0x2",
    "SLURM_CPU_BIND_TYPE": "mask_cpu:",
    "SLURM_CPU_BIND_VERBOSE": "quiet",
}
"""As an interactive step that was bound so leaves them in its shell."""
BY_HAND = "srun --export=ALL --label --ntasks=2 --ntasks-per-node=2 --cpus-per-task=4"


def job(
    *,
    whole: bool = True,
    arguments: list[str] | None = None,
    variables: dict[str, str] | None = None,
    **placement: object,
) -> dict[str, Any]:
    """A spec of 2 ranks."""
    asked: dict[str, object] = {} if whole else {"cpus_per_rank": 2, "communication_cpus": 1}
    return {
        "resources": {"exclusive": whole, "mem": "1000", "time": "10"},
        "training": {"arguments": arguments or []},
        "environment": {"variables": variables or {}},
        "placement": {"ranks_per_node": 2, **asked, **placement},
    }


@dataclass(frozen=True)
class Fault:
    """What is done, when it is seen, and the words by which it is named."""

    case: Case
    words: tuple[str, ...]
    when: str = "init"
    ranks: tuple[int, ...] = (0, 1)
    """Those whose verdict says so."""


FAULTS = [
    Fault(
        Case(
            "a stale SLURM_CPU_BIND reaches a line by hand",
            job(on_shortage="degrade"),
            by_hand="  export "
            + " ".join(f"{name}={value}" for name, value in STALE.items())
            + f"\n  {BY_HAND} \\\n    ",
        ),
        ("bound local rank 0 to 0, local rank 1 to 1", "left over from another job or shell", "unset SLURM_CPU_BIND"),
    ),
    Fault(
        Case("TaskPlugin is without affinity", job(), slurm=(("TaskPlugin", "task/cgroup"),)),
        ("Slurm bound no rank", "started with 0-7", "TaskPlugin in slurm.conf seems to be without task/affinity"),
    ),
    Fault(
        Case(
            "the cpuset is smaller than asked",
            job(on_shortage="degrade"),
            by_hand=f"  {BY_HAND} --cpu-bind=cores \\\n    bash -c "
            """'exec taskset --cpu-list $((4 * SLURM_LOCALID))-$((4 * SLURM_LOCALID + 1)) "$@"' less """,
        ),
        ("local rank 0 was given 0-1, of 4 CPUs asked for", "its cpuset is smaller than what"),
    ),
    Fault(
        Case("the cpuset of a running step is made smaller", job(arguments=["narrow"])),
        ("its cpuset allows 0-1,4-7, which leaves out 2-3 of the plan",),
        when="steps",
        ranks=(0,),
    ),
    Fault(
        # Where both communication threads have one CPU, Horovod's is born where it should have moved to.
        Case(
            "HOROVOD_THREAD_AFFINITY is outside of the cpuset",
            job(whole=False, arguments=["outside"], cpus_per_rank=3, communication_cpus=2),
            shape=WITHOUT_SMT,
        ),
        ("sends the thread of local rank", "outside of the cpuset"),
    ),
    Fault(
        Case("OMP_NUM_THREADS is too large", job(variables={"OMP_NUM_THREADS": "6"})),
        ("6 threads compute on 2 compute CPUs", "OMP_NUM_THREADS is 6, planned 2"),
    ),
    Fault(
        Case(
            "KMP_AFFINITY=compact puts all ranks on core 0",
            job(variables={"KMP_AFFINITY": "norespect,granularity=fine,compact"}),
        ),
        ("the main thread", "may run on 0,", "KMP_AFFINITY=norespect,granularity=fine,compact packs the threads"),
    ),
    Fault(
        Case("two threads' masks are swapped", job(arguments=["swap"])),
        ("the masks of the main thread", "Horovod's background thread", "are swapped"),
        when="steps",
    ),
]


@pytest.mark.parametrize("case", [fault.case for fault in FAULTS], ids=lambda case: case.id)
def test_the_verdict_names_the_fault(case: Case, run: Callable[[Case], Result]) -> None:
    (fault,) = [fault for fault in FAULTS if fault.case == case]
    result = run(case)
    assert result.exit == "COMPLETED 0:0", result.log
    verdicts = {one["rank"]: one for one in result.verdicts(fault.when)}
    assert sorted(verdicts) == [0, 1], result.log
    for rank in fault.ranks:
        said = "\n".join(verdicts[rank]["deviations"])
        assert verdicts[rank]["result"] == "deviates"
        assert all(words in said for words in fault.words), said


@pytest.mark.parametrize(
    "case",
    [
        Case(
            "a stale SLURM_CPU_BIND in the submitting shell",
            job(),
            environment=(("SBATCH_EXPORT", "ALL"), *STALE.items()),
        )
    ],
    ids=lambda case: case.id,
)
def test_the_generated_script_lets_no_stale_binding_through(case: Case, run: Callable[[Case], Result]) -> None:
    result = run(case)
    assert result.exit == "COMPLETED 0:0", result.log
    assert [one["result"] for one in (*result.verdicts("init"), *result.verdicts("steps"))] == ["as planned"] * 4
    assert all(len(rank["granted"]) == 4 for rank in result.placement["emulated"]["ranks"])
