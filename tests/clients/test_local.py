"""``LocalClient`` besides the contract: jobs outlive whoever started them, and take turns."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from clients.desk import Desk, until
from lockstep_slurm.client import LocalClient, local_files, processes
from lockstep_slurm.client.local_queue import KEEP
from lockstep_slurm.client.protocol import SlurmRefusedError, SlurmUnavailableError

_SUBMIT = """
import sys
from pathlib import Path
from lockstep_slurm.client import LocalClient
from lockstep_slurm.client.protocol import Submission
folder = Path(sys.argv[1])
client = LocalClient(folder / "home" / "local")
print(client.submit(Submission(Path(sys.argv[2]), sys.argv[3], folder / "job-%j.log", folder)), flush=True)
sys.stdin.read()
"""


def _files(desk: Desk, number: int) -> local_files.Files:
    found = local_files.read(desk.folder / "home" / "local" / "queue" / str(number))
    assert found is not None
    return found


def _started(desk: Desk, number: int) -> tuple[processes.Identity, processes.Identity]:
    """Supervisor and leader of the job's first run, as soon as its script runs."""

    def look() -> tuple[processes.Identity, processes.Identity] | None:
        run = _files(desk, number).runs.get(0)
        return None if run is None or run.leader is None else (run.supervisor, run.leader)

    return until(look, f"the start of job {number}")


class TestTakingTurns:
    def test_the_second_job_waits_for_the_first_and_starts_without_anybody_asking(self, local_desk: Desk) -> None:
        first = local_desk.run("until [ -e go ]; do sleep 0.05; done")
        second = local_desk.run("touch second")
        waiting = local_desk.job(second)
        assert waiting is not None
        assert (waiting.state, waiting.reason) == ("PENDING", "Resources")
        (local_desk.folder / "go").touch()
        until((local_desk.folder / "second").exists, "the second job, which nobody asked for")
        assert local_desk.ended(first).state == "COMPLETED"

    def test_jobs_start_in_the_order_of_their_submits(self, local_desk: Desk) -> None:
        numbers = [local_desk.run('echo "$1" >> order', arguments=(str(index),)) for index in range(4)]
        for number in numbers:
            local_desk.ended(number)
        assert (local_desk.folder / "order").read_text().split() == ["0", "1", "2", "3"]

    def test_two_slots_run_two_jobs_and_no_third(self, local_desk: Desk) -> None:
        local_desk.client = LocalClient(local_desk.folder / "home" / "local", slots=2)
        numbers = [local_desk.run("sleep 300") for _ in range(3)]
        states = [job.state for job in local_desk.client.queue() if job.id in numbers]
        assert states == ["RUNNING", "RUNNING", "PENDING"]

    def test_no_slot_at_all_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="slots is 0"):
            LocalClient(tmp_path, slots=0)

    def test_many_submits_at_once_get_ids_of_their_own_and_never_run_together(self, local_desk: Desk) -> None:
        # mkdir fails if another job is inside.
        submission = local_desk.submission("mkdir inside && sleep 0.05 && rmdir inside")
        with ThreadPoolExecutor(6) as pool:
            numbers = list(pool.map(lambda _: self._submit(local_desk, submission.script), range(6)))
        local_desk.submitted += numbers
        assert len(set(numbers)) == 6
        assert {local_desk.ended(number).state for number in numbers} == {"COMPLETED"}

    @staticmethod
    def _submit(desk: Desk, script: Path) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _SUBMIT, str(desk.folder), str(script), "many"],
            input="",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return int(done.stdout)


