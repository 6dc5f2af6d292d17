"""From what Slurm and the run's files say to a job's row: absence is not death, and nothing ends without evidence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from lockstep_service.dispatch.observe import RunFiles, apply_absence, apply_slurm, read_files
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob
from support.placements import RunOnNodes, machine

from .conftest import HandMadeRun


def made_row(**more: Any) -> JobRow:
    found = JobRow(
        id="0" * 36, name="digits", slurm_job_id=7, phase="running", state="RUNNING", by_hand=False, attempts=[]
    )
    for key, value in more.items():
        setattr(found, key, value)
    return found


class TestObserve:
    GRACE = timedelta(seconds=5)

    def test_absence_without_evidence_is_unknown_after_a_while_and_never_failed(self) -> None:
        found, when = made_row(), now()
        apply_absence(found, RunFiles(), when, self.GRACE)
        assert found.phase == "running"
        apply_absence(found, RunFiles(), when + self.GRACE, self.GRACE)
        assert (found.phase, found.state) == ("unknown", "RUNNING")
        apply_absence(found, RunFiles(), when + timedelta(days=100), self.GRACE)
        assert found.phase == "unknown"

    def test_slurm_speaking_again_makes_it_known(self) -> None:
        found, when = made_row(phase="unknown", missing_since=now()), now()
        apply_slurm(found, SlurmJob(7, "n", "RUNNING"), RunFiles(), when, self.GRACE)
        assert (found.phase, found.missing_since, found.reason) == ("running", None, None)

    def test_the_exit_record_is_a_witness(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim(slurm_job_id=7)
        hand.end(code=None, signal=9)
        found = made_row()
        apply_absence(found, read_files(hand.run), now(), self.GRACE)
        assert found.phase == "ended badly"
        assert "signal 9" in str(found.reason)
        assert (found.attempts[0].exit_signal, found.attempts[0].exit_code) == (9, None)

    def test_a_wrapper_that_lives_may_still_put_records_away(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim()
        hand.end(gone=False)
        found = made_row(by_hand=True, slurm_job_id=None, ended_seen_at=now())
        apply_absence(found, read_files(hand.run), now(), self.GRACE)
        assert (found.phase, found.reason, found.ended_seen_at) == ("running", "It is ending", None)
        hand.claim(pid=2**22 + 1)
        apply_absence(found, read_files(hand.run), now(), self.GRACE)
        assert found.phase == "ended well"
        assert found.ended_seen_at is not None

    def test_the_grace_is_counted_from_the_end_and_not_from_before(self) -> None:
        found, when = made_row(ended_seen_at=now() - timedelta(hours=1)), now()
        apply_slurm(found, SlurmJob(7, "n", "RUNNING"), RunFiles(), when, self.GRACE)
        apply_slurm(found, SlurmJob(7, "n", "COMPLETED"), RunFiles(), when, self.GRACE)
        assert found.phase == "running"

    def test_an_exit_record_of_before_a_requeue_ends_nothing(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim(slurm_job_id=7, restart=0)
        hand.end(code=1)
        found, when = made_row(), now()
        apply_slurm(found, SlurmJob(7, "n", "COMPLETED", restarts=1), read_files(hand.run), when, self.GRACE)
        assert found.phase == "running"
        hand.claim(2, slurm_job_id=7, restart=1)
        hand.end(2, code=0)
        apply_slurm(found, SlurmJob(7, "n", "COMPLETED", restarts=1), read_files(hand.run), when, self.GRACE)
        assert found.phase == "ended well"
        assert [(one.number, one.exit_code) for one in found.attempts] == [(1, 1), (2, 0)]

    def test_completed_without_an_exit_record_is_a_failure_after_its_grace(self) -> None:
        found, when = made_row(), now()
        job = SlurmJob(7, "n", "COMPLETED", exit_code=0)
        apply_slurm(found, job, RunFiles(), when, self.GRACE)
        assert found.phase == "running"
        apply_slurm(found, job, RunFiles(), when + self.GRACE, self.GRACE)
        assert found.phase == "ended badly"
        assert "exit record" in str(found.reason)

    def test_slurms_words_are_kept(self) -> None:
        found = made_row()
        apply_slurm(found, SlurmJob(7, "n", "NEVER_SEEN", flags=("ODD",), nodes=("n1",)), RunFiles(), now(), self.GRACE)
        assert (found.state, found.flags, found.slurm_nodes, found.phase) == ("NEVER_SEEN", ["ODD"], ["n1"], "unknown")

    def test_a_script_that_came_to_no_rank_tells_why(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        (hand.run / "exit" / "start-7-0.txt").write_text("environment.modules: \x1b[31mno such module\x1b[0m\n")
        found = made_row()
        apply_slurm(found, SlurmJob(7, "n", "FAILED"), read_files(hand.run), now(), self.GRACE)
        assert (found.phase, found.reason) == (
            "ended badly", "No rank was started. environment.modules: no such module"
        )  # fmt: skip

    def test_its_words_are_of_that_start_alone(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        (hand.run / "exit" / "start-7-0.txt").write_text("no such module")
        for job in (SlurmJob(7, "n", "FAILED", restarts=1), SlurmJob(8, "n", "FAILED"), SlurmJob(7, "n", "TIMEOUT")):
            found = made_row()
            apply_slurm(found, job, read_files(hand.run), now(), self.GRACE)
            assert found.phase == "ended badly"
            assert "no such module" not in str(found.reason)

    def test_they_are_evidence_when_slurm_has_forgotten_it(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        (hand.run / "exit" / "start-7-1.txt").write_text("no such module")
        hand.claim(slurm_job_id=7, restart=0)
        hand.end(code=None, signal=9)
        found, when = made_row(), now()
        apply_absence(found, read_files(hand.run), when, self.GRACE)
        assert found.phase == "running", "it may have been put back into the queue since"
        apply_absence(found, read_files(hand.run), when + self.GRACE, self.GRACE)
        assert (found.phase, found.reason) == ("ended badly", "No rank was started. no such module")
        hand.claim(2, slurm_job_id=7, restart=2, pid=2**22 + 1)
        found = made_row()
        apply_absence(found, read_files(hand.run), now(), self.GRACE)
        assert found.phase == "running"

    def test_what_a_job_puts_in_their_place_is_not_read(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        folder = hand.run / "exit"
        (folder / "start-7-0.txt").symlink_to("/etc/passwd")
        (folder / "start-7-1.txt").mkdir()
        (folder / "start-7-2.txt.partial").write_text("x")
        (folder / "start-x-1.txt").write_text("x")
        (folder / "start-7-3.txt").write_bytes(b"\xff\0" * 100_000)
        (start,) = read_files(hand.run).starts
        assert len(start.message) <= 2000
        assert start.message.isprintable()

    def test_they_are_newer_than_the_attempts_before_them(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim(slurm_job_id=7, restart=0)
        hand.end(code=1)
        (hand.run / "exit" / "start-7-1.txt").write_text("no such module")
        found = made_row()
        # As a job-completion record tells it, which knows of no restarts.
        apply_slurm(found, SlurmJob(7, "n", "FAILED"), read_files(hand.run), now(), self.GRACE)
        assert found.reason == "No rank was started. no such module"


class TestAnAttemptWithoutAnExitRecord:
    """As of a node that failed: nobody is left to write one, and it has ended all the same."""

    GRACE = timedelta(seconds=5)

    def test_it_is_over_when_the_next_is_claimed(self, tmp_path: Path) -> None:
        run, found = RunOnNodes(tmp_path / "runs", machine()), made_row(by_hand=True, slurm_job_id=None)
        run.begin(lost=True)
        apply_absence(found, read_files(run.run), now(), self.GRACE)
        first, second = found.attempts
        assert first.ended_at == second.started_at
        assert (first.exit_code, first.exit_signal, second.ended_at) == (None, None, None)
        run.begin(lost=True)
        run.end()
        apply_absence(found, read_files(run.run), now(), self.GRACE)
        assert found.phase == "ended well"
        assert [one.exit_code for one in found.attempts] == [None, None, 0]
        assert all(one.ended_at is not None for one in found.attempts)
        assert first.ended_at == second.started_at, "what was known of it is kept"

    def test_it_is_over_when_slurm_has_put_the_job_back(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand, found = made_by_hand(), made_row()
        hand.claim(slurm_job_id=7)
        apply_slurm(found, SlurmJob(7, "n", "RUNNING"), read_files(hand.run), now(), self.GRACE)
        assert [one.ended_at for one in found.attempts] == [None]
        back, when = SlurmJob(7, "n", "PENDING", restarts=1), now() + timedelta(hours=3)
        apply_slurm(found, back, read_files(hand.run), when, self.GRACE)
        assert (found.phase, found.attempts[0].ended_at) == ("waiting", when)
        hand.end(code=None, signal=15)
        apply_slurm(found, back, read_files(hand.run), when, self.GRACE)
        (attempt,) = found.attempts
        assert attempt.ended_at is not None
        assert attempt.ended_at < when, "an exit record that comes late knows better"
        assert attempt.exit_signal == 15

    def test_it_ended_when_its_ranks_were_heard_of_last(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand, found = made_by_hand(), made_row()
        hand.claim(slurm_job_id=7)
        found.heard_at = heard = now()
        apply_slurm(
            found,
            SlurmJob(7, "n", "PENDING", restarts=1),
            read_files(hand.run),
            now() + timedelta(hours=3),
            self.GRACE,
        )
        assert found.attempts[0].ended_at == heard

    def test_what_was_heard_of_a_later_attempt_says_nothing_of_it(
        self, made_by_hand: Callable[[], HandMadeRun]
    ) -> None:
        hand, found = made_by_hand(), made_row()
        hand.claim(slurm_job_id=7)
        hand.claim(2, slurm_job_id=7, restart=1)
        found.heard_at = now()
        apply_slurm(found, SlurmJob(7, "n", "RUNNING", restarts=1), read_files(hand.run), now(), self.GRACE)
        first, second = found.attempts
        assert (first.ended_at, second.ended_at) == (second.started_at, None)

    def test_it_is_over_when_a_later_start_came_to_no_rank(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand, found, when = made_by_hand(), made_row(), now()
        hand.claim(slurm_job_id=7, pid=2**22 + 1)
        (hand.run / "exit" / "start-7-1.txt").write_text("no such module")
        for late in (when, when + self.GRACE):
            apply_absence(found, read_files(hand.run), late, self.GRACE)
        assert found.phase == "ended badly"
        assert found.attempts[0].ended_at == when + self.GRACE
