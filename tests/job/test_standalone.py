"""A script that needs nothing of Lockstep: the plan's masks are in it, text is data, what it cannot do is refused."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep_slurm.job.script import ScriptSite
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.standalone import StandaloneError, describe, render_standalone
from lockstep_slurm.placement import (
    Communication,
    Core,
    Memory,
    NumaDomain,
    Placement,
    RankPlacement,
    Topology,
)

SITE = ScriptSite(python="/usr/bin/python3", runs="/scratch/runs")
# Two sockets of two cores with two hardware threads, numbered as firmware likes to.
MACHINE = Topology(
    cores=tuple(Core((number, number + 4), number // 2, number // 2, number // 2) for number in range(4)),
    numa=(NumaDomain(0, 1 << 30), NumaDomain(1, 1 << 30)),
)
PLACEMENT = Placement(
    ranks=(
        RankPlacement(0, (0,), Communication((1,), (5,)), (4,), (0,), Memory("bind", (0,))),
        RankPlacement(1, (2,), Communication((3,), (7,)), (6,), (1,), Memory("bind", (1,))),
    ),
    warnings=("a warning\nof two lines",),
)
ONE_RANK = Placement(ranks=(RankPlacement(0, (0,)),))
lines = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"), min_size=1, max_size=60
)


def spec_of(*, ranks: int = 2, **sections: Any) -> JobSpec:
    """Whole nodes, a script of the user's own."""
    whole: dict[str, Any] = {
        "training": {"script": "/home/me/train.py"},
        "resources": {"exclusive": True},
        "placement": {"ranks_per_node": ranks},
    }
    return JobSpec.model_validate(whole | sections)


def option(script: str, name: str) -> str:
    """The value that srun is given for an option."""
    (found,) = re.findall(rf"^  .*?--{name}=(\S+)|^srun .*?--{name}=(\S+)", script, re.MULTILINE)
    return "".join(found)


def test_the_masks_are_all_of_a_ranks_cpus() -> None:
    script = render_standalone(spec_of(), SITE, MACHINE, PLACEMENT)
    assert option(script, "cpu-bind") == "mask_cpu:0x33,0xcc"
    assert option(script, "cpus-per-task") == "4"
    assert option(script, "mem-bind") == "mask_mem:0x1,0x2"
    assert "lockstep_given=0-1,4-5 lockstep_compute=0\n" in script
    assert "export HOROVOD_THREAD_AFFINITY=1,3\n" in script
    assert "LOCKSTEP_INTEROP_THREADS" not in script
    assert "\n# Note: a warning of two lines\n" in script


@pytest.mark.parametrize("memories", [("preferred", "local"), ("local", "preferred")])
def test_ranks_of_unlike_memory_policies_have_the_kernels_own(memories: tuple[str, str]) -> None:
    ranks = tuple(
        RankPlacement(rank, (2 * rank,), memory=Memory(policy, (rank,) if policy == "preferred" else ()))
        for rank, policy in enumerate(memories)
    )
    assert "mem-bind" not in render_standalone(spec_of(), SITE, MACHINE, Placement(ranks=ranks))


def test_a_variable_of_the_specs_has_the_last_word_over_a_ranks_own() -> None:
    placement = {"ranks_per_node": 2, "threads": "cpu"}
    spec = spec_of(placement=placement, environment={"variables": {"OMP_PLACES": "cores"}})
    script = render_standalone(spec, SITE, MACHINE, PLACEMENT)
    assert re.findall("export OMP_PLACES=(.*)", script) == ["cores"]
    assert "export KMP_AFFINITY=" in script


def test_where_ranks_do_not_part_the_cpus_evenly_the_step_is_the_whole_job() -> None:
    three = Placement(ranks=tuple(RankPlacement(rank, (rank,)) for rank in range(3)))
    script = render_standalone(spec_of(ranks=3), SITE, MACHINE, three)
    assert " --whole " in script
    assert "--cpus-per-task" not in script


