"""``PySlurmClient`` besides the contract, with the real pyslurm and a real Slurm: it asks for what sbatch asks for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clients.conftest import OwnCluster
from clients.desk import Desk, stopped, until
from clients.test_pyslurm_description import EVERYTHING
from lockstep_slurm.client import CommandClient, PySlurmClient
from lockstep_slurm.client.protocol import SlurmRefusedError, SlurmUnavailableError, Submission
from lockstep_slurm.job.identity import new_job_id, slurm_name
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec

# Besides its own command line, sbatch of 25.11 says CPUs per task once more as a TRES, and nothing of what is to happen
# when a step runs out of memory, where pyslurm says Slurm's own default aloud.
_SBATCH_ONLY = {"TresPerTask", "OOMKillStep"}
_OF_ONE_JOB = {"JobId", "Priority", "SubmitTime", "EligibleTime", "AccrueTime", "StartTime", "EndTime", "LastSchedEval"}
_VARIABLES_OF_ONE_JOB = (
    "SLURM_JOB_ID=", "SLURM_JOBID=", "SLURM_TASK_PID=", "SLURM_JOB_START_TIME=", "SLURM_JOB_END_TIME=",
    # Which of the nodes it is, the scheduler decides.
    "SLURMD_NODENAME=", "HOSTNAME=", "SLURM_NODELIST=", "SLURM_JOB_NODELIST=", "SLURM_TOPOLOGY_ADDR=",
)  # fmt: skip


@pytest.fixture
def features(pyslurm_desk: Desk) -> Iterator[None]:
    """The cluster's nodes are fast and big, and reserved for root."""
    nodes = ",".join(node.name for node in pyslurm_desk.client.nodes())
    pyslurm_desk.scontrol("update", f"nodename={nodes}", "AvailableFeatures=fast,big", "ActiveFeatures=fast,big")
    pyslurm_desk.scontrol(
        "create", "reservation", "reservationname=maintenance", "starttime=now+10days", "duration=60",
        "users=root", f"nodes={nodes}",
    )  # fmt: skip
    yield
    pyslurm_desk.clear()
    pyslurm_desk.scontrol("delete", "reservationname=maintenance")
    pyslurm_desk.scontrol("update", f"nodename={nodes}", "AvailableFeatures=", "ActiveFeatures=")


def command(desk: Desk) -> Desk:
    """The same desk with Slurm's commands."""
    return replace(desk, client=CommandClient(desk.slurm_conf), submitted=desk.submitted)


def as_slurm_has_it(desk: Desk, number: int) -> dict[str, str]:
    """``scontrol show job`` as names and texts, without what differs between any two jobs."""
    lines = desk.scontrol("show", "job", str(number)).splitlines()
    words = [word for line in lines if not line.strip().startswith("SubmitLine=") for word in line.split()]
    told = dict(word.partition("=")[::2] for word in words)
    return {key: text for key, text in told.items() if key not in _OF_ONE_JOB | _SBATCH_ONLY}


