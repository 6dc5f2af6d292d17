"""The environment of a training: the Lockstep that started it comes first on its path, and nothing else is lost."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.cycle import MOST_RANKS_OVER_TCP, cycle_time_ms
from lockstep_slurm.job.rundir import Claim
from lockstep_slurm.placement import Core, NumaDomain, Topology
from lockstep_worker.environment import Meeting, training_environment
from lockstep_worker.placing import planned
from lockstep_worker.world import local

CLAIM = Claim(
    attempt=1, fence=1, slurm_job_id=None, restart_count=0, cluster="local", node="n", nodes=("n",), ranks=1, host="n",
    pid=1, claimed=0.0,
)  # fmt: skip


ONE_CORE = Topology((Core((0,), 0, 0, 0),), (NumaDomain(0, 1 << 30),))


def environment_of(inherited: dict[str, str], spec: dict[str, Any], hook: str | None = None) -> dict[str, str]:
    world = local(0, 1, "x", 0)
    told = [{"rank": 0, "local_rank": 0, "pid": 1, "granted": [0]}]
    return training_environment(
        inherited, spec=spec, run=Path("/runs/x"), claim=CLAIM, world=world,
        placed=planned(told, world, spec, {}, ONE_CORE), socket=None,
        meeting=Meeting("127.0.0.1", "lo", 40123), hook=hook,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("inherited", "of_the_spec", "expected"),
    [
        ({}, None, None),
        ({"PYTHONPATH": "/mine"}, None, "/mine"),
        ({"PYTHONPATH": "/l.zip:/mine", "LOCKSTEP_LIBRARY": "/l.zip"}, None, "/l.zip:/mine"),
        ({"PYTHONPATH": "/l.zip:/mine", "LOCKSTEP_LIBRARY": "/l.zip"}, "/spec", "/l.zip:/spec"),
        ({"LOCKSTEP_LIBRARY": "/l.zip"}, None, "/l.zip"),
        ({}, "/spec", "/spec"),
    ],
)
def test_the_library_is_first_and_a_path_of_the_users_stays(
    inherited: dict[str, str], of_the_spec: str | None, expected: str | None
) -> None:
    variables = {} if of_the_spec is None else {"PYTHONPATH": of_the_spec}
    found = environment_of(inherited, {"environment": {"variables": variables}})
    assert found.get("PYTHONPATH") == expected
    assert "LOCKSTEP_LIBRARY" not in found


def test_the_hook_is_before_the_library_and_named_by_a_variable() -> None:
    inherited = {"PYTHONPATH": "/l.zip:/mine:", "LOCKSTEP_LIBRARY": "/l.zip", "LOCKSTEP_HOOK": "of another rank"}
    found = environment_of(inherited, {}, hook="17 {}")
    first, *others = found["PYTHONPATH"].split(":")
    assert Path(first, "sitecustomize.py").is_file()
    assert others == ["/l.zip", "/mine", ""], "an empty entry is the working directory"
    assert found["LOCKSTEP_HOOK"] == "17 {}"
    assert "LOCKSTEP_HOOK" not in environment_of(inherited, {})


PMIX = {"PMIX_NAMESPACE": "slurm.pmix.1.0", "PMIX_RANK": "0", "PMI_RANK": "0"}
OF_SLURM = {"SLURM_JOBID": "1", "SLURM_NODELIST": "n[1-2]", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SBATCH_X": "1"}


@pytest.mark.parametrize("spec", [{}, {"communication": {"backend": "gloo"}}])
def test_without_mpi_nothing_of_its_launcher_reaches_the_training(spec: dict[str, Any]) -> None:
    found = environment_of(PMIX | OF_SLURM, spec)
    assert not [name for name in found if name.startswith(("PMI", "SLURM", "SBATCH_", "OMPI_"))]
    assert (found["HOROVOD_CONTROLLER"], found["HOROVOD_CPU_OPERATIONS"]) == ("gloo", "gloo")


def test_with_mpi_what_its_library_needs_does_and_no_more() -> None:
    spec = {"communication": {"backend": "mpi"}}
    found = environment_of(PMIX | OF_SLURM | {"OMPI_MCA_pml": "ob1"}, spec)
    assert {name for name in found if name.startswith(("PMI", "SLURM", "SBATCH_"))} == {
        *PMIX, "SLURM_JOBID", "SLURM_NODELIST", "SLURM_STEP_ID",
    }  # fmt: skip
    assert (found["HOROVOD_CONTROLLER"], found["HOROVOD_CPU_OPERATIONS"]) == ("mpi", "mpi")
    assert (found["OMPI_MCA_pml"], found["OMPI_MCA_hwloc_base_binding_policy"]) == ("ob1", "none")
    # Slurm's own PMI-2 needs none of Slurm's variables.
    found = environment_of({"PMI_RANK": "0", "PMI_FD": "11"} | OF_SLURM, spec)
    assert {name for name in found if name.startswith(("PMI", "SLURM"))} == {"PMI_RANK", "PMI_FD"}


@pytest.mark.parametrize(
    ("inherited", "disk"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/scratch"}, "/scratch"),
        ({"TMPDIR": "/scratch", "SLURM_TMPDIR": "/local/job7"}, "/local/job7"),
    ],
)
def test_a_training_knows_its_nodes_own_disk_and_its_loaders_cpus(inherited: dict[str, str], disk: str) -> None:
    found = environment_of(inherited, {})
    assert found["LOCKSTEP_LOCAL_DISK"] == disk
    assert found["LOCKSTEP_LOADER_CPUS"] == "", "none are asked for"
    assert "SLURM_TMPDIR" not in found


@pytest.mark.parametrize(
    ("spec", "cycle"),
    [
        ({}, "1.0"),
        ({"communication": {"transport": None, "cycle_time_ms": None}}, "1.0"),
        ({"communication": {"transport": "horovod"}, "checkpoint": None}, "1.0"),
        ({"communication": {"transport": "gloo"}}, "10.0"),
        ({"communication": {"transport": "tcp", "cycle_time_ms": None}, "checkpoint": None}, "10.0"),
        ({"communication": {"transport": "tcp"}, "checkpoint": {}}, "1.0"),
        ({"communication": {"transport": "tcp", "cycle_time_ms": 2.5}}, "2.5"),
        ({"communication": {"transport": "tcp", "cycle_time_ms": 20}, "checkpoint": {}}, "20.0"),
        ({"communication": {"exchange": "horovod", "cycle_time_ms": 5}}, "5.0"),
        ({"training": {"model": "resnet50"}}, "5.0"),
        ({"training": {"model": "resnet50", "script": None}, "communication": {"transport": None}}, "5.0"),
        ({"training": {"model": "resnet50"}, "communication": {"cycle_time_ms": 1}}, "1.0"),
        ({"training": {"model": "resnet50"}, "communication": {"exchange": "horovod"}}, "1.0"),
        ({"training": {"model": "resnet50"}, "communication": {"transport": "horovod"}}, "1.0"),
        ({"training": {"model": "resnet50"}, "checkpoint": {}}, "1.0"),
        ({"training": {"script": "/train.py", "model": None}}, "1.0"),
    ],
)
def test_horovod_looks_for_work_less_often_where_it_has_nothing_to_carry_in_a_step(
    spec: dict[str, Any], cycle: str
) -> None:
    assert environment_of({}, spec)["HOROVOD_CYCLE_TIME"] == cycle


def test_horovod_looks_as_often_as_ever_where_there_are_too_many_ranks_for_tcp() -> None:
    recipe = {"training": {"model": "resnet50"}}
    assert cycle_time_ms(recipe, MOST_RANKS_OVER_TCP) == 5
    assert cycle_time_ms(recipe, MOST_RANKS_OVER_TCP + 1) == 1


def test_oneccl_is_started_without_mpi_and_over_the_interface_of_the_meeting() -> None:
    spec = {"communication": {"backend": "ccl"}}
    found = environment_of(PMIX, spec)
    assert (found["HOROVOD_CONTROLLER"], found["HOROVOD_CPU_OPERATIONS"]) == ("gloo", "ccl")
    assert (found["CCL_PROCESS_LAUNCHER"], found["CCL_ATL_TRANSPORT"]) == ("none", "ofi")
    assert (found["CCL_KVS_IFACE"], found["FI_PROVIDER"], found["FI_TCP_IFACE"]) == ("lo", "tcp", "lo")
    assert not [name for name in found if name.startswith("PMI")]
    # A fabric that the site has set up is used.
    found = environment_of({"FI_PROVIDER": "psm3"}, spec)
    assert found["FI_PROVIDER"] == "psm3"
    assert "FI_TCP_IFACE" not in found


CHURN = """
import resource, sys
blocks, size, rounds = 8, 12 << 20, 10
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def once():
    held = [bytearray(size) for _ in range(blocks)]
