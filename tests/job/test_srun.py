"""How the ranks are started: the CPUs asked for on srun's own line, and nothing left over that would change it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.job.srun import LEFTOVERS, ONLINE, SIBLINGS, srun_arguments
from lockstep_slurm.placement.cpulist import parse

EXCLUSIVE = {"exclusive": True, "nodes": 2}


def spec_of(**sections: Any) -> JobSpec:
    return JobSpec.model_validate({"training": {"model": "digits-cnn", "data": "digits"}} | sections)


def value(arguments: list[str], option: str) -> str:
    (found,) = [argument.partition("=")[2] for argument in arguments if argument.partition("=")[0] == option]
    return found


@pytest.mark.parametrize(
    ("placement", "resources", "cpus_per_node", "cpus"),
    [
        ({}, {}, None, "1"),
        ({"cpus_per_rank": 3}, {}, None, "3"),
        ({"cpus_per_rank": 3}, {}, 64, "3"),
        ({"ranks_per_node": 2}, EXCLUSIVE, None, "$lockstep_cpus"),
        ({"ranks_per_node": 2}, EXCLUSIVE, 112, "56"),
        ({"ranks_per_node": 3}, EXCLUSIVE, 112, "37"),
        # The whole node is granted, and the plan takes of it what is asked for.
        ({"ranks_per_node": 2, "cpus_per_rank": 8}, EXCLUSIVE, 112, "56"),
        ({"ranks_per_node": 4}, EXCLUSIVE, 2, "1"),
    ],
)
def test_the_cpus_of_a_rank_are_on_the_line(
    placement: dict[str, Any], resources: dict[str, Any], cpus_per_node: int | None, cpus: str
) -> None:
    arguments = srun_arguments(spec_of(placement=placement, resources=resources), cpus_per_node=cpus_per_node)
    assert value(arguments, "--cpus-per-task") == cpus
    assert value(arguments, "--cpu-bind") == "cores"
    assert value(arguments, "--kill-on-bad-exit") == "1"


def test_the_ranks_are_all_on_the_line() -> None:
    arguments = srun_arguments(spec_of(placement={"ranks_per_node": 4}, resources={"nodes": 3}))
    assert [value(arguments, option) for option in ("--nodes", "--ntasks", "--ntasks-per-node")] == ["3", "12", "4"]


def test_mpirun_is_given_the_cpus_of_all_ranks_of_a_node() -> None:
    spec = spec_of(communication={"backend": "mpi"}, placement={"ranks_per_node": 2, "cpus_per_rank": 3})
    assert srun_arguments(spec, mpi="mpirun") == ["--cpus-per-task=6", "--cpu-bind=cores"]
    assert value(srun_arguments(spec, mpi="pmix"), "--mpi") == "pmix"


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """Runs a script up to its srun, for which a program stands that says how it was called, and with what around it."""
    for name, text in (
        ("python", f'[[ $2 == *import\\ lockstep* ]] || {{ cat > /dev/null; echo "{tmp_path}"; }}'),
        ("srun", f'env -0 > "{tmp_path}/env"; printf "%s\\n" "$@" > "{tmp_path}/argv"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "logs").mkdir()

    def start(
        spec: JobSpec, *, siblings: Path = Path("/nowhere"), online: Path = Path("/nowhere"), **variables: str | None
    ) -> tuple[list[str], dict[str, str]]:
        script = tmp_path / "job.sbatch"
        text = render(spec, ScriptSite(str(tmp_path / "python"), str(tmp_path)))
        script.write_text(text.replace(SIBLINGS, str(siblings)).replace(ONLINE, str(online)))
        usual = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "96"}
        around = {name: value for name, value in {**usual, **variables}.items() if value is not None}
        subprocess.run(["bash", script, tmp_path], env=around, check=True, timeout=60, capture_output=True, text=True)
        pairs = [pair.split("=", 1) for pair in (tmp_path / "env").read_text().split("\0") if pair]
        return (tmp_path / "argv").read_text().splitlines(), dict(pairs)

    return start


@pytest.mark.parametrize(
    ("of_slurm", "cpus"),
    [
        ({}, "48"),
        ({"SLURM_JOB_CPUS_PER_NODE": "96"}, "48"),
        ({"SLURM_JOB_CPUS_PER_NODE": "96(x3),72,128(x2)"}, "36"),
        ({"SLURM_JOB_CPUS_PER_NODE": "128,9(x12)"}, "4"),
        # As the shell of salloc has it, which is on no node of the job.
        ({"SLURM_CPUS_ON_NODE": None, "SLURM_JOB_CPUS_PER_NODE": "96(x2)"}, "48"),
        ({"SLURM_CPUS_ON_NODE": None, "SLURM_JOB_CPUS_PER_NODE": "96,72"}, "36"),
    ],
)
def test_unlike_whole_nodes_have_the_smallest_ones_cpus_per_rank(
    started: Any, of_slurm: dict[str, str | None], cpus: str
) -> None:
    argv, _ = started(spec_of(placement={"ranks_per_node": 2}, resources=EXCLUSIVE), **of_slurm)
    assert value(argv, "--cpus-per-task") == cpus


def test_without_any_number_of_cpus_it_says_which_is_missing(started: Any) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        started(spec_of(resources=EXCLUSIVE), SLURM_CPUS_ON_NODE=None)
    assert caught.value.returncode == 78
    assert "lockstep: neither SLURM_CPUS_ON_NODE nor SLURM_JOB_CPUS_PER_NODE says" in caught.value.stderr


@pytest.mark.parametrize(
    ("siblings", "online", "on_node", "ranks", "cpus"),
    [
        ("0,40", "0-79", "80", 6, "12"),
        ("0,40", None, "80", 6, "12"),
        ("0-3", "0-255", "256", 10, "24"),
        ("0-1", "0-7", "8", 8, "1"),
        ("0", "0-79", "80", 6, "13"),
        (None, None, "80", 6, "13"),
        # To this Slurm a core is a CPU, so any number of CPUs is one of whole cores.
        ("0,56", "0-111", "56", 8, "7"),
        ("0,56", "0-55,56-111", "56", 8, "7"),
        # Slurm keeps four of the threads, or half of the cores are off: what it gives are threads all the same.
        ("0,56", "0-111", "108", 8, "12"),
        ("0,56", "0-27,56-83", "56", 8, "6"),
    ],
)
def test_equal_parts_of_a_whole_node_are_of_whole_cores(
    started: Any, siblings: str | None, online: str | None, on_node: str, ranks: int, cpus: str, tmp_path: Path
) -> None:
    files = {"siblings": (tmp_path / "siblings", siblings), "online": (tmp_path / "online", online)}
    for file, text in files.values():
        if text is not None:
            file.write_text(text + "\n")
    spec = spec_of(placement={"ranks_per_node": ranks}, resources=EXCLUSIVE)
    argv, _ = started(spec, **{name: file for name, (file, _) in files.items()}, SLURM_CPUS_ON_NODE=on_node)
    assert value(argv, "--cpus-per-task") == cpus
    foreseen = srun_arguments(
        spec,
        cpus_per_node=int(on_node),
        threads_per_core=len(parse(siblings)) if siblings else 1,
        threads_per_node=len(parse(online)) if online else None,
    )
    assert value(foreseen, "--cpus-per-task") == cpus


def test_nothing_left_over_reaches_srun(started: Any) -> None:
    names = [name for _, names in LEFTOVERS for name in names]
    _, around = started(spec_of(), **dict.fromkeys(names, "7"))
    assert not around.keys() & set(names)
    assert around["SLURM_CPUS_ON_NODE"] == "96"


CONTROLLER_AWAY = "srun: error: Unable to confirm allocation for job 1: Unable to contact slurm controller"


def ranks_of(folder: Path, srun: str, scontrol: str = 'echo "Slurmctld(primary) at head is UP"') -> Any:
    """Runs a script whose srun and scontrol are these lines of bash; each srun leaves a line in ``tries``."""
    programs = {
        "python": f'[[ $2 == *import\\ lockstep* ]] || {{ cat > /dev/null; echo "{folder}"; }}',
        "srun": f'echo "${{SLURM_OVERLAP:-}}" >> "{folder}/tries"\n{srun}',
        "scontrol": scontrol,
        "sleep": "exit 0",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    for name in ("logs", "claims"):
        (folder / name).mkdir()
    script = folder / "job.sbatch"
    script.write_text(render(spec_of(), ScriptSite(str(folder / "python"), str(folder))))
    around = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "1"}
    done = subprocess.run(["bash", script, folder], env=around, check=False, timeout=60, capture_output=True, text=True)
    return done, (folder / "tries").read_text().splitlines()


def test_a_controller_that_is_started_anew_just_then_does_not_cost_the_job(tmp_path: Path) -> None:
    srun = f'[[ -n $SLURM_OVERLAP ]] && exit 0\necho "{CONTROLLER_AWAY}" >&2; exit $SLURM_EXIT_ERROR'
    # It answers when it is asked for the third time.
    ping = f'echo x >> "{tmp_path}/pings"; [[ $(wc -l < "{tmp_path}/pings") -lt 3 ]] && echo DOWN || echo "head is UP"'
    done, tries = ranks_of(tmp_path, srun, ping)
    assert (done.returncode, tries) == (0, ["", "1"]), done.stderr
    assert (tmp_path / "pings").read_text() == "x\n" * 3


def test_a_training_that_fails_is_not_started_again(tmp_path: Path) -> None:
    done, tries = ranks_of(tmp_path, "exit 7")
    assert (done.returncode, tries) == (7, [""])


def test_an_error_of_sruns_own_after_a_claim_is_the_end(tmp_path: Path) -> None:
    done, tries = ranks_of(tmp_path, f'touch "{tmp_path}/claims/000001.json"; exit $SLURM_EXIT_ERROR')
    assert (done.returncode, tries) == (213, [""])


def test_what_srun_refuses_for_good_ends_the_job_after_a_second_try(tmp_path: Path) -> None:
    done, tries = ranks_of(tmp_path, "exit $SLURM_EXIT_ERROR")
    assert (done.returncode, len(tries)) == (1, 2)
