"""What the doctor says of a machine."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.doctor import examination, machine_checks
from lockstep_slurm.doctor.finding import Answer, Level
from lockstep_slurm.doctor.here import EXTRAS, PROGRAMS, SLURM_COMMANDS, Here
from lockstep_slurm.doctor.look_here import changing
from lockstep_slurm.doctor.ranks import NEEDED, RECIPES, Ranks

GB = 10**9
HERE = Here(
    python=(3, 12),
    executable="/opt/lockstep/bin/python",
    missing=dict.fromkeys(EXTRAS, ()),
    programs=frozenset(PROGRAMS),
    home=Path("/home/ada/.lockstep"),
    home_filesystem="ext4",
    own_database=False,
    runs=Path("/home/ada/.lockstep/runs"),
    runs_error=None,
    runs_free=500 * GB,
    runs_free_files=10**6,
    encoding="UTF-8",
    locale_error=None,
)


def judged(facts: Here, name: str) -> Answer | None:
    (check,) = [check for check in machine_checks.CHECKS if check.name == name]
    return check.judge(facts)


def test_a_machine_with_everything_has_nothing_to_mend() -> None:
    answers = {check.name: check.judge(HERE) for check in machine_checks.CHECKS}
    assert {name: answer for name, answer in answers.items() if answer is None or answer.level != Level.OK} == {}


def lacking(extra: str, module: str) -> dict[str, object]:
    return {"missing": {**HERE.missing, extra: (module,)}}


@pytest.mark.parametrize(
    ("check", "changes", "level", "found", "cure"),
    [
        ("python", {"python": (3, 9)}, Level.PROBLEM, "3.9", "3.11"),
        ("service", lacking("service", "fastapi"), Level.NOTE, "fastapi", ".[service]"),
        ("postgres", lacking("postgres", "psycopg"), Level.NOTE, "psycopg", ".[postgres]"),
        ("pyslurm", lacking("pyslurm", "pyslurm"), Level.NOTE, "pyslurm", "25.11"),
        ("slurm-commands", {"programs": HERE.programs - {"srun"}}, Level.PROBLEM, "srun", "slurm-client"),
        ("slurm-commands", {"programs": HERE.programs - {*SLURM_COMMANDS}}, Level.NOTE, "no Slurm", "login node"),
        ("topology-tools", {"programs": HERE.programs - {"numactl"}}, Level.NOTE, "numactl", "install numactl"),
        ("iproute2", {"programs": HERE.programs - {"ip"}}, Level.NOTE, "ip", "iproute2"),
        ("run-folder", {"runs_error": "/home is mounted read-only"}, Level.PROBLEM, "read-only", "LOCKSTEP_RUNS"),
        ("disk-space", {"runs_free": GB // 2}, Level.PROBLEM, "0.5 GB", "LOCKSTEP_RUNS"),
        ("disk-space", {"runs_free": 19 * GB}, Level.WARNING, "19.0 GB", "LOCKSTEP_RUNS"),
        ("disk-space", {"runs_free_files": 99}, Level.WARNING, "99", "remove"),
        ("sqlite-filesystem", {"home_filesystem": "lustre"}, Level.PROBLEM, "lustre", "LOCKSTEP_DATABASE_URL"),
        ("locale", {"encoding": "ANSI_X3.4-1968"}, Level.WARNING, "ANSI", "C.UTF-8"),
        ("locale", {"locale_error": "the locale 'xx' is not installed"}, Level.WARNING, "xx", "C.UTF-8"),
        ("shell-variables", {"variables": ("SBATCH_EXPORT",)}, Level.WARNING, "SBATCH_EXPORT", "unset SBATCH_EXPORT"),
    ],
)
def test_one_thing_that_is_not_well_is_found_with_its_value_and_the_cure(
    check: str, changes: dict[str, Any], level: Level, found: str, cure: str
) -> None:
    facts = replace(HERE, **changes)
    answer = judged(facts, check)
    assert answer is not None
    assert answer.level == level
    assert found in answer.found
    assert cure in answer.cure
    others = {one.name: one.judge(facts) for one in machine_checks.CHECKS if one.name != check}
    assert {name for name, other in others.items() if other and other.level == Level.PROBLEM} == set()


def test_a_database_elsewhere_may_leave_the_home_on_a_network() -> None:
    assert judged(replace(HERE, home_filesystem="nfs4", own_database=True), "sqlite-filesystem") is None


def test_variables_that_change_a_submit_are_found_but_not_inside_a_job() -> None:
    shell = {"SBATCH_EXPORT": "ALL", "SLURM_CPU_BIND": "quiet", "SLURM_CONF": "/etc/slurm.conf", "PATH": "/bin"}
    assert changing(shell) == ("SBATCH_EXPORT", "SLURM_CPU_BIND")
    assert changing(shell | {"SLURM_JOB_ID": "1"}) == ()


def test_each_extra_is_known_with_as_many_modules_as_it_has_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = {extra: project["optional-dependencies"][extra] for extra in (*EXTRAS, "worker")}
    modules = {**EXTRAS, "worker": (*NEEDED, *RECIPES)}
    assert {extra: len(names) for extra, names in packages.items()} == {
        extra: len(names) for extra, names in modules.items()
    }


def test_commands_without_a_cluster_are_told_apart_from_no_slurm() -> None:
    ranks = Ranks(
        python=Path(sys.executable), own=True, version=(3, 12), missing=NEEDED, torch=None, cuda_packages=0,
        horovod=None, loaded=None, tools=frozenset(),
    )  # fmt: skip
    assert [found.check for found in examination.judge(HERE, ranks, None) if found.area == examination.SLURM] == [
        "slurm-conf"
    ]
    without = replace(HERE, programs=HERE.programs - {*SLURM_COMMANDS})
    assert [found for found in examination.judge(without, ranks, None) if found.area == examination.SLURM] == []