@pytest.mark.parametrize(
    ("sections", "place", "message"),
    [
        ({"resources": {}}, "resources.exclusive", "explicit masks, which Slurm honours on whole nodes alone"),
        ({"training": {"model": "digits-cnn", "data": "digits"}}, "training.model", "name a training.script"),
        ({"environment": {"container": {"image": "/x.sif"}}}, "environment.container", "name a venv or conda"),
        ({"communication": {"backend": "mpi", "mpi": "mpirun"}}, "communication.mpi", "such as pmix"),
        (
            {"checkpoint": {}},
            "checkpoint",
            "SIGUSR1 before the time limit, which ends a rank",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(sections: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(StandaloneError, match=re.escape(message)) as found:
        render_standalone(spec_of(**sections), SITE, MACHINE, PLACEMENT)
    assert found.value.place == place


def test_the_backends_variables_are_in_it() -> None:
    ccl = render_standalone(
        spec_of(communication={"backend": "ccl", "ccl_workers": 1, "interface": "ib0"}), SITE, MACHINE, PLACEMENT
    )
    assert "export CCL_WORKER_AFFINITY=0,2\n" in ccl
    assert "export CCL_PROCESS_LAUNCHER=none " in ccl
    assert "lockstep_interface=ib0\n" in ccl
    mpi = render_standalone(spec_of(communication={"backend": "mpi", "mpi": "pmix"}), SITE, MACHINE, PLACEMENT)
    assert option(mpi, "mpi") == "pmix"
    assert "RendezvousServer" not in mpi
    assert "GLOO" not in mpi.replace("HOROVOD_GLOO_TIMEOUT_SECONDS", "")


def test_what_a_step_frees_stays_with_its_rank_and_what_the_set_up_says_of_it_too() -> None:
    name = "MALLOC_TRIM_THRESHOLD_"
    kept = f"export {name}=${{{name}:--1}}\n"
    assert kept in render_standalone(spec_of(), SITE, MACHINE, PLACEMENT)
    system = spec_of(environment={"malloc": "system"})
    assert "MALLOC_" not in render_standalone(system, SITE, MACHINE, PLACEMENT)
    own = spec_of(environment={"variables": {name: "7"}})
    script = render_standalone(own, SITE, MACHINE, PLACEMENT)
    assert script.index(kept) < script.index(f"export {name}=7\n"), "the spec's own variables have the last word"


def test_a_machine_in_a_few_words() -> None:
    assert describe(MACHINE) == "2 sockets x 2 cores x 2 hardware threads, 2 NUMA domains"
    one = Topology((Core((0,), 0, 0, 0),), (NumaDomain(0, 1),))
    assert describe(one) == "1 socket x 1 cores x 1 hardware thread, 1 NUMA domain"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(lines, min_size=1, max_size=3), arguments=st.lists(lines, max_size=3))
def test_text_reaches_the_training_unchanged_and_is_never_run(
    values: list[str], arguments: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("standalone")
    # One CPU is enough to be bound to; srun stands for itself, and Python says what it was given.
    here = min(os.sched_getaffinity(0))
    machine = Topology((Core((here,), 0, 0, 0),), (NumaDomain(0, 1),))
    python = (
        "[[ $1 != -c ]] || { echo 127.0.0.1 1 2; exit; }\n"
        f'printf "%s\\0" "$@" > "{folder}/argv"\nenv -0 > "{folder}/env"'
    )
    for name, text in (
        ("python", python),
        ("scontrol", "echo n1"),
        ("srun", f'while [[ $1 != bash ]]; do shift; done\nSLURM_LOCALID=0 exec taskset -c {here} "$@"'),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    variables = {f"V{number}": value for number, value in enumerate(values)} | {"python": "3", "interface": "x"}
    spec = spec_of(
        ranks=1,
        training={"script": "/a b/$(x)'.py", "arguments": arguments},
        environment={"variables": variables},
    )
    script = folder / "job.sbatch"
    site = ScriptSite(str(folder / "python"), "/runs")
    script.write_text(render_standalone(spec, site, machine, Placement(ranks=(RankPlacement(0, (here,)),))))
    around = {
        "PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "n1",
        "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NODEID": "0", "SLURMD_NODENAME": "n1",
    }  # fmt: skip
    done = subprocess.run(["bash", script], env=around, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "argv").read_text().split("\0")[:-1] == ["/a b/$(x)'.py", *arguments]
    found = dict(pair.split("=", 1) for pair in (folder / "env").read_text().split("\0") if pair)
    assert {name: found[name] for name in variables} == variables
