"""What every Slurm client keeps: the same sentences over Slurm's commands and over the local queue."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clients.desk import Desk, until
from lockstep_slurm.client.protocol import SlurmError, SlurmRefusedError, SlurmUnknownJobError
from lockstep_slurm.client.values import JOB_ENDS
from lockstep_slurm.job.identity import new_job_id, slurm_name

NEVER = 4_000_000_000
"""An id that no job has."""
SOON = timedelta(minutes=5)


class TestSubmitting:
    def test_an_answered_submit_is_in_the_queue_under_its_id_and_name(self, desk: Desk) -> None:
        submission = desk.submission("sleep 60")
        number = desk.submit(submission)
        job = desk.job(number)
        assert job is not None
        assert (job.name, job.restarts) == (submission.name, 0)
        assert job.state in {"PENDING", "RUNNING"}

    def test_two_submits_of_one_script_are_two_jobs(self, desk: Desk) -> None:
        submission = desk.submission(hold=True)
        first, second = desk.submit(submission), desk.submit(submission)
        assert first != second
        assert {job.id for job in desk.client.find(submission.name)} == {first, second}

    def test_a_job_has_ended_well_with_its_times_in_order(self, desk: Desk) -> None:
        job = desk.ended(desk.run())
        assert (job.state, job.exit_code, job.exit_signal) == ("COMPLETED", 0, None)
        assert job.submitted is not None
        assert job.started is not None
        assert job.ended is not None
        # Slurm's times are whole seconds.
        assert job.submitted - timedelta(seconds=1) <= job.started <= job.ended
        assert abs(datetime.now(UTC) - job.submitted) < SOON

    def test_a_running_job_has_a_node_and_neither_end_nor_exit_code(self, desk: Desk) -> None:
        job = desk.in_state(desk.run("sleep 60"), "RUNNING")
        assert job.nodes
        assert set(job.nodes) <= {node.name for node in desk.client.nodes()}
        assert (job.ended, job.exit_code, job.exit_signal) == (None, None, None)

    def test_the_script_is_the_one_of_the_submit_even_if_the_file_changes_afterwards(self, desk: Desk) -> None:
        submission = desk.submission("echo first", hold=True)
        number = desk.submit(submission)
        submission.script.write_text("#!/bin/bash\necho second\n")
        desk.client.release(number)
        desk.ended(number)
        assert desk.lines(number) == ["first"]

    def test_arguments_reach_the_script_one_by_one_and_unread_by_any_shell(self, desk: Desk) -> None:
        arguments = ("--run", "two words", "", "$HOME `id` $(id)", "'\"", "*", "é", "-")
        number = desk.run('printf "<%s>\\n" "$@"', arguments=arguments)
        desk.ended(number)
        assert desk.lines(number) == [f"<{one}>" for one in arguments]

    def test_the_working_folder_is_the_one_asked_for(self, desk: Desk) -> None:
        number = desk.run("pwd -P")
        desk.ended(number)
        assert desk.lines(number) == [str(desk.folder.resolve())]

    def test_the_output_goes_where_asked_whatever_the_folders_name(self, desk: Desk) -> None:
        folder = desk.folder / "100% %j of it"
        folder.mkdir()
        number = desk.run("echo out; echo err >&2", output="100% %j of it/log-%j.txt")
        desk.ended(number)
        path = folder / f"log-{number}.txt"
        until(path.exists, f"the output {path}")
        assert sorted(path.read_text().splitlines()) == ["err", "out"]

    def test_output_is_added_to_what_is_there(self, desk: Desk) -> None:
        (desk.folder / "fixed.log").write_text("before\n")
        desk.ended(desk.run("echo after", output="fixed.log"))
        assert (desk.folder / "fixed.log").read_text() == "before\nafter\n"

    def test_nothing_of_the_callers_environment_leaks(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SERVICE_SECRET", "never-to-be-seen")
        monkeypatch.setenv("SBATCH_EXPORT", "ALL")
        monkeypatch.setenv("SLURM_TIME_FORMAT", "never-to-be-seen")
        monkeypatch.setenv("PYTHONPATH", "/never-to-be-seen")
        number = desk.run("env")
        assert desk.ended(number).state == "COMPLETED"
        seen = "\n".join(desk.lines(number))
        assert "never-to-be-seen" not in seen
        assert "SBATCH_EXPORT" not in seen
        assert "SLURM_TIME_FORMAT" not in seen

    def test_a_job_has_the_umask_that_its_submission_says(self, desk: Desk) -> None:
        number = desk.submit(replace(desk.submission("umask"), umask=0o027))
        assert desk.ended(number).state == "COMPLETED"
        assert desk.lines(number) == ["0027"]

    @pytest.mark.parametrize("name", ["a", "A-b_c.9", "0" * 64, "..", "-x", "x" * 27])
    def test_names_of_all_allowed_characters_and_lengths_come_back_whole(self, desk: Desk, name: str) -> None:
        tagged = slurm_name(name, new_job_id())
        number = desk.run(name=tagged, hold=True)
        assert [job.name for job in desk.client.queue() if job.id == number] == [tagged]
        assert [job.id for job in desk.client.find(tagged)] == [number]


class TestRefusing:
    def test_a_missing_working_folder_is_refused(self, desk: Desk) -> None:
        submission = replace(desk.submission(), directory=desk.folder / "nowhere")
        self._is_refused(desk, submission.name, lambda: desk.client.submit(submission), "nowhere")

    def test_a_missing_output_folder_is_refused(self, desk: Desk) -> None:
        submission = desk.submission(output="nowhere/job.log")
        self._is_refused(desk, submission.name, lambda: desk.client.submit(submission), "nowhere")

    def test_a_missing_script_is_refused(self, desk: Desk) -> None:
        submission = replace(desk.submission(), script=desk.folder / "nowhere.sbatch")
        self._is_refused(desk, submission.name, lambda: desk.client.submit(submission), "nowhere.sbatch")

    def test_a_file_that_is_no_script_is_refused(self, desk: Desk) -> None:
        submission = desk.submission()
        submission.script.write_text("echo no interpreter\n")
        self._is_refused(desk, submission.name, lambda: desk.client.submit(submission), "#!")

    def test_slurm_could_not_write_an_output_with_a_backslash(self, slurm_desk: Desk) -> None:
        submission = slurm_desk.submission(output="job\\x.log")
        self._is_refused(slurm_desk, submission.name, lambda: slurm_desk.client.submit(submission), "backslash")

    @pytest.mark.parametrize(
        ("header", "word"),
        [
            ("#SBATCH --partition=nowhere", "partition"),
            ("#SBATCH --time=soon", "time"),
            ("#SBATCH --no-such-option", "no-such-option"),
            ("#SBATCH --nodes=0", "ode"),
        ],
    )
    def test_slurm_refuses_a_bad_header_in_its_own_words(self, slurm_desk: Desk, header: str, word: str) -> None:
        submission = slurm_desk.submission(header=header)
        self._is_refused(slurm_desk, submission.name, lambda: slurm_desk.client.submit(submission), word)

    @staticmethod
    def _is_refused(desk: Desk, name: str, submit: object, word: str) -> None:
        assert callable(submit)
        with pytest.raises(SlurmRefusedError, match=word):
            submit()
        # Slurm 22.05 lists what it refused for its constraints as a job that failed without ever being pending.
        assert all(
            (job.state, job.reason, job.nodes) == ("FAILED", "BadConstraints", ()) for job in desk.client.find(name)
        )
        assert desk.is_slurm or desk.client.find(name) == []


class TestFinding:
    def test_a_name_is_found_exactly(self, desk: Desk) -> None:
        name = slurm_name("find", new_job_id())
        number = desk.run(name=name, hold=True)
        desk.run(name=f"{name}x", hold=True)
        desk.run(name=name.upper(), hold=True)
        assert [job.id for job in desk.client.find(name)] == [number]

    def test_several_names_are_found_in_one_look_and_no_others(self, desk: Desk) -> None:
        names = [slurm_name(f"find-{number}", new_job_id()) for number in range(4)]
        numbers = [desk.run(name=name, hold=True) for name in names]
        twice = desk.run(name=names[1], hold=True)
        # One that runs and one that has ended: from the queue, or from a record.
        desk.ended(desk.run(name=(ended := slurm_name("find-ended", new_job_id()))))
        found = desk.client.find(names[0], names[1], ended, slurm_name("nobody", new_job_id()))
        assert sorted(job.name for job in found) == sorted([names[0], names[1], names[1], ended])
        assert {job.id for job in found} >= {numbers[0], numbers[1], twice}
        assert desk.client.find() == []

    def test_a_name_that_no_job_has_is_not_found(self, desk: Desk) -> None:
        assert desk.client.find(slurm_name("nobody", new_job_id())) == []

    def test_an_ended_job_is_still_found(self, desk: Desk) -> None:
        submission = desk.submission("exit 4")
        number = desk.submit(submission)
        desk.ended(number)
        assert [(job.id, job.state, job.exit_code) for job in desk.client.find(submission.name)] == [
            (number, "FAILED", 4)
        ]

    def test_another_client_of_the_same_place_sees_the_same(self, desk: Desk) -> None:
        number = desk.run(hold=True)
        other = type(desk.client)(desk.slurm_conf or desk.folder / "home" / "local")  # type: ignore[call-arg]
        assert desk.job(number) in other.queue()


class TestHolding:
    def test_a_held_job_starts_only_when_it_is_released(self, desk: Desk) -> None:
        held = desk.run(hold=True)
        desk.ended(desk.run())
        job = desk.job(held)
        assert job is not None
        assert job.state == "PENDING"
        assert job.reason is not None
        assert "Held" in job.reason
        desk.client.release(held)
        assert desk.ended(held).state == "COMPLETED"

    def test_a_pending_job_can_be_held_and_released(self, desk: Desk) -> None:
        # Pending for a reason of its own: in Slurm for its time has not come, here for the only slot is taken.
        taken = desk.run("sleep 300")
        desk.in_state(taken, "RUNNING")
        number = desk.run(header="#SBATCH --begin=now+1hour")
        assert self._reason(desk, number) in {"BeginTime", "Resources", "Priority", None}
        desk.client.hold(number)
        assert "Held" in (self._reason(desk, number) or "")
        desk.client.release(number)
        assert "Held" not in (self._reason(desk, number) or "")

    @staticmethod
    def _reason(desk: Desk, number: int) -> str | None:
        job = desk.job(number)
        assert job is not None
        assert job.state == "PENDING"
        return job.reason

    @pytest.mark.parametrize("verb", ["cancel", "hold", "release", "requeue"])
    def test_a_job_that_nobody_knows_is_unknown(self, desk: Desk, verb: str) -> None:
        with pytest.raises(SlurmUnknownJobError):
            getattr(desk.client, verb)(NEVER)

    def test_an_ended_job_cannot_be_held(self, desk: Desk) -> None:
        number = desk.run()
        desk.ended(number)
        with pytest.raises(SlurmRefusedError):
            desk.client.hold(number)


class TestCancelling:
    def test_a_pending_job_never_starts(self, desk: Desk) -> None:
        number = desk.run("touch started", hold=True)
        desk.client.cancel(number)
        job = desk.ended(number)
        assert job.state == "CANCELLED"
        assert job.ended is not None
        assert not (desk.folder / "started").exists()
        assert desk.record(number).state == "CANCELLED"

    def test_a_running_job_and_its_children_end(self, desk: Desk) -> None:
        number = desk.run("sleep 300 & echo $$ $! > pids.new; mv pids.new pids; wait")
        until((desk.folder / "pids").exists, "the job's start")
        pids = [int(pid) for pid in (desk.folder / "pids").read_text().split()]
        assert all(_is_running(pid) for pid in pids)
        desk.client.cancel(number)
        assert desk.ended(number).state == "CANCELLED"
        until(lambda: not any(_is_running(pid) for pid in pids), "the end of all its processes")
        assert desk.record(number).state == "CANCELLED"

    def test_an_ended_job_is_left_as_it_is(self, desk: Desk) -> None:
        number = desk.run()
        before = desk.ended(number)
        desk.client.cancel(number)
        assert desk.job(number) == before

    def test_a_job_can_be_cancelled_twice(self, desk: Desk) -> None:
        number = desk.run("sleep 300")
        desk.in_state(number, "RUNNING")
        desk.client.cancel(number)
        desk.client.cancel(number)
        assert desk.ended(number).state == "CANCELLED"


class TestRequeueing:
    def test_a_requeued_job_keeps_its_id_and_counts_a_restart(self, desk: Desk) -> None:
        body = 'echo "restart ${SLURM_RESTART_COUNT:-${LOCKSTEP_RESTART_COUNT:-0}} $1"; [ -e second ] || sleep 300'
        submission = desk.submission(body, arguments=("same",), header="#SBATCH --requeue")
        number = desk.submit(submission)
        desk.in_state(number, "RUNNING")
        until(lambda: desk.lines(number) or None, "the first run's output")
        (desk.folder / "second").touch()
        desk.client.requeue(number)
        job = until(
            lambda: next((job for job in desk.client.queue() if job.id == number and job.restarts == 1), None),
            "a restart",
        )
        assert job.name == submission.name
        assert (job.exit_code, job.ended) == (None, None) or job.state in JOB_ENDS
        if desk.is_slurm:
            # Slurm waits two minutes before it starts a requeued job; one that is started by force in the very second
            # of its requeue is FAILED, "Job credential revoked" (22.05: credentials know whole seconds).
            desk.in_state(number, "PENDING")
            second = int(time.time())
            until(lambda: time.time() >= second + 2, "another second")
            desk.scontrol("update", f"jobid={number}", "StartTime=now")
        ended = desk.ended(number)
        assert (ended.state, ended.restarts) == ("COMPLETED", 1), (ended, desk.lines(number))
        # slurmstepd adds a line of its own in between.
        assert [line for line in desk.lines(number) if line.startswith("restart")] == [
            "restart 0 same",
            "restart 1 same",
        ]
        assert desk.record(number).restarts == 1
        runs = desk.client.finished([number])
        assert [run.restarts for run in runs] == [0, 1]
        assert runs[0].state not in JOB_ENDS

    def test_a_job_that_has_not_started_cannot_be_requeued(self, desk: Desk) -> None:
        number = desk.run(hold=True)
        with pytest.raises(SlurmRefusedError):
            desk.client.requeue(number)
        assert desk.job(number) is not None


class TestRecords:
    @pytest.mark.parametrize(
        ("body", "state", "code", "number"),
        [
            ("true", "COMPLETED", 0, None),
            ("exit 7", "FAILED", 7, None),
            ("exit 255", "FAILED", 255, None),
            ("kill -KILL $$", "FAILED", None, 9),
        ],
    )
    def test_a_record_has_the_state_and_how_the_script_ended(
        self, desk: Desk, body: str, state: str, code: int | None, number: int | None
    ) -> None:
        submission = desk.submission(body)
        job_id = desk.submit(submission)
        in_queue = desk.ended(job_id)
        record = desk.record(job_id)
        for one in (in_queue, record):
            assert (one.id, one.name, one.state) == (job_id, submission.name, state)
            assert (one.exit_code, one.exit_signal) == (code, number)
        assert record.ended is not None
        assert record.started is not None
        assert record.nodes == in_queue.nodes
        assert record.submitted == in_queue.submitted

    def test_jobs_without_a_record_are_left_out(self, desk: Desk) -> None:
        pending = desk.run(hold=True)
        done = desk.run()
        desk.record(done)
        assert [job.id for job in desk.client.finished([pending, done, NEVER])] == [done]
        assert desk.client.finished([]) == []


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_every_error_of_a_client_is_a_slurm_error() -> None:
    assert issubclass(SlurmRefusedError, SlurmError)
    assert issubclass(SlurmUnknownJobError, SlurmError)