for _ in range(3): once()
before = faults()
for _ in range(rounds): once()
print((faults() - before) / rounds)
"""
"""Takes and frees 96 MiB, as a step does with what its layers have computed; says how many pages that cost."""


@pytest.mark.parametrize(("malloc", "keeps"), [(None, True), ("keep", True), ("system", False)])
def test_what_a_step_frees_stays_with_its_rank_unless_the_spec_says_otherwise(malloc: str | None, keeps: bool) -> None:
    spec = {"environment": {} if malloc is None else {"malloc": malloc}}
    variables = {name: value for name, value in environment_of({}, spec).items() if name.startswith("MALLOC_")}
    ended = subprocess.run([sys.executable, "-c", CHURN], env=variables, capture_output=True, text=True, check=True)
    pages = (8 * 12 << 20) / resource.getpagesize()
    assert (float(ended.stdout) < pages / 100) is keeps, ended.stdout


def test_what_the_site_or_the_spec_has_set_for_malloc_stays() -> None:
    name = "MALLOC_TRIM_THRESHOLD_"
    assert environment_of({name: "1"}, {})[name] == "1"
    assert environment_of({name: "1"}, {"environment": {"variables": {name: "2"}}})[name] == "2"
    assert name not in environment_of({}, {"environment": {"malloc": "system"}})
