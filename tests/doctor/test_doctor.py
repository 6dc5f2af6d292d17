"""``lockstep doctor`` as a person runs it: on a cluster that is set well and on one that is not, and with none."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cluster import ClusterInfo, down, processes, up
from lockstep_slurm.cluster.layout import Layout
from lockstep_slurm.doctor import machine_checks, rank_checks, site_checks, slurm_checks
from support import slurm
from support.lockstep import Lockstep

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
DANGEROUS = {"TaskPlugin": "task/none", "JobRequeue": "0", "KillWait": "1", "PrivateData": "jobs"}


@pytest.fixture
def own_folder() -> Iterator[Path]:
    slurm.needed()
    parent = Path(tempfile.mkdtemp(prefix="lockstep-doctor-"))
    try:
        yield parent / "c"
    finally:
        down(parent / "c")
        shutil.rmtree(parent)


def findings(lockstep: Lockstep, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code and, by check, what it found."""
    done = lockstep.run("doctor", "--json", *options)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    found = {finding["check"]: finding for finding in told["findings"]}
    assert len(found) == len(told["findings"]) == sum(told["counts"].values())
    return done.returncode, found


def raised(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Checks of Slurm that are not well, with their levels."""
    return {name: row["level"] for name, row in found.items() if row["area"] == "Slurm" and row["level"] != "ok"}


def test_the_tests_own_cluster_has_no_problem(cluster: ClusterInfo, lockstep_home: Path) -> None:
    code, found = findings(Lockstep(lockstep_home, cluster.slurm_conf))
    assert {name: row for name, row in found.items() if row["level"] == "problem"} == {}
    assert code == 0
    assert found["answers"]["found"] == f"{cluster.cluster_name} answers"
    assert set(found) >= {check.name for check in slurm_checks.CHECKS}


def test_dangerous_settings_are_found_and_nothing_else(
    cluster: ClusterInfo, own_folder: Path, lockstep_home: Path
) -> None:
    _, before = findings(Lockstep(lockstep_home, cluster.slurm_conf))
    dangerous = up("dangerous", 1, own_folder, overrides=DANGEROUS)
    code, after = findings(Lockstep(lockstep_home, dangerous.slurm_conf))
    changed = {name: level for name, level in raised(after).items() if raised(before).get(name) != level}
    assert changed == {
        "task-plugin": "problem",
        "requeue": "note",
        "kill-wait": "warning",
        "private-data": "note",  # these tests are root, who sees everything
    }
    assert raised(after).keys() - changed.keys() == raised(before).keys() - changed.keys()
    assert code == 1
    for setting, check in zip(DANGEROUS, ("task-plugin", "requeue", "kill-wait", "private-data"), strict=True):
        assert f"{setting}={DANGEROUS[setting]}" in after[check]["found"]
        assert after[check]["cure"]


def test_cgroups_that_do_not_keep_jobs_on_their_cores_are_found(own_folder: Path, lockstep_home: Path) -> None:
    info = up("loose", 1, own_folder)
    lockstep = Lockstep(lockstep_home, info.slurm_conf)
    conf = info.slurm_conf.read_text().replace("TaskPlugin=task/affinity", "TaskPlugin=task/cgroup,task/affinity")
    info.slurm_conf.write_text(conf)
    controller = processes.daemons(Layout.of(info.folder))["slurmctld"]
    controller.send(signal.SIGHUP)  # it reads its configuration anew; the node, which may have no cgroups, does not
    deadline = time.monotonic() + 60
    while (found := findings(lockstep)[1])["constrain-cores"]["level"] != "warning":
        assert time.monotonic() < deadline, found["constrain-cores"]
    assert found["constrain-cores"]["found"].startswith("ConstrainCores=no")


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_controller_that_is_down_is_told_soon(own_folder: Path, lockstep_home: Path, how: signal.Signals) -> None:
    info = up("silent", 1, own_folder)
    controller = processes.daemons(Layout.of(own_folder))["slurmctld"]
    controller.send(how)
    started = time.monotonic()
    try:
        code, found = findings(Lockstep(lockstep_home, info.slurm_conf))
    finally:
        controller.send(signal.SIGCONT)
    assert code == 1
    assert time.monotonic() - started < 40  # four seconds on a quiet machine; Slurm's commands alone wait for minutes
    assert raised(found) == {"controller": "problem"}
    assert "slurmctld" in found["controller"]["cure"]


def test_without_slurm_that_is_said_and_nothing_is_wrong(lockstep_home: Path, tmp_path: Path) -> None:
    lockstep = Lockstep(lockstep_home, None)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lockstep").symlink_to(shutil.which("lockstep", path=lockstep.environment["PATH"]) or "")
    lockstep.environment["PATH"] = str(programs)
    code, found = findings(lockstep)
    assert code == 0
    assert "jobs run on it alone" in found["slurm-commands"]["found"]
    assert [row for row in found.values() if row["area"] == "Slurm"] == []


def test_a_slurm_conf_that_is_not_there_is_a_problem_with_its_path(lockstep_home: Path, tmp_path: Path) -> None:
    slurm.needed()
    code, found = findings(Lockstep(lockstep_home, tmp_path / "gone.conf"))
    assert code == 1
    assert str(tmp_path / "gone.conf") in found["controller"]["found"]


def test_people_see_what_is_not_well_with_the_cure(cluster: ClusterInfo, lockstep_home: Path) -> None:
    lockstep = Lockstep(lockstep_home, cluster.slurm_conf)
    lockstep.environment["SBATCH_EXPORT"] = "ALL"
    done = lockstep.run("doctor")
    assert done.returncode == 0
    assert re.search(r"warning +shell-variables +set in this shell: SBATCH_EXPORT", done.stdout)
    assert "-> unset SBATCH_EXPORT" in done.stdout
    assert "TaskPlugin" not in done.stdout.replace("without task/cgroup", "").partition("task-plugin")[2]
    assert " 0 problems" in done.stderr
    assert re.search(r"ok +task-plugin", lockstep.run("doctor", "--all").stdout)


def test_a_rank_could_run_here(lockstep_home: Path) -> None:
    _, found = findings(Lockstep(lockstep_home, None), "--worker")
    assert found["horovod-loads"]["level"] == "ok"
    assert "with Gloo" in found["horovod-loads"]["found"]


def test_an_environment_of_ones_own_is_looked_at(lockstep_home: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    lockstep = Lockstep(lockstep_home, None)
    code, found = findings(lockstep, "--venv", str(tmp_path / "env"), "--worker")
    assert code == 1
    assert found["ranks-packages"]["level"] == "problem"
    assert str(tmp_path / "env") in found["ranks-packages"]["cure"]
    code, found = findings(lockstep, "--venv", str(tmp_path / "env"))
    assert (code, found["ranks-packages"]["level"]) == (0, "note")
    both = lockstep.run("doctor", "--venv", tmp_path, "--python", sys.executable)
    assert both.returncode == 2


def test_the_sites_run_folder_and_python_are_looked_at(lockstep_home: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    (lockstep_home / "cluster.toml").write_text(f'python = "{tmp_path}/env/bin/python"\nruns = "{tmp_path}/scratch"\n')
    lockstep = Lockstep(lockstep_home, None)
    _, found = findings(lockstep)
    assert f"{tmp_path}/scratch" in found["run-folder"]["found"]
    assert f"{tmp_path}/env/bin/python" in found["ranks-python"]["found"]
    _, found = findings(lockstep, "--runs", str(tmp_path / "other"), "--python", sys.executable)
    assert f"{tmp_path}/other" in found["run-folder"]["found"]
    assert sys.executable in found["ranks-python"]["found"]


def test_every_check_is_explained_and_nothing_else() -> None:
    rooms = (machine_checks.CHECKS, rank_checks.CHECKS, site_checks.SILENT, site_checks.UNKNOWN)
    names = [check.name for room in (*rooms, site_checks.CHECKS, slurm_checks.CHECKS) for check in room]
    explained = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == names
    assert len(set(names)) == len(names)
