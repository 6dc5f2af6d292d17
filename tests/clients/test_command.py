"""``CommandClient`` besides the contract: one command a look, a clean environment, deadlines, a controller away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from clients.conftest import OwnCluster
from clients.desk import Desk, until
from lockstep_slurm.client import CommandClient
from lockstep_slurm.client.protocol import SlurmRefusedError, SlurmUnavailableError, SlurmUnknownJobError
from lockstep_slurm.cluster import ClusterInfo

Wrap = Callable[[str, str], Path]


@pytest.fixture
def wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """Puts a script of that name before everything on PATH; ``exec "$REAL" "$@"`` in it is the real command."""
    folder = tmp_path / "wrappers"
    folder.mkdir()
    usual = os.environ["PATH"]

    def add(name: str, body: str) -> Path:
        wrapper = folder / name
        wrapper.write_text(f"#!/bin/bash\nREAL={shutil.which(name, path=usual)}\n{body}\n")
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{usual}")
        return wrapper

    return add


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process is stopped (SIGSTOP) meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class TestHowCommandsAreCalled:
    def test_a_look_at_the_queue_is_one_command(self, command_desk: Desk, wrap: Wrap, tmp_path: Path) -> None:
        calls = tmp_path / "calls"
        for name in ("squeue", "scontrol", "sacct", "sinfo"):
            wrap(name, f'echo {name} >> {calls}\nexec "$REAL" "$@"')
        numbers = [command_desk.run(hold=True) for _ in range(3)]
        assert {job.id for job in command_desk.client.queue()} >= set(numbers)
        assert calls.read_text().split() == ["squeue"]

    def test_the_configuration_is_asked_for_once(self, command_desk: Desk, wrap: Wrap, tmp_path: Path) -> None:
        calls = tmp_path / "calls"
        wrap("scontrol", f'echo "$@" >> {calls}\nexec "$REAL" "$@"')
        for _ in range(3):
            command_desk.client.finished([1])
        assert calls.read_text().splitlines() == ["show config"]

    def test_a_command_gets_the_allow_list_and_nothing_else(
        self, command_desk: Desk, wrap: Wrap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrap("squeue", f'cat /proc/$$/environ > {tmp_path}/squeue.env\nexec "$REAL" "$@"')
        wrap("sbatch", f'cat /proc/$$/environ > {tmp_path}/sbatch.env\nexec "$REAL" "$@"')
        monkeypatch.setenv("SECRET", "x")
        monkeypatch.setenv("SLURM_CLUSTERS", "elsewhere")
        monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
        command_desk.run(hold=True)
        command_desk.client.queue()
        allowed = {"PATH", "HOME", "USER", "LANG", "SLURM_CONF"}
        assert self._names(tmp_path / "sbatch.env") <= allowed
        assert self._names(tmp_path / "squeue.env") <= allowed | {"SLURM_TIME_FORMAT"}

    @staticmethod
    def _names(environ: Path) -> set[str]:
        return {entry.partition("=")[0] for entry in environ.read_text().split("\0") if entry}

    def test_times_do_not_depend_on_this_process_zone(
        self, command_desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = command_desk.job(command_desk.run(hold=True))
        monkeypatch.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        try:
            assert job is not None
            assert command_desk.job(job.id) == job
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_only_this_users_jobs_are_seen(self, command_desk: Desk) -> None:
        submission = command_desk.submission()
        number = command_desk.submit(replace(submission, hold=True))
        other = CommandClient(command_desk.slurm_conf, user="nobody")
        assert number not in {job.id for job in other.queue()}
        assert other.find(submission.name) == []
        done = command_desk.run()
        command_desk.record(done)
        assert other.finished([done]) == []
        assert [job.id for job in CommandClient(command_desk.slurm_conf, user="root").finished([done])] == [done]

    def test_names_that_a_person_gave_other_jobs_do_no_harm(self, command_desk: Desk, cluster: ClusterInfo) -> None:
        names = ["two\nlines", "a|b,c d", "unit\x1fseparator", "JobId=1 JobState=FAILED Partition=x", "é漢"]
        others = [self._submit_by_hand(command_desk, cluster, name) for name in names]
        number = command_desk.run(hold=True)
        seen = {job.id: job.name for job in command_desk.client.queue()}
        assert number in seen
        assert [seen.get(other) for other in others] == names
        assert [job.id for job in command_desk.client.find(names[1])] == [others[1]]
        for other in others:
            command_desk.client.cancel(other)
        assert [job.name for job in [command_desk.record(others[1])]] == [names[1]]

    @staticmethod
    def _submit_by_hand(desk: Desk, cluster: ClusterInfo, name: str) -> int:
        argv = ["sbatch", "--parsable", "--hold", f"--job-name={name}", "--wrap=true", "--output=/dev/null"]
        environment = os.environ | {"SLURM_CONF": str(cluster.slurm_conf)}
        done = subprocess.run(argv, env=environment, check=True, timeout=30, capture_output=True, text=True)
        desk.submitted.append(int(done.stdout))
        return int(done.stdout)


class TestNodes:
    def test_figures_are_those_that_jobs_can_have(self, cluster: ClusterInfo) -> None:
        nodes = {node.name: node for node in CommandClient(cluster.slurm_conf).nodes()}
        assert tuple(sorted(nodes)) == tuple(sorted(cluster.nodes))
        for cores in cluster.cores:
            node = nodes[cores.node]
            assert node.cpus == len(cores.cpus)
            assert node.sockets * node.cores_per_socket * node.threads_per_core >= node.cpus
            assert node.memory > 0
            assert node.state in {"IDLE", "MIXED", "ALLOCATED"}
            assert node.reason is None

    def test_a_drained_node_says_so_and_why(self, own_cluster: OwnCluster) -> None:
        client = CommandClient(own_cluster.info.slurm_conf)
        environment = os.environ | {"SLURM_CONF": str(own_cluster.info.slurm_conf)}

        def set_state(*settings: str) -> None:
            subprocess.run(["scontrol", "update", "nodename=node1", *settings], env=environment, check=True, timeout=30)

        set_state("state=drain", "reason=new disk State=DOWN [not yet]")
        (node,) = client.nodes()
        assert (node.state, node.flags, node.reason) == ("IDLE", ("DRAIN",), "new disk State=DOWN [not yet]")
        set_state("state=resume")
        until(lambda: client.nodes()[0].flags == (), "the node is back")


class TestForgottenJobs:
    def test_what_slurm_forgot_is_in_the_records(self, own_cluster: OwnCluster, tmp_path: Path) -> None:
        desk = Desk(CommandClient(own_cluster.info.slurm_conf), tmp_path, own_cluster.info.slurm_conf)
        submission = desk.submission("exit 3")
        number = desk.submit(submission)
        record = desk.record(number)
        # MinJobAge is 2 s there, and slurmctld looks about every half minute.
        until(lambda: desk.job(number) is None, "Slurm forgets the job", within=120)
        assert (record.id, record.name, record.state, record.exit_code) == (number, submission.name, "FAILED", 3)
        assert desk.client.find(submission.name) == [record]
        assert desk.client.finished([number]) == [record]
        with pytest.raises(SlurmUnknownJobError):
            desk.client.cancel(number)


class TestNoAnswer:
    @pytest.mark.parametrize(
        "ask",
        [
            lambda client: client.queue(),
            lambda client: client.find("x"),
            lambda client: client.cancel(1),
            lambda client: client.hold(1),
            lambda client: client.requeue(1),
            lambda client: client.nodes(),
            lambda client: client.ping(),
        ],
        ids=["queue", "find", "cancel", "hold", "requeue", "nodes", "ping"],
    )
    def test_a_stopped_controller_is_unavailable_within_the_deadline(
        self, own_cluster: OwnCluster, ask: Callable[[CommandClient], object]
    ) -> None:
        client = CommandClient(own_cluster.info.slurm_conf, timeout=2)
        with stopped(own_cluster.controller):
            start = time.monotonic()
            with pytest.raises(SlurmUnavailableError, match="no answer within 2 s"):
                ask(client)
            assert time.monotonic() - start < 4
        CommandClient(own_cluster.info.slurm_conf).ping()

    def test_a_submit_without_an_answer_may_still_happen(self, own_cluster: OwnCluster, tmp_path: Path) -> None:
        desk = Desk(CommandClient(own_cluster.info.slurm_conf, timeout=2), tmp_path, own_cluster.info.slurm_conf)
        submission = desk.submission(hold=True)
        with stopped(own_cluster.controller), pytest.raises(SlurmUnavailableError):
            desk.submit(submission)
        (job,) = until(lambda: desk.client.find(submission.name) or None, "the job of the lost submit")
        desk.submitted.append(job.id)
        desk.clear()

    def test_slurms_own_time_out_is_unavailable_too(self, own_cluster: OwnCluster) -> None:
        client = CommandClient(own_cluster.info.slurm_conf, timeout=30)
        with stopped(own_cluster.controller), pytest.raises(SlurmUnavailableError, match=r"(?i)timed out"):
            client.queue()

    def test_a_controller_that_is_down_is_unavailable_and_its_jobs_are_there_afterwards(
        self, own_cluster: OwnCluster, tmp_path: Path
    ) -> None:
        desk = Desk(CommandClient(own_cluster.info.slurm_conf), tmp_path, own_cluster.info.slurm_conf)
        number = desk.run(hold=True)
        controller = own_cluster.controller
        os.kill(controller, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{controller}").exists(), "the controller's end")
        try:
            with pytest.raises(SlurmUnavailableError, match=r"(?i)is DOWN"):
                desk.client.ping()
            # scontrol's own words for it are "Unexpected message received" (22.05).
            with pytest.raises(SlurmUnavailableError):
                desk.client.release(number)
            with pytest.raises(SlurmUnavailableError, match=r"(?i)unable to contact"):
                desk.client.queue()
            with pytest.raises(SlurmUnavailableError):
                desk.run()
        finally:
            own_cluster.mend()
        job = desk.job(number)
        assert job is not None
        assert job.state == "PENDING"
        desk.clear()

    def test_a_missing_slurm_conf_is_unavailable_at_once(self, tmp_path: Path) -> None:
        start = time.monotonic()
        with pytest.raises(SlurmUnavailableError, match=r"nowhere/slurm\.conf"):
            CommandClient(tmp_path / "nowhere" / "slurm.conf").ping()
        assert time.monotonic() - start < 1

    def test_missing_commands_are_unavailable(
        self, cluster: ClusterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SlurmUnavailableError, match="squeue"):
            CommandClient(cluster.slurm_conf).queue()

    def test_a_command_that_hangs_is_ended_with_its_children(
        self, cluster: ClusterInfo, wrap: Wrap, tmp_path: Path
    ) -> None:
        wrap("squeue", f"sleep 300 & echo $! > {tmp_path}/pid\nwait")
        with pytest.raises(SlurmUnavailableError, match=r"within 0\.5 s"):
            CommandClient(cluster.slurm_conf, timeout=0.5).queue()
        child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
        until(lambda: not child.exists() or child.read_text().split(")")[1].split()[0] == "Z", "the child's end")

    def test_an_answer_that_cannot_be_read_is_no_answer(self, cluster: ClusterInfo, wrap: Wrap) -> None:
        wrap("sbatch", "echo all fine")
        with pytest.raises(SlurmUnavailableError, match="all fine"):
            Desk(CommandClient(cluster.slurm_conf), wrap("squeue", "true").parent).run()

    def test_a_refusal_that_speaks_of_neither_is_told_verbatim(self, cluster: ClusterInfo, wrap: Wrap) -> None:
        wrap("squeue", "echo 'squeue: error: the moon is full' >&2; exit 1")
        with pytest.raises(SlurmRefusedError, match="the moon is full"):
            CommandClient(cluster.slurm_conf).queue()