class TestOneSpecThroughBoth:
    @pytest.mark.usefixtures("features")
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"exclusive": False, "mem": "1G", "requeue": True, "time": "5", "begin": None, "mail_type": ["END"]},
            {"exclusive": True, "mem": None},
            {"mail_type": ["ALL"]},
        ],
        ids=["every key", "others", "whole nodes", "all mails"],
    )
    def test_slurm_has_the_same_job(self, pyslurm_desk: Desk, changes: dict[str, object]) -> None:
        # A node here may have a single CPU: what is asked for must be possible to be taken.
        spec = EVERYTHING.model_copy(
            update={
                "resources": EVERYTHING.resources.model_copy(update=changes),
                "placement": EVERYTHING.placement.model_copy(update={"ranks_per_node": 1, "cpus_per_rank": 1}),
            }
        )
        submission = self._submission(pyslurm_desk, JobSpec.model_validate(spec.model_dump()))
        by_command = as_slurm_has_it(pyslurm_desk, command(pyslurm_desk).submit(submission))
        by_pyslurm = as_slurm_has_it(pyslurm_desk, pyslurm_desk.submit(submission))
        assert by_pyslurm == by_command
        # Read, and not both empty.
        assert (by_command["Account"], by_command["Features"], by_command["Reservation"], by_command["NumTasks"]) == (
            "physics", "fast&big", "maintenance", "2",
        )  # fmt: skip

    @staticmethod
    def _submission(desk: Desk, spec: JobSpec) -> Submission:
        submission = desk.submission(name=slurm_name("both", new_job_id()), hold=True, output="both.log")
        submission.script.write_text(render(spec, ScriptSite("/usr/bin/python3", str(desk.folder))))
        return submission

    @pytest.mark.parametrize(
        "header",
        [
            "#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=1\n#SBATCH --cpus-per-task=1\n#SBATCH --time=5",
            "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n#SBATCH --exclusive\n#SBATCH --mem=100M",
            "#SBATCH -c 1 --comment='by sbatch'",
        ],
        ids=["one", "two", "by sbatch"],
    )
    def test_the_jobs_environment_and_limits_are_the_same(self, pyslurm_desk: Desk, header: str) -> None:
        submission = pyslurm_desk.submission("env -0 | sort -z; umask; ulimit -a", header=header)
        submission.script.write_text(submission.script.read_text().replace("#SBATCH --ntasks=1\n", ""))
        seen = []
        for desk in (command(pyslurm_desk), pyslurm_desk):
            number = desk.submit(submission)
            assert desk.ended(number).state == "COMPLETED"
            text = (desk.folder / f"job-{number}.log").read_text(errors="replace")
            lines = text.replace("\n", "\0").split("\0")
            seen.append([line for line in lines if not line.startswith(_VARIABLES_OF_ONE_JOB)])
        assert seen[1] == seen[0]
        assert "SLURM_EXPORT_ENV=NONE" in seen[0]

    @pytest.mark.parametrize(
        ("header", "word"),
        [
            ("#SBATCH --partition=nowhere", "partition"),
            ("#SBATCH --time=soon", "time"),
            ("#SBATCH --no-such-option", "no-such-option"),
            ("#SBATCH --nodes=0", "ode"),
            ("#SBATCH --begin=yesterday-ish", "(?i)time"),
        ],
    )
    def test_a_bad_header_is_refused(self, pyslurm_desk: Desk, header: str, word: str) -> None:
        submission = pyslurm_desk.submission(header=header)
        with pytest.raises(SlurmRefusedError, match=word):
            pyslurm_desk.submit(submission)
        assert all(job.state == "FAILED" for job in pyslurm_desk.client.find(submission.name))


class TestWhatItTells:
    def test_the_cluster_is_the_one_that_the_commands_see(self, pyslurm_desk: Desk) -> None:
        other = command(pyslurm_desk).client
        pyslurm_desk.in_state(pyslurm_desk.run("sleep 60"), "RUNNING")
        assert pyslurm_desk.client.nodes() == other.nodes()
        assert pyslurm_desk.client.partitions() == other.partitions()

    def test_jobs_in_every_state_are_those_that_the_commands_see(self, pyslurm_desk: Desk) -> None:
        numbers = [pyslurm_desk.run("sleep 60", hold=True), pyslurm_desk.run("exit 200"), pyslurm_desk.run("exit 72")]
        numbers += [pyslurm_desk.run("kill -KILL $$"), pyslurm_desk.run("exit 128"), pyslurm_desk.run(hold=True)]
        pyslurm_desk.client.cancel(numbers[-1])
        for number in numbers[1:]:
            pyslurm_desk.ended(number)
        running = pyslurm_desk.run("sleep 60")
        pyslurm_desk.in_state(running, "RUNNING")
        jobs = [
            {job.id: job for job in desk.client.queue() if job.id in [*numbers, running]}
            for desk in (pyslurm_desk, command(pyslurm_desk))
        ]
        # A pending job's start is an estimate, which is made anew every few seconds.
        held = numbers[0]
        assert {**jobs[0], held: replace(jobs[0][held], started=None)} == {
            **jobs[1], held: replace(jobs[1][held], started=None),
        }  # fmt: skip
        assert [jobs[0][number].exit_code for number in numbers[1:5]] == [200, 72, None, 128]

    def test_only_this_users_jobs_are_seen(self, pyslurm_desk: Desk) -> None:
        submission = pyslurm_desk.submission(hold=True)
        number = pyslurm_desk.submit(submission)
        other = PySlurmClient(pyslurm_desk.slurm_conf, user="nobody")
        assert number not in {job.id for job in other.queue()}
        assert other.find(submission.name) == []
        by_name = PySlurmClient(pyslurm_desk.slurm_conf, user="root")
        assert [job.id for job in by_name.find(submission.name)] == [number]

    @pytest.mark.parametrize("name", ["two\nlines", "a|b,c d", "None", "é漢"])
    def test_names_that_a_person_gave_other_jobs_come_back_whole(self, pyslurm_desk: Desk, name: str) -> None:
        number = pyslurm_desk.submit(replace(command(pyslurm_desk).submission(name="x", hold=True), name=name))
        assert [job.name for job in pyslurm_desk.client.queue() if job.id == number] == [name]
        assert [job.id for job in pyslurm_desk.client.find(name) if job.id == number] == [number]


