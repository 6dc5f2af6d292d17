"""A printed script runs with `sbatch` and with plain `bash`, no service running, and gets its page afterwards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from support.lockstep import EXAMPLES, Lockstep, wait_for


def printed(ours: Lockstep, *settings: str) -> Path:
    """The digits example's script in a file."""
    options = [word for setting in settings for word in ("--set", setting)]
    done = ours.run("script", EXAMPLES / "digits.toml", *options)
    assert done.returncode == 0, done.stderr
    file = ours.home / "j.sbatch"
    file.write_text(done.stdout)
    return file


def run_directory(output: str) -> Path:
    """The run directory that the script printed."""
    found = re.search(r"run directory (\S+)", output)
    assert found, output
    return Path(found[1])


def slurm(ours: Lockstep, *argv: str) -> str:
    """What one of Slurm's commands prints."""
    done = subprocess.run(
        argv, env=ours.environment, cwd=ours.home, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def state_of(ours: Lockstep, job: str) -> str:
    """A job's state, in Slurm's own word."""
    found = re.search(r"JobState=(\w+)", slurm(ours, "scontrol", "show", "job", job))
    assert found
    return found[1]


def has_ended(ours: Lockstep, job: str) -> bool:
    """Whether it neither waits nor runs."""
    return state_of(ours, job) not in {"PENDING", "RUNNING"}


def test_sbatch_by_hand_then_import(lockstep_without_service: Lockstep) -> None:
    ours = lockstep_without_service
    script = printed(ours)
    # Each submission of a printed script makes a run of its own.
    submitted = [slurm(ours, "sbatch", "--parsable", str(script)).strip() for _ in range(2)]
    runs = []
    for number in submitted:
        wait_for(f"Slurm job {number} to end", partial(has_ended, ours, number), 240)
        output = (ours.home / f"slurm-{number}.out").read_text()
        assert state_of(ours, number) == "COMPLETED", output
        runs.append(run_directory(output))
    assert runs[0] != runs[1]
    (log,) = (runs[0] / "logs").glob("job-*.log")
    assert log.stat().st_size > 0

    ours.start()
    for run in runs:
        assert ours.run("import", run).returncode == 0
        job = ours.job(run.name)
        assert job["phase"] == "ended well"
        assert job["by_hand"] is True
        assert job["last"]["accuracy"] >= 0.97
        assert [(a["number"], a["exit_code"]) for a in job["attempts"]] == [(1, 0)]
        assert len(job["attempts"][0]["nodes"]) == 2
    assert ours.run("import", runs[0]).returncode == 0, "importing again is harmless"
    assert len(ours.json("ls")) == 2


def test_bash_without_slurm(lockstep_without_service: Lockstep) -> None:
    ours = lockstep_without_service
    script = printed(ours, "training.epochs=3")
    environment = {name: value for name, value in ours.environment.items() if name != "SLURM_CONF"}
    done = subprocess.run(
        ["bash", str(script)], env=environment, cwd=ours.home, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = run_directory(done.stdout)
    ours.start()
    assert ours.run("import", run).returncode == 0
    job = ours.job(run.name)
    assert job["phase"] == "ended well"
    assert job["ranks"] == 2
    assert job["last"]["loss"] is not None


def test_a_requeued_run_by_hand_keeps_its_folder(lockstep_without_service: Lockstep) -> None:
    ours = lockstep_without_service
    script = printed(ours, "training.epochs=10000")

    job = slurm(ours, "sbatch", "--parsable", str(script)).strip()
    try:
        first = wait_for("the first attempt", lambda: next(ours.home.glob("runs/*/claims/000001.json"), None))
        run = first.parents[1]
        wait_for("its first records", lambda: any(f.stat().st_size for f in run.glob("spool/1/*.jsonl")))
        slurm(ours, "scontrol", "requeue", job)
        # Slurm holds a requeued job back for two minutes unless it is told a start time.
        wait_for("the requeue", lambda: state_of(ours, job) == "PENDING")
        # Not at once: a start in the second in which slurmd revokes the old run's credential fails (22.05).
        slurm(ours, "scontrol", "update", f"JobId={job}", "StartTime=now+3")
        second = wait_for("the second attempt", lambda: next(ours.home.glob("runs/*/claims/000002.json"), None))
        assert second.parents[1] == run
        claim = json.loads(second.read_text())
        assert (claim["attempt"], claim["restart_count"], claim["slurm_job_id"]) == (2, 1, int(job))
    finally:
        slurm(ours, "scancel", job)
    wait_for("the job to end", lambda: state_of(ours, job) == "CANCELLED")


@pytest.mark.parametrize("damage", ["empty", "no spec"])
def test_what_is_no_run_directory_is_refused(lockstep: Lockstep, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "not-a-run"
    folder.mkdir()
    if damage == "no spec":
        shutil.copy(EXAMPLES / "digits.toml", folder)
    before = lockstep.json("ls")
    done = lockstep.run("import", folder)
    assert done.returncode == 2
    assert str(folder) in done.stderr
    assert lockstep.json("ls") == before
