"""``CommandClient`` besides the contract: one command a look, a clean environment, deadlines, a controller away."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clients.conftest import OwnCluster, Wrap
from clients.desk import Desk, stopped, until
from lockstep_slurm.client import CommandClient
from lockstep_slurm.client.protocol import SlurmRateLimitedError, SlurmRefusedError, SlurmUnavailableError
from lockstep_slurm.client.refusals import meaning


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
        assert command_desk.client.message_timeout() == 10  # seconds, as Slurm has it by default
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

    def test_names_that_a_person_gave_other_jobs_do_no_harm(self, command_desk: Desk) -> None:
        names = ["two\nlines", "a|b,c d", "unit\x1fseparator", "JobId=1 JobState=FAILED Partition=x", "é漢"]
        others = [self._submit_by_hand(command_desk, name) for name in names]
        number = command_desk.run(hold=True)
        seen = {job.id: job.name for job in command_desk.client.queue()}
        assert number in seen
        assert [seen.get(other) for other in others] == names
        assert [job.id for job in command_desk.client.find(names[1])] == [others[1]]
        for other in others:
            command_desk.client.cancel(other)
        assert [job.name for job in [command_desk.record(others[1])]] == [names[1]]

    @staticmethod
    def _submit_by_hand(desk: Desk, name: str) -> int:
        argv = ["sbatch", "--parsable", "--hold", f"--job-name={name}", "--wrap=true", "--output=/dev/null"]
        environment = os.environ | {"SLURM_CONF": str(desk.slurm_conf)}
        done = subprocess.run(argv, env=environment, check=True, timeout=30, capture_output=True, text=True)
        desk.submitted.append(int(done.stdout))
        return int(done.stdout)


class TestSubmitsThatDie:
    @pytest.mark.parametrize(
        ("end", "words"),
        [
            ("kill -KILL $$", "was ended by SIGKILL, without a word"),
            ("echo 'line 3: 71 Killed' >&2; exit 137", "was ended by SIGKILL: line 3"),
            ("exit 1", "ended with exit code 1, without a word"),
            ("echo 17; exit 3", "printed a job id: '17'"),
        ],
    )
    def test_one_that_says_no_no_may_have_happened(self, command_desk: Desk, wrap: Wrap, end: str, words: str) -> None:
        wrap("sbatch", f'"$REAL" "$@" > /dev/null\n{end}')
        submission = command_desk.submission(hold=True)
        with pytest.raises(SlurmUnavailableError, match=words):
            command_desk.client.submit(submission)
        (job,) = command_desk.client.find(submission.name)
        command_desk.submitted.append(job.id)


class TestRateLimit:
    # What the commands say in the end; before, they wait and ask again by themselves.
    SAID = "Rate limit exceeded, please retry later"

    def test_a_submit_was_refused_and_anything_else_was_not_answered(self, command_desk: Desk, wrap: Wrap) -> None:
        wrap("sbatch", f"echo 'sbatch: error: Batch job submission failed: {self.SAID}' >&2; exit 1")
        wrap("scancel", f"echo 'scancel: error: Kill job error on job id 1: {self.SAID}' >&2; exit 1")
        with pytest.raises(SlurmRefusedError, match=self.SAID) as refused:
            command_desk.client.submit(command_desk.submission())
        assert meaning(str(refused.value)) == "cluster"
        with pytest.raises(SlurmRateLimitedError, match=self.SAID):
            command_desk.client.cancel(1)

    def test_a_submit_that_tried_again_by_itself_may_have_happened(self, command_desk: Desk, wrap: Wrap) -> None:
        wrap("sbatch", f"echo 'sbatch: error: {self.SAID}' >&2; kill -KILL $$")
        with pytest.raises(SlurmUnavailableError) as caught:
            command_desk.client.submit(command_desk.submission())
        assert type(caught.value) is SlurmUnavailableError


class TestNoAnswer:
    def test_a_stopped_controller_is_no_answer_within_the_deadline(self, own_command_cluster: OwnCluster) -> None:
        with (
            stopped(own_command_cluster.controller),
            pytest.raises(SlurmUnavailableError, match="no answer within 2 s"),
        ):
            CommandClient(own_command_cluster.info.slurm_conf, timeout=2).queue()

    def test_slurms_own_time_out_is_unavailable_too(self, own_command_cluster: OwnCluster) -> None:
        client = CommandClient(own_command_cluster.info.slurm_conf, timeout=30)
        with stopped(own_command_cluster.controller), pytest.raises(SlurmUnavailableError, match=r"(?i)timed out"):
            client.queue()

    def test_a_missing_slurm_conf_is_unavailable_at_once(self, tmp_path: Path) -> None:
        start = time.monotonic()
        with pytest.raises(SlurmUnavailableError, match=r"nowhere/slurm\.conf"):
            CommandClient(tmp_path / "nowhere" / "slurm.conf").ping()
        assert time.monotonic() - start < 1

    def test_missing_commands_are_unavailable(
        self, command_desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SlurmUnavailableError, match="squeue"):
            CommandClient(command_desk.slurm_conf).queue()

    def test_a_command_that_hangs_is_ended_with_its_children(
        self, command_desk: Desk, wrap: Wrap, tmp_path: Path
    ) -> None:
        wrap("squeue", f"sleep 300 & echo $! > {tmp_path}/pid\nwait")
        with pytest.raises(SlurmUnavailableError, match=r"within 0\.5 s"):
            CommandClient(command_desk.slurm_conf, timeout=0.5).queue()
        child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
        until(lambda: not child.exists() or child.read_text().split(")")[1].split()[0] == "Z", "the child's end")

    def test_an_answer_that_cannot_be_read_is_no_answer(self, command_desk: Desk, wrap: Wrap) -> None:
        wrap("sbatch", "echo all fine")
        with pytest.raises(SlurmUnavailableError, match="all fine"):
            command_desk.run()

    def test_a_refusal_that_speaks_of_neither_is_told_verbatim(self, command_desk: Desk, wrap: Wrap) -> None:
        wrap("squeue", "echo 'squeue: error: the moon is full' >&2; exit 1")
        with pytest.raises(SlurmRefusedError, match="the moon is full"):
            CommandClient(command_desk.slurm_conf).queue()