class TestNoAnswer:
    @pytest.mark.parametrize(
        "ask",
        [
            lambda client: client.queue(),
            lambda client: client.find("x"),
            lambda client: client.cancel(1),
            lambda client: client.hold(1),
            lambda client: client.release(1),
            lambda client: client.requeue(1),
            lambda client: client.nodes(),
            lambda client: client.partitions(),
            lambda client: client.ping(),
        ],
        ids=["queue", "find", "cancel", "hold", "release", "requeue", "nodes", "partitions", "ping"],
    )
    def test_a_stopped_controller_is_unavailable_within_the_deadline_and_freezes_no_thread(
        self, own_cluster: OwnCluster, own_pyslurm: PySlurmClient, ask: Callable[[PySlurmClient], object]
    ) -> None:
        ticks: list[float] = []
        over = threading.Event()

        def tick() -> None:
            while not over.wait(0.01):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        with stopped(own_cluster.controller):
            thread.start()
            start = time.monotonic()
            with pytest.raises(SlurmUnavailableError, match="no answer within 2 s"):
                ask(own_pyslurm)
            took = time.monotonic() - start
            over.set()
            thread.join()
        # In this process pyslurm would hold all threads for as long as it waits, five seconds and more: no tick at all.
        assert took < 8
        assert len(ticks) > 20
        own_pyslurm.ping()

    def test_a_submit_whose_process_was_ended_may_still_happen(
        self, own_cluster: OwnCluster, own_pyslurm: PySlurmClient, tmp_path: Path
    ) -> None:
        desk = Desk(own_pyslurm, tmp_path, own_cluster.info.slurm_conf)
        desk.run(hold=True)  # what has to be known of the cluster is asked for with the first
        submission = desk.submission(hold=True)
        with (
            stopped(own_cluster.controller),
            pytest.raises(SlurmUnavailableError, match="no answer within 2 s to submit"),
        ):
            desk.submit(submission)
        (job,) = until(lambda: own_pyslurm.find(submission.name) or None, "the job of the lost submit")
        desk.submitted.append(job.id)
        desk.clear()

    def test_slurms_own_time_out_is_unavailable_too(self, own_cluster: OwnCluster, own_pyslurm: PySlurmClient) -> None:
        own_pyslurm.close()
        client = own_cluster.client(timeout=60)
        client.ping()
        with stopped(own_cluster.controller), pytest.raises(SlurmUnavailableError, match=r"(?i)timed out|unable"):
            client.queue()
        client.queue()

    def test_a_process_that_was_killed_is_replaced(self, own_pyslurm: PySlurmClient) -> None:
        first = own_pyslurm.process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "its end")
        own_pyslurm.ping()
        assert own_pyslurm.process.pid != first

    def test_a_slurm_conf_that_says_nothing_ends_the_process_and_not_this_one(
        self, own_pyslurm: PySlurmClient, tmp_path: Path
    ) -> None:
        assert own_pyslurm.kind == "pyslurm"
        (tmp_path / "slurm.conf").write_text("This=is\nno=configuration\n")
        with pytest.raises(SlurmUnavailableError, match=r"fatal|ended"):
            PySlurmClient(tmp_path / "slurm.conf").ping()
