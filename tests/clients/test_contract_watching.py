"""What every Slurm client says of what Slurm does to jobs: it suspends them, preempts them, and loses their nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from clients.conftest import OwnCluster
from clients.desk import Desk, stopped, until
from lockstep_slurm.client.protocol import SlurmJob

SLEEPS = "echo $$ > pid.new; mv pid.new pid; exec sleep 300"
WHOLE = "#SBATCH --exclusive --nodes=1 --partition="
"""Of the one node: no other job fits beside it."""


class TestSuspending:
    def test_a_suspended_job_keeps_its_node_and_can_be_resumed_and_cancelled(self, own_desk: Desk) -> None:
        before, pid = _running(own_desk)
        _suspend(own_desk, before, pid)
        suspended = own_desk.in_state(before.id, "SUSPENDED")
        assert suspended == replace(before, state="SUSPENDED")
        assert own_desk.client.find(before.name) == [suspended]
        assert _runs(own_desk, before) == []
        own_desk.scontrol("resume", str(before.id))
        assert own_desk.in_state(before.id, "RUNNING") == before
        until(lambda: not _is_stopped(pid), "its process to go on")
        _suspend(own_desk, before, pid)
        own_desk.in_state(before.id, "SUSPENDED")
        own_desk.client.cancel(before.id)
        until(lambda: not _is_there(pid), "the end of its process")
        _check_ended(own_desk, before, "CANCELLED")


@pytest.fixture
def tiers(own_desk: Desk) -> Iterator[None]:
    """``urgent``, whose jobs preempt all others, and ``spare``, whose jobs are cancelled when they are preempted."""
    own_desk.scontrol("create", "partitionname=urgent", "nodes=ALL", "prioritytier=10", "preemptmode=off")
    own_desk.scontrol("create", "partitionname=spare", "nodes=ALL", "prioritytier=1", "preemptmode=cancel")
    yield
    # A partition with jobs in it cannot be deleted.
    own_desk.clear()
    for name in ("urgent", "spare"):
        own_desk.scontrol("delete", f"partitionname={name}")


@pytest.mark.usefixtures("tiers")
class TestPreempting:
    def test_a_preempted_job_is_in_the_queue_again_under_its_number(self, own_desk: Desk) -> None:
        before, pid = _running(own_desk, f"{WHOLE}main --requeue")
        self._preempt(own_desk, pid)
        _check_queued_again(own_desk, before, "PREEMPTED")

    def test_a_preempted_job_of_a_partition_that_cancels_has_ended(self, own_desk: Desk) -> None:
        before, pid = _running(own_desk, f"{WHOLE}spare --requeue")
        self._preempt(own_desk, pid)
        _check_ended(own_desk, before, "PREEMPTED")

    @staticmethod
    def _preempt(desk: Desk, pid: int) -> None:
        desk.in_state(desk.run("sleep 300", header=f"{WHOLE}urgent"), "RUNNING")
        assert not _is_there(pid)


class TestLosingNodes:
    def test_a_job_whose_node_failed_is_in_the_queue_again_while_its_processes_live_on(
        self, own_cluster: OwnCluster, own_desk: Desk
    ) -> None:
        before, pid = _running(own_desk, "#SBATCH --requeue")
        with _down(own_cluster, own_desk, before.nodes[0]):
            _check_queued_again(own_desk, before, "NODE_FAIL")
            assert _is_there(pid)
            (node,) = own_desk.client.nodes()
            assert (node.state, node.reason) == ("DOWN", "power supply")
        until(lambda: not _is_there(pid), "the end of its process, once the node is back")

    def test_a_job_whose_node_failed_and_that_may_not_be_requeued_has_ended(
        self, own_cluster: OwnCluster, own_desk: Desk
    ) -> None:
        before, pid = _running(own_desk, "#SBATCH --no-requeue")
        with _down(own_cluster, own_desk, before.nodes[0]):
            assert _check_ended(own_desk, before, "NODE_FAIL").reason == "NodeDown"
            assert _is_there(pid)
        until(lambda: not _is_there(pid), "the end of its process, once the node is back")


class TestMaintenance:
    def test_a_job_that_would_run_into_maintenance_waits_and_says_so(self, own_desk: Desk) -> None:
        begins = time.time() + 60
        own_desk.scontrol(
            "create", "reservation", "reservationname=works", "flags=maint,ignore_jobs", "nodes=ALL", "users=root",
            "starttime=now+60", "duration=10",
        )  # fmt: skip
        try:
            submission = own_desk.submission(header="#SBATCH --time=30")
            number = own_desk.submit(submission)

            def kept() -> SlurmJob | None:
                job = own_desk.job(number)
                return job if job is not None and job.started is not None else None

            job = until(kept, "an estimate of its start")
            # 22.05 and 24.11 alike; elsewhere in Slurm blanks of reasons are underscores.
            assert (job.reason or "").replace("_", " ") == "ReqNodeNotAvail, Reserved for maintenance"
            assert (job.state, job.nodes, job.restarts, job.ended, job.exit_code) == ("PENDING", (), 0, None, None)
            assert job.started is not None
            assert job.started.timestamp() >= begins + 10 * 60 - 1
            # The estimate may have changed meanwhile.
            assert [(one.id, one.reason) for one in own_desk.client.find(submission.name)] == [(number, job.reason)]
            assert _runs(own_desk, job) == []
        finally:
            own_desk.scontrol("delete", "reservationname=works")
        assert own_desk.ended(number).state == "COMPLETED"


def _running(desk: Desk, header: str = "") -> tuple[SlurmJob, int]:
    """A job that runs, and the process of its script."""
    number = desk.run(SLEEPS, header=header)
    until((desk.folder / "pid").exists, "the job's start")

    def look() -> SlurmJob | None:
        job = desk.in_state(number, "RUNNING")
        return None if job.flags else job

    return until(look, "the job to run, and no more than that"), int((desk.folder / "pid").read_text())


def _suspend(desk: Desk, job: SlurmJob, pid: int) -> None:
    """Suspends it, and waits for what the queue does not tell: that the node has done so.

    A node that is asked for the next thing before may do the two in the other order, and keep what it was to end.
    """
    desk.scontrol("suspend", str(job.id))
    until(lambda: _is_stopped(pid), "its process to stop")


def _check_queued_again(desk: Desk, before: SlurmJob, ended: str) -> None:
    """The same job waits for its second run, and there is one record, of the first: ``ended``."""
    job = desk.in_state(before.id, "PENDING")
    assert (job.name, job.restarts, job.nodes) == (before.name, 1, ())
    assert (job.ended, job.exit_code, job.exit_signal) == (None, None, None)
    assert job.submitted is not None
    assert before.submitted is not None
    assert job.submitted >= before.submitted
    assert [one.state for one in desk.client.find(before.name)] == ["PENDING"]
    (first,) = until(lambda: _runs(desk, before) or None, "a record of its first run")
    _check_end(first, before, ended)
    desk.client.cancel(before.id)
    second = until(lambda: _runs(desk, before)[1:] or None, "a record of its second run")[0]
    assert _runs(desk, before) == [first, second]
    assert (second.name, second.state, second.restarts, second.nodes) == (before.name, "CANCELLED", 1, ())
    assert second.submitted == job.submitted


def _check_ended(desk: Desk, before: SlurmJob, state: str) -> SlurmJob:
    """The job has ended so, in the queue and in its one record; how it ended, the exit code does not say."""
    job = desk.ended(before.id)
    record = desk.record(before.id)
    for told in (job, record):
        _check_end(told, before, state)
    assert _runs(desk, before) == [record]
    assert [(one.id, one.state) for one in desk.client.find(before.name)] == [(before.id, state)]
    return job


def _runs(desk: Desk, job: SlurmJob) -> list[SlurmJob]:
    """The job's records. Its number may have had another job, so the name is compared, as every caller has to."""
    return [one for one in desk.client.finished([job.id]) if one.name == job.name]


def _check_end(told: SlurmJob, before: SlurmJob, state: str) -> None:
    """This is the run ``before``, which ended so."""
    assert (told.state, told.flags, told.restarts) == (state, (), 0)
    assert (told.id, told.name, told.nodes) == (before.id, before.name, before.nodes)
    assert (told.submitted, told.started) == (before.submitted, before.started)
    assert told.ended is not None


@contextmanager
def _down(cluster: OwnCluster, desk: Desk, node: str) -> Iterator[None]:
    """The node is down meanwhile, and nobody there can end what runs; afterwards it is at work again."""
    with stopped(cluster.slurmd(node)):
        desk.scontrol("update", f"nodename={node}", "state=down", "reason=power supply")
        try:
            yield
        finally:
            desk.scontrol("update", f"nodename={node}", "state=resume")
    until(lambda: [(one.state, one.flags) for one in desk.client.nodes()] == [("IDLE", ())], "the node is back")


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
