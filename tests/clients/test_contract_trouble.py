"""What every Slurm client keeps while Slurm is in trouble: stopped, down, drained, or without memory of a job."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.conftest import NUMBERS, OwnCluster
from clients.desk import Desk, stopped, until
from lockstep_slurm.client.protocol import SlurmClient, SlurmJob, SlurmUnavailableError, SlurmUnknownJobError


class TestStopped:
    @pytest.mark.parametrize(
        "ask",
        [
            lambda client: client.queue(),
            lambda client: client.find("x"),
            lambda client: client.cancel(1),
            lambda client: client.hold(1),
            lambda client: client.requeue(1),
            lambda client: client.test("#!/bin/bash\n", "x"),
            lambda client: client.nodes(),
            lambda client: client.ping(),
        ],
        ids=["queue", "find", "cancel", "hold", "requeue", "test", "nodes", "ping"],
    )
    def test_a_stopped_controller_is_unavailable_within_the_deadline(
        self, own_cluster: OwnCluster, ask: Callable[[SlurmClient], object]
    ) -> None:
        client = own_cluster.client(timeout=2)
        with stopped(own_cluster.controller):
            start = time.monotonic()
            with pytest.raises(SlurmUnavailableError):
                ask(client)
            assert time.monotonic() - start < 8  # left alone, Slurm's commands go on for a minute and more
        own_cluster.client().ping()

    def test_a_submit_without_an_answer_may_still_happen(self, own_cluster: OwnCluster, own_desk: Desk) -> None:
        submission = own_desk.submission(hold=True)
        with stopped(own_cluster.controller), pytest.raises(SlurmUnavailableError):
            own_cluster.client(timeout=2).submit(submission)
        (job,) = until(lambda: own_desk.client.find(submission.name) or None, "the job of the lost submit")
        own_desk.submitted.append(job.id)


class TestDown:
    def test_a_controller_that_is_down_is_unavailable_and_its_jobs_are_there_afterwards(
        self, own_cluster: OwnCluster, own_desk: Desk
    ) -> None:
        client = own_desk.client
        number = own_desk.run(hold=True)
        submission = own_desk.submission(hold=True)
        controller = own_cluster.controller
        os.kill(controller, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{controller}").exists(), "the controller's end")
        try:
            with pytest.raises(SlurmUnavailableError):
                client.ping()
            with pytest.raises(SlurmUnavailableError):
                client.release(number)
            with pytest.raises(SlurmUnavailableError):
                client.queue()
            with pytest.raises(SlurmUnavailableError):
                client.submit(submission)
        finally:
            own_cluster.mend()
        job = own_desk.job(number)
        assert job is not None
        assert job.state == "PENDING"


class TestForgotten:
    def test_what_slurm_forgot_is_in_the_records(self, own_desk: Desk, forgotten: SlurmJob) -> None:
        client = own_desk.client
        assert (forgotten.state, forgotten.exit_code) == ("FAILED", 3)
        assert client.find(forgotten.name) == [forgotten]
        assert client.finished([forgotten.id]) == [forgotten]
        with pytest.raises(SlurmUnknownJobError):
            client.cancel(forgotten.id)

    # After the one above: from here on, the number has another job.
    def test_a_number_that_comes_again_is_two_jobs_told_apart_by_name_and_submit_time(
        self, own_desk: Desk, forgotten: SlurmJob
    ) -> None:
        client, number = own_desk.client, forgotten.id
        before = NUMBERS[NUMBERS.index(number) - 1]
        # A script that is only asked about uses a number up, and Slurm forgets it at once.
        until(lambda: f"Job {before} " in client.test("#!/bin/bash\n", "x").words, f"the number before {number}")
        assert own_desk.run(hold=True) == number
        again = own_desk.in_state(number, "PENDING")
        assert again.name != forgotten.name
        assert (again.restarts, again.nodes, again.exit_code, again.ended) == (0, (), None, None)
        # The old job is where it was, asked for alone or with the new one.
        assert client.find(forgotten.name) == client.finished([number]) == [forgotten]
        assert client.find(again.name) == [again]
        assert client.find(forgotten.name, again.name) == [forgotten, again]
        # By number and name the queue has the new one alone: whatever is told the number, is told that one.
        there = {(job.id, job.name) for job in client.queue()}
        assert ((number, again.name) in there, (number, forgotten.name) in there) == (True, False)
        client.cancel(number)
        record = own_desk.record(number)
        assert (record.name, record.state, record.restarts) == (again.name, "CANCELLED", 0)
        assert record.submitted == again.submitted
        assert client.finished([number]) == [forgotten, record]
        assert forgotten.submitted is not None
        assert record.submitted is not None
        assert forgotten.submitted < record.submitted


class TestDrained:
    def test_a_drained_node_says_so_and_why(self, own_desk: Desk) -> None:
        client = own_desk.client
        own_desk.scontrol("update", "nodename=node1", "state=drain", "reason=new disk State=DOWN [not yet]")
        (node,) = client.nodes()
        assert (node.state, node.flags, node.reason) == ("IDLE", ("DRAIN",), "new disk State=DOWN [not yet]")
        own_desk.scontrol("update", "nodename=node1", "state=resume")
        until(lambda: client.nodes()[0].flags == (), "the node is back")

    def test_a_reason_of_another_encoding_can_be_read_and_stored(self, own_desk: Desk) -> None:
        client = own_desk.client
        own_desk.scontrol("update", "nodename=node1", "state=drain", os.fsdecode(b"reason=d\xe9f du disque"))
        (node,) = client.nodes()
        assert (node.state, node.flags, node.reason) == ("IDLE", ("DRAIN",), r"d\xe9f du disque")
        own_desk.scontrol("update", "nodename=node1", "state=resume")
        until(lambda: client.nodes()[0].flags == (), "the node is back")
