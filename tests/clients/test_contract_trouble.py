"""What every Slurm client keeps while Slurm is in trouble: stopped, down, drained, or without memory of a job."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.conftest import OwnCluster
from clients.desk import Desk, stopped, until
from lockstep_slurm.client.protocol import SlurmClient, SlurmUnavailableError, SlurmUnknownJobError


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
            assert time.monotonic() - start < 4
        client.ping()

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
    def test_what_slurm_forgot_is_in_the_records(self, own_desk: Desk) -> None:
        client, submission = own_desk.client, own_desk.submission("exit 3")
        number = own_desk.submit(submission)
        record = own_desk.record(number)
        # MinJobAge is 2 s there, and slurmctld looks about every half minute.
        until(lambda: own_desk.job(number) is None, "Slurm forgets the job", within=120)
        assert (record.id, record.name, record.state, record.exit_code) == (number, submission.name, "FAILED", 3)
        assert client.find(submission.name) == [record]
        assert client.finished([number]) == [record]
        with pytest.raises(SlurmUnknownJobError):
            client.cancel(number)


class TestDrained:
    def test_a_drained_node_says_so_and_why(self, own_desk: Desk) -> None:
        client = own_desk.client
        own_desk.scontrol("update", "nodename=node1", "state=drain", "reason=new disk State=DOWN [not yet]")
        (node,) = client.nodes()
        assert (node.state, node.flags, node.reason) == ("IDLE", ("DRAIN",), "new disk State=DOWN [not yet]")
        own_desk.scontrol("update", "nodename=node1", "state=resume")
        until(lambda: client.nodes()[0].flags == (), "the node is back")
