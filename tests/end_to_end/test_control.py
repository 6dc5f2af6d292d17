"""Over a real Slurm, from the command line: shown before it is submitted, one after another, held, requeued, rerun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.desk import stopped
from lockstep_slurm.cluster import ClusterInfo
from support.lockstep import EXAMPLES, Lockstep, wait_for
from support.waiting import spec_file

DIGITS = EXAMPLES / "digits.toml"
WHOLE = ("--set", "resources.nodes=2")
"""All nodes of the cluster."""


@pytest.fixture(autouse=True)
def _nothing_stays(lockstep: Lockstep) -> Iterator[None]:
    """What a failed test leaves running would fail the next."""
    yield
    for job in lockstep.json("ls"):
        if job["phase"] not in {"ended well", "ended badly"}:
            lockstep.run("cancel", job["id"])
            lockstep.until(job["id"], {"ended well", "ended badly"})


@pytest.fixture
def short(lockstep: Lockstep) -> Path:
    """A spec whose job ends well at once."""
    return spec_file(lockstep.home, EXAMPLES)


@pytest.fixture
def long(lockstep: Lockstep) -> Path:
    """A spec whose job never ends by itself."""
    return spec_file(lockstep.home, Path("/nowhere/ever"))


def submit(lockstep: Lockstep, spec: Path, *options: str) -> str:
    return str(lockstep.json("submit", spec, *options)["id"])


def in_queue(lockstep: Lockstep, job: str) -> tuple[str, str, int] | None:
    """The job's state, reason and restarts in Slurm's own queue."""
    for line in lockstep.command("squeue", "--noheader", "--format=%j %T %r").splitlines():
        name, state, reason = line.split(" ", 2)
        if name.endswith(job):
            number = lockstep.job(job)["slurm_job_id"]
            told = lockstep.command("scontrol", "show", "job", str(number))
            return state, reason, int(told.partition("Restarts=")[2].split()[0])
    return None


def test_a_dry_run_shows_what_a_submission_comes_to_and_leaves_nothing(
    lockstep: Lockstep, cluster: ClusterInfo
) -> None:
    done = lockstep.run("submit", DIGITS, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "it would start at" in done.stderr
    assert "rank  compute" in done.stderr
    assert lockstep.json("ls") == []
    assert lockstep.command("squeue", "--noheader") == ""
    seen = lockstep.json("submit", DIGITS, "--dry-run")
    assert (seen["slurm"]["opinion"], seen["script"]) == ("would start", done.stdout)
    assert seen["placement"]["nodes"] == list(cluster.nodes)
    assert len(seen["placement"]["placement"]["ranks"]) == 1

    refused = lockstep.run("submit", DIGITS, "--dry-run", "--set", "resources.constraint=gold")
    assert refused.returncode == 2
    assert "it would be refused" in refused.stderr
    assert lockstep.run("submit", DIGITS, "--dry-run", "--set", "resources.nodes=9").returncode == 2
    assert lockstep.run("submit", DIGITS, "--dry-run", "--after", "nobody").returncode == 2

    with stopped(int((cluster.folder / "pids" / "slurmctld.pid").read_text())):
        silent = lockstep.run("submit", DIGITS, "--dry-run", "--set", "training.epochs=7")
    assert silent.returncode == 0
    assert "Slurm has not answered" in silent.stderr
    assert silent.stdout.startswith("#!/bin/bash")


def test_jobs_come_after_one_another_and_a_held_one_when_it_is_released(lockstep: Lockstep, short: Path) -> None:
    first = submit(lockstep, short)
    second = submit(lockstep, short, "--after", first)
    third = lockstep.json("rerun", first, "--after", second, "--set", "name=third")["id"]
    assert "held" in lockstep.run("hold", third).stdout
    assert lockstep.until(first, {"ended well", "ended badly"})["phase"] == "ended well"
    assert lockstep.until(second, {"ended well", "ended badly"})["phase"] == "ended well"
    held = lockstep.job(third)
    assert (held["phase"], held["held"], held["slurm_job_id"]) == ("accepted", True, None)
    lockstep.run("release", third)
    ended = lockstep.until(third, {"ended well", "ended badly"})
    assert (ended["phase"], ended["name"], ended["rerun_of"], ended["after"]) == ("ended well", "third", first, second)
    starts = [json.dumps(lockstep.job(job)["started_at"]) for job in (first, second, third)]
    ends = [json.dumps(lockstep.job(job)["ended_at"]) for job in (first, second, third)]
    assert ends[0] <= starts[1]
    assert ends[1] <= starts[2]
    refused = lockstep.run("rerun", first, "--from", "last")
    assert (refused.returncode, "the job has no checkpoint in" in refused.stderr) == (2, True)


def test_what_comes_after_a_job_that_is_cancelled_never_starts(lockstep: Lockstep, short: Path, long: Path) -> None:
    first = submit(lockstep, long)
    second = submit(lockstep, short, "--after", first)
    lockstep.until(first, {"running"})
    lockstep.run("cancel", first)
    ended = lockstep.until(second, {"ended well", "ended badly"})
    assert (ended["phase"], ended["slurm_job_id"]) == ("ended badly", None)
    assert first in ended["reason"]
    assert "cancelled on request" in ended["reason"]


def test_in_slurms_queue_a_job_is_held_and_released_and_a_running_one_put_back(
    lockstep: Lockstep, short: Path, long: Path
) -> None:
    running = submit(lockstep, long, *WHOLE)
    lockstep.until(running, {"running"})
    waiting = submit(lockstep, short)
    lockstep.until(waiting, {"waiting"})
    refused = lockstep.run("hold", running)
    assert (refused.returncode, "Requeue it or cancel it" in refused.stderr) == (2, True)

    lockstep.run("hold", waiting)
    wait_for("Slurm's hold", lambda: _is(in_queue(lockstep, waiting), "PENDING", "JobHeldUser"))
    wait_for("the page's word of it", lambda: "held by its owner" in str(lockstep.job(waiting)["reason"]))
    lockstep.run("release", waiting)
    wait_for("Slurm's release", lambda: (in_queue(lockstep, waiting) or ("", "JobHeldUser"))[1] != "JobHeldUser")

    lockstep.run("requeue", running)
    wait_for("the requeue", lambda: (in_queue(lockstep, running) or ("", "", 0))[2] == 1)
    # Slurm lets a requeued job wait for two minutes: the other one has the nodes meanwhile.
    assert lockstep.until(waiting, {"ended well", "ended badly"})["phase"] == "ended well"
    lockstep.run("hold", running)
    wait_for("Slurm's hold", lambda: _is(in_queue(lockstep, running), "PENDING", "JobHeldUser"))
    assert lockstep.job(running)["held"]


def _is(found: Any, state: str, reason: str) -> bool:
    return found is not None and found[:2] == (state, reason)


def test_trainings_that_differ_in_a_value_are_submitted_together(
    lockstep: Lockstep, short: Path, tmp_path: Path
) -> None:
    each = ("--each", "environment.variables.TRIAL=a,b", "--each", "resources.nodes=1,2")
    later = ("--set", "resources.begin=now+2hours")  # they stay in the queue
    before = lockstep.json("ls")
    shown = lockstep.json("submit", short, *later, *each, "--dry-run")
    assert shown["jobs"] == 4
    assert shown["first"]["spec"]["name"] == shown["names"][0]
    watched = lockstep.run("submit", short, *each, "--watch")
    assert watched.returncode == 2
    assert "--each makes several" in watched.stderr
    wrong = lockstep.run("submit", short, "--each", "resources.nodes=1,9")
    assert wrong.returncode == 2
    assert "changes.1.resources.nodes: is 9" in wrong.stderr
    assert lockstep.json("ls") == before

    key = ("--idempotency-key", tmp_path.name)
    jobs = lockstep.json("submit", short, *later, *each, *key)["items"]
    assert lockstep.json("submit", short, *later, *each, *key)["items"] == jobs
    assert [job["name"] for job in jobs] == shown["names"]

    def queued() -> bool:
        found = lockstep.command("squeue", "--noheader", "--format=%j").split()
        return {name: found.count(name) for name in found} == {f"{job['name']}.{job['id']}": 1 for job in jobs}

    wait_for("all of them to be in Slurm's queue, once each", queued, 120)
    assert [lockstep.job(job["id"])["nodes_requested"] for job in jobs] == [1, 2, 1, 2]