class TestOutliving:
    def test_a_job_outlives_the_process_that_submitted_it(self, local_desk: Desk) -> None:
        submission = local_desk.submission("until [ -e go ]; do sleep 0.05; done; echo still here; exit 5")
        argv = [sys.executable, "-c", _SUBMIT, str(local_desk.folder), str(submission.script), submission.name]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as service:
            assert service.stdout is not None
            number = int(service.stdout.readline())
            local_desk.submitted.append(number)
            os.killpg(service.pid, signal.SIGKILL)
        (local_desk.folder / "go").touch()
        record = local_desk.record(number)
        assert (record.name, record.state, record.exit_code) == (submission.name, "FAILED", 5)
        assert local_desk.lines(number) == ["still here"]

    def test_nobody_is_left_when_a_job_has_ended(self, local_desk: Desk) -> None:
        number = local_desk.run("setsid sleep 300 & disown; sleep 300 & disown; echo $$")
        supervisor, leader = _started(local_desk, number)
        assert local_desk.ended(number).state == "COMPLETED"
        until(lambda: not processes.is_alive(supervisor) and not processes.members(leader), "the end of all")
        assert "sleep 300" not in self._commands_in(local_desk.folder)

    @staticmethod
    def _commands_in(folder: Path) -> list[str]:
        """The command lines of the processes whose working folder this is."""
        found = []
        for one in processes.everything():
            try:
                if Path(f"/proc/{one.pid}/cwd").readlink() == folder:
                    found.append(Path(f"/proc/{one.pid}/cmdline").read_text().replace("\0", " ").strip())
            except OSError:  # it has gone, or is another's
                continue
        return found

    def test_a_killed_supervisor_is_not_taken_for_the_jobs_end(self, local_desk: Desk) -> None:
        number = local_desk.run("sleep 300")
        supervisor, leader = _started(local_desk, number)
        assert processes.send(supervisor, signal.SIGKILL)
        until(lambda: not processes.is_alive(supervisor), "the supervisor's end")
        job = local_desk.job(number)
        assert job is not None
        assert job.state == "RUNNING"
        # It still holds its slot.
        second = local_desk.run()
        waiting = local_desk.job(second)
        assert waiting is not None
        assert waiting.state == "PENDING"
        processes.send_all(processes.members(leader), signal.SIGKILL)
        lost = local_desk.in_state(number, "NODE_FAIL")
        assert (lost.exit_code, lost.exit_signal) == (None, None)
        assert lost.reason is not None
        assert local_desk.record(number) == local_desk.ended(number)
        assert local_desk.ended(second).state == "COMPLETED"

    def test_a_job_whose_supervisor_was_killed_can_be_cancelled(self, local_desk: Desk) -> None:
        number = local_desk.run("sleep 300 & wait")
        supervisor, leader = _started(local_desk, number)
        assert processes.send(supervisor, signal.SIGKILL)
        until(lambda: not processes.is_alive(supervisor), "the supervisor's end")
        local_desk.client.cancel(number)
        assert local_desk.ended(number).state == "CANCELLED"
        assert processes.members(leader) == []

    def test_a_run_of_before_a_reboot_is_over(self, local_desk: Desk) -> None:
        number = local_desk.run("sleep 300")
        supervisor, leader = _started(local_desk, number)
        one = _files(local_desk, number)
        rebooted = replace(
            one.runs[0], supervisor=replace(supervisor, boot="another"), leader=replace(leader, boot="another")
        )
        local_files.write(one.folder / "run-0.json", asdict(rebooted))
        assert local_desk.in_state(number, "NODE_FAIL").state == "NODE_FAIL"
        assert processes.send(supervisor, signal.SIGTERM)
        until(lambda: not processes.is_alive(supervisor), "the supervisor's end")


