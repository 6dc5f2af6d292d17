"""What Slurm refuses: what it makes wait, for how long, and what it lets pass."""

from __future__ import annotations

from lockstep_service.boundary import Application
from lockstep_service.dispatch.brakes import Brakes
from lockstep_service.dispatch.restored import doubt_submits
from lockstep_service.dispatch.submit import submit_due, take_turn
from lockstep_service.jobs import repository
from lockstep_slurm.client.protocol import SlurmRefusedError, Submission
from lockstep_slurm.job.identity import slurm_name

from .conftest import Queue, Store, rows, turns_until

OWN_LIMIT = "sbatch: error: QOSMaxSubmitJobPerUserLimit; sbatch: error: Job violates accounting/QOS policy"


class TestRefusals:
    def test_a_limit_on_ones_own_jobs_is_waited_out_and_asked_about_by_one_job(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        def meets(_submission: Submission) -> None:
            if sum(job.state == "PENDING" for job in slurm.ours()) >= 3:
                raise SlurmRefusedError(OWN_LIMIT)

        slurm.meets = meets
        ids = store(10)
        submit_due(app)
        assert len(slurm.submits) == 4
        waiting = [row for row in rows(app, ids) if row.phase == "accepted"]
        assert len(waiting) == 7
        assert {row.submit_started_at for row in waiting} == {None}
        left = [row.id for row in waiting]
        turns_until(app, lambda: all(row.reason is not None for row in rows(app, left)))
        assert all("QOSMaxSubmitJobPerUserLimit" in str(row.reason) for row in rows(app, left))

        def all_taken() -> bool:
            pending = [job for job in slurm.ours() if job.state == "PENDING"]
            if len(pending) == 3:
                slurm.cancel(pending[0].id)
            return all(row.phase == "waiting" for row in rows(app, ids))

        turns_until(app, all_taken)
        assert len({row.slurm_job_id for row in rows(app, ids)}) == 10

    def test_lost_jobs_that_such_a_limit_holds_are_looked_for_no_more_often_than_one_may_try(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        app.settings = app.settings.model_copy(
            update={"submit_retry_seconds": 60.0, "submit_retry_limit_seconds": 60.0}
        )
        limited = [True]

        def meets(_submission: Submission) -> None:
            if limited[0]:
                raise SlurmRefusedError(OWN_LIMIT)

        slurm.meets = meets
        ids = store(16)
        assert doubt_submits(app) == ids
        take_turn(app)
        assert len(slurm.submits) == 1
        assert min(take_turn(app)[1] for _ in range(4)) > 0
        assert slurm.finds == [16, 15]
        assert len(slurm.submits) == 1
        assert all(row.submit_started_at is not None for row in rows(app, ids))
        # The limit has passed, and with it the brake.
        with app.database.writing() as session:
            for row in repository.lock_all(session, ids).values():
                row.submit_after = None
        app.outbox.brakes, limited[0] = Brakes(), False
        turns_until(app, lambda: all(row.phase == "waiting" for row in rows(app, ids)))
        assert sorted(job.id for job in slurm.ours()) == sorted(int(row.slurm_job_id or 0) for row in rows(app, ids))

    def test_jobs_of_another_partition_do_not_wait_for_that_limit(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        limited = store(3)
        names = {slurm_name("digits", one) for one in limited}

        def meets(submission: Submission) -> None:
            if submission.name in names:
                raise SlurmRefusedError(OWN_LIMIT)

        slurm.meets = meets
        free = store(3, resources={"partition": "local"})
        assert submit_due(app) == 3
        assert {row.phase for row in rows(app, free)} == {"waiting"}
        assert {row.phase for row in rows(app, limited)} == {"accepted"}
        assert sum(name in names for name in slurm.submits) == 1

    def test_a_full_queue_holds_up_everything_and_one_job_tries(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        full = [True]

        def meets(_submission: Submission) -> None:
            if full[0]:
                raise SlurmRefusedError("sbatch: Slurm temporarily unable to accept job, sleeping and retrying")

        slurm.meets = meets
        ids = store(4) + store(2, resources={"partition": "local"})
        submit_due(app)
        assert len(slurm.submits) == 1
        turns_until(app, lambda: len(slurm.submits) >= 3)  # a turn that takes long tries more than once
        assert {row.phase for row in rows(app, ids)} == {"accepted"}
        full[0], tried = False, len(slurm.submits)
        turns_until(app, lambda: all(row.phase == "waiting" for row in rows(app, ids)))
        assert len(slurm.submits) == tried + 6

    def test_what_cannot_be_told_apart_waits_so_long_and_no_longer(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        (job,) = store(1)

        def meets(_submission: Submission) -> None:
            raise SlurmRefusedError("sbatch: Job violates accounting/QOS policy (job submit limit, ...)")

        slurm.meets = meets
        submit_due(app)
        (row,) = rows(app, [job])
        assert row.phase == "accepted"
        assert row.refused_since is not None
        turns_until(app, lambda: len(slurm.submits) >= 3)
        assert rows(app, [job])[0].refused_since == row.refused_since
        assert rows(app, [job])[0].phase == "accepted"
        app.settings = app.settings.model_copy(update={"refused_limit_seconds": 0.01})
        turns_until(app, lambda: rows(app, [job])[0].phase == "ended badly")
        reason = str(rows(app, [job])[0].reason)
        assert "Slurm refused it ever since" in reason
        assert "accounting/QOS policy" in reason
        assert slurm.ours() == []

    def test_one_that_is_never_taken_lets_those_behind_it_pass(
        self, app: Application, slurm: Queue, store: Store
    ) -> None:
        odd, *others = store(6)

        def meets(submission: Submission) -> None:
            if submission.name == slurm_name("digits", odd):
                raise SlurmRefusedError("sbatch: Job violates accounting/QOS policy (job submit limit, ...)")

        slurm.meets = meets
        turns_until(app, lambda: all(row.phase == "waiting" for row in rows(app, others)))
        assert rows(app, [odd])[0].phase == "accepted"
