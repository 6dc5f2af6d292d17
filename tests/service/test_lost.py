"""The next step for a job of which a submit's answer was lost: pure, every state with every kind of copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from lockstep_service.dispatch.lost import (
    Adopt,
    Hold,
    LookAgain,
    Lost,
    Release,
    SubmitHeld,
    Unread,
    Wait,
    Withdraw,
    is_held,
    next_step,
)
from lockstep_slurm.client.protocol import SlurmJob

NOW = datetime(2026, 11, 25, 18, tzinfo=UTC)
PAUSE = timedelta(seconds=20)
FIRST = Lost(held=False, slurm_job_id=None, lost_since=None, cancelled=False)
SECOND = Lost(held=True, slurm_job_id=None, lost_since=None, cancelled=False)
HELD = Lost(held=True, slurm_job_id=7, lost_since=None, cancelled=False)


def copy(number: int, state: str = "PENDING", reason: str | None = "Priority", *nodes: str) -> SlurmJob:
    return SlurmJob(number, "x", state, reason=reason, nodes=nodes)


def held(number: int) -> SlurmJob:
    return copy(number, "PENDING", "JobHeldUser")


def step(job: Lost, *copies: SlurmJob, started_as: int | Unread | None = None) -> object:
    return next_step(job, copies, started_as, NOW, PAUSE)


def changed(job: Lost, **changes: object) -> Lost:
    return replace(job, **changes)  # type: ignore[arg-type]


class TestOneSubmit:
    def test_its_copy_is_the_job(self) -> None:
        assert step(FIRST, copy(3)) == Adopt(3)
        assert step(FIRST, copy(3, "COMPLETED", None, "node1")) == Adopt(3)

    def test_no_copy_means_a_second_one_and_that_one_held(self) -> None:
        assert step(FIRST) == SubmitHeld()

    def test_a_copy_that_its_owner_holds_is_the_job(self) -> None:
        assert step(FIRST, held(3)) == Adopt(3)

    def test_of_two_copies_the_first_stays(self) -> None:
        assert step(FIRST, copy(5), copy(3)) == Adopt(3, (5,))

    def test_of_two_copies_the_one_that_trains_stays(self) -> None:
        assert step(FIRST, copy(3), copy(5, "RUNNING", None, "node1"), started_as=5) == Adopt(5, (3,))

    def test_cancelled_it_is_withdrawn_unless_it_is_there(self) -> None:
        assert step(changed(FIRST, cancelled=True)) == Withdraw()
        assert step(changed(FIRST, cancelled=True), copy(3)) == Adopt(3)

    def test_one_that_slurm_has_forgotten_and_whose_start_left_a_claim_is_the_job(self) -> None:
        assert step(FIRST, started_as=3) == Adopt(3)


class TestAStartThatCannotBeRead:
    WHY = Unread("claims/000001.json is not JSON")

    def test_nothing_is_decided_while_it_matters(self) -> None:
        due = changed(HELD, lost_since=NOW - PAUSE)
        for job in (FIRST, SECOND, HELD, due, changed(FIRST, cancelled=True), changed(HELD, cancelled=True)):
            assert step(job, started_as=self.WHY) == Wait(self.WHY.why), job
        for copies in ((copy(3), copy(5)), (copy(3), copy(5, "RUNNING", None, "node1"))):
            assert step(FIRST, *copies, started_as=self.WHY) == Wait(self.WHY.why)
        assert step(due, held(7), started_as=self.WHY) == Wait(self.WHY.why)

    def test_the_only_copy_is_the_job_whatever_was_started(self) -> None:
        assert step(FIRST, copy(3), started_as=self.WHY) == Adopt(3)
        assert step(HELD, held(7), copy(3), started_as=self.WHY) == Adopt(3, (7,))


class TestASecondSubmitHeld:
    def test_its_copy_is_kept_held(self) -> None:
        assert step(SECOND, held(7)) == Hold(7)

    def test_the_first_copy_beats_it_and_it_goes(self) -> None:
        assert step(SECOND, held(7), copy(3)) == Adopt(3, (7,))
        assert step(HELD, held(7), copy(3, "RUNNING", None, "node1")) == Adopt(3, (7,))
        assert step(HELD, copy(9)) == Adopt(9, (7,))

    def test_none_of_both_is_another_try(self) -> None:
        assert step(SECOND) == SubmitHeld()

    def test_it_is_released_only_after_a_second_look(self) -> None:
        assert step(HELD, held(7)) == LookAgain(NOW)
        early = changed(HELD, lost_since=NOW - PAUSE + timedelta(milliseconds=1))
        assert step(early, held(7)) == LookAgain(NOW - PAUSE + timedelta(milliseconds=1))
        assert step(changed(HELD, lost_since=NOW - PAUSE), held(7)) == Release(7)

    def test_further_held_copies_go_when_it_is_released(self) -> None:
        assert step(changed(HELD, lost_since=NOW - PAUSE), held(7), held(8)) == Release(7, (8,))

    def test_cancelled_all_held_copies_go(self) -> None:
        assert step(changed(HELD, cancelled=True), held(7), held(8)) == Withdraw((7, 8))

    def test_released_before_a_kill_it_is_released_again_and_not_taken_for_a_first_copy(self) -> None:
        assert step(changed(HELD, lost_since=NOW - PAUSE), copy(7, "RUNNING", None, "n"), started_as=7) == Release(7)

    def test_a_held_copy_that_was_cancelled_before_a_kill_is_not_the_job_beside_the_first(self) -> None:
        assert step(SECOND, copy(7, "CANCELLED", None), copy(9)) == Adopt(9, (7,))
        assert step(SECOND, copy(7, "CANCELLED", None)) == Adopt(7)


@pytest.mark.parametrize(("job", "cancelled"), list(product([FIRST, SECOND, HELD], [True, False])))
def test_a_copy_that_nothing_of_ours_holds_is_always_the_job(job: Lost, cancelled: bool) -> None:
    """Over all mixtures of up to three copies."""
    kinds: list[Callable[[int], SlurmJob]] = [
        held,
        copy,
        lambda number: copy(number, "RUNNING", None, "n"),
        lambda number: copy(number, "FAILED", "x"),
    ]
    for count in range(4):
        for made in product(kinds, repeat=count):
            copies = [make(number) for number, make in zip((7, 3, 9), made, strict=False)]
            found = step(changed(job, cancelled=cancelled), *copies)
            stays = getattr(found, "slurm_job_id", None)
            goes = set(getattr(found, "spare", ()))
            assert stays not in goes
            free = {one.id for one in copies if not (job.held and (is_held(one) or one.id == job.slurm_job_id))}
            if free:
                # Something is there that nothing of ours holds: it is the job, and no further submit is made.
                assert isinstance(found, Adopt)
                assert stays in free
            else:
                assert not goes & {one.id for one in copies if not is_held(one) and one.id != job.slurm_job_id}