class TestEnding:
    def test_a_script_that_ignores_sigterm_is_killed_after_the_grace(self, local_desk: Desk) -> None:
        number = local_desk.run("trap '' TERM; touch trapped; while :; do sleep 0.2; done")
        until((local_desk.folder / "trapped").exists, "the trap")
        local_desk.client.cancel(number)
        dying = local_desk.job(number)
        assert dying is not None
        assert (dying.state, dying.flags) == ("RUNNING", ("COMPLETING",))
        job = local_desk.ended(number)
        assert (job.state, job.exit_signal) == ("CANCELLED", signal.SIGKILL)

    def test_a_script_may_clean_up_on_sigterm(self, local_desk: Desk) -> None:
        number = local_desk.run("trap 'echo saved; exit 0' TERM; touch trapped; sleep 300 & wait")
        until((local_desk.folder / "trapped").exists, "the trap")
        local_desk.client.cancel(number)
        assert local_desk.ended(number).state == "CANCELLED"
        assert local_desk.lines(number) == ["saved"]

    def test_a_signal_never_reaches_another_process_of_the_same_pid(self) -> None:
        with subprocess.Popen(["sleep", "300"]) as other:
            identity = processes.identify(other.pid)
            assert identity is not None
            assert not processes.send(replace(identity, start=identity.start - 1), signal.SIGKILL)
            assert not processes.is_alive(replace(identity, boot="another"))
            assert other.poll() is None
            assert processes.send(identity, signal.SIGTERM)
            assert other.wait(timeout=10) == -signal.SIGTERM
        assert not processes.send(identity, signal.SIGTERM)

    def test_a_running_job_cannot_be_held(self, local_desk: Desk) -> None:
        number = local_desk.run("sleep 300")
        local_desk.in_state(number, "RUNNING")
        with pytest.raises(SlurmRefusedError, match="running"):
            local_desk.client.hold(number)

    def test_an_output_that_cannot_be_written_ends_the_job_with_a_reason(self, local_desk: Desk) -> None:
        (local_desk.folder / "taken").mkdir()
        job = local_desk.ended(local_desk.run(output="taken"))
        assert job.state == "FAILED"
        assert job.reason is not None
        assert "taken" in job.reason


class TestKeeping:
    def test_ids_are_never_used_again_and_old_jobs_leave_the_queue(
        self, local_desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submission = local_desk.submission("exit 6")
        number = local_desk.submit(submission)
        record = local_desk.record(number)
        one = _files(local_desk, number)
        local_files.write(one.folder / "end-0.json", asdict(replace(one.ends[0], ended=one.ends[0].ended - KEEP - 1)))
        assert local_desk.job(number) is None
        assert [job.exit_code for job in local_desk.client.find(submission.name)] == [6]
        assert [job.exit_code for job in local_desk.client.finished([number])] == [record.exit_code]
        local_desk.client.cancel(number)
        assert local_desk.run() == number + 1

    def test_the_folder_is_its_owners_alone(self, local_desk: Desk) -> None:
        local_desk.client.ping()
        assert stat.S_IMODE((local_desk.folder / "home" / "local").stat().st_mode) == 0o700

    def test_what_is_stored_holds_nothing_of_the_callers_environment(
        self, local_desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SERVICE_SECRET", "never-to-be-seen")
        one = _files(local_desk, local_desk.run(hold=True))
        stored = json.loads((one.folder / "job.json").read_text())
        assert set(stored["environment"]) <= {"PATH", "HOME", "USER", "LANG"}

    def test_a_job_knows_who_it_is(self, local_desk: Desk) -> None:
        number = local_desk.run('echo "$LOCKSTEP_LOCAL_ID $LOCKSTEP_RESTART_COUNT ${SLURM_CONF:-none}"')
        local_desk.ended(number)
        assert local_desk.lines(number) == [f"{number} 0 none"]

    def test_a_lock_that_somebody_holds_is_unavailable_within_the_deadline(self, tmp_path: Path) -> None:
        with (
            local_files.locked(tmp_path),
            pytest.raises(SlurmUnavailableError, match="lock"),
            local_files.locked(tmp_path, deadline=0.1),
        ):
            pytest.fail("two holders of one lock")

    def test_a_folder_that_cannot_be_used_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SlurmUnavailableError, match="file"):
            LocalClient(tmp_path / "file" / "local").ping()
