"""The outbox: each stored job is handed to Slurm, exactly once as far as anyone can tell.

A submit whose answer was lost may have happened, or may still happen. So an intent is stored before each call; while
one is outstanding the job is looked for by its name, and only submitted again held. The held copy is released after
two look-ups, ``lookup_seconds`` apart, found no other; if they did find one, the held copy is cancelled. A job that is
cancelled, or whose held copy Slurm refuses, while an answer is lost is looked for as long and once more before it ends:
what turns up until then is the job.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

from lockstep_service.auth.service import new_token, token_hash
from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.jobs import repository
from lockstep_service.jobs.phase import ENDED
from lockstep_service.jobs.service import BEFORE_SUBMIT
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmJob,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
    Submission,
)
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.identity import slurm_name
from lockstep_slurm.job.rundir import check_run_directory, make_run_directory, write_whole

_log = logging.getLogger(__name__)


def submit_due(app: Application) -> int:
    """Takes every job whose turn it is one step further; returns how many Slurm took."""
    with app.database.reading() as session:
        due = repository.to_submit(session, app.client.kind, now())
    return sum(_Outgoing(app, job_id).step() for job_id in due)


def _is_held(job: SlurmJob) -> bool:
    return job.state == "PENDING" and job.reason == "JobHeldUser"


class _RefusedSubmitError(SlurmError):
    """Slurm's no to a submit, and not to a look-up, a release or a cancel, which is no word about the job's end."""


class _Outgoing:
    """One job on its way to Slurm; each method is one step, after which the database knows where it stands."""

    def __init__(self, app: Application, job_id: str) -> None:
        self._app = app
        self._id = job_id

    def step(self) -> bool:
        """One step; whether the job is in Slurm's hands after it."""
        row = self._row()
        name = slurm_name(row.name, row.id)
        try:
            if row.submit_started_at is None:
                return self._submit(row, name, hold=False)
            return self._look_again(row, name)
        except SlurmUnavailableError as error:
            self._later(f"Slurm does not answer ({error}); it is tried again")
        except _RefusedSubmitError as error:
            self._refused(row, error)
        except (LockstepError, OSError, *UNSTORABLE) as error:
            self._later(f"It cannot be submitted yet: {error}")
        return False

    def _look_again(self, row: JobRow, name: str) -> bool:
        """A submit's answer was lost: what follows from the copies that Slurm has."""
        others = [job for job in self._app.client.find(name) if not row.held or job.id != row.slurm_job_id]
        held = [job for job in others if row.held and _is_held(job)]
        if free := [job for job in others if job not in held]:
            return self._adopt(row, free, held)
        if held and row.slurm_job_id is None:
            # Of a held submit the answer was lost as well; a first copy, which nothing holds, may still come.
            return self._holding(held[0].id)
        if row.cancel_requested_at is not None:
            return self._withdraw(row)
        if row.slurm_job_id is None:
            return self._submit(row, name, hold=True)
        return self._release(row, row.slurm_job_id, held)

    def _submit(self, row: JobRow, name: str, *, hold: bool) -> bool:
        """Stores the intent, then submits."""
        run = self._run_directory(row)
        token = self._report(run, row)
        with self._app.database.writing() as session:
            kept = _locked(repository.lock(session, row.id))
            if kept.phase in ENDED:
                return False  # cancelled in this moment
            kept.submit_started_at, kept.held = now(), hold
            kept.submit_tries += 1
            kept.token_hash = token_hash(token) if token is not None else kept.token_hash
            repository.changed(session, kept)
        submission = Submission(
            script=run / "job.sbatch",
            name=name,
            output=run / "logs" / "job-%j.log",
            directory=run,
            arguments=(str(run),),
            hold=hold,
        )
        try:
            slurm_id = self._app.client.submit(submission)
        except SlurmRefusedError as error:
            raise _RefusedSubmitError(str(error)) from None
        if not hold:
            return self._dispatched(slurm_id)
        return self._holding(slurm_id)

    def _holding(self, slurm_id: int) -> bool:
        """Slurm has a held copy: from here on the two look-ups count."""
        with self._app.database.writing() as session:
            kept = _locked(repository.lock(session, self._id))
            kept.slurm_job_id, kept.lost_since, kept.submit_after = slurm_id, None, None
            kept.reason = "A submit's answer was lost; a second copy is held until it is certain that there is no first"
            repository.changed(session, kept)
        return False

    def _adopt(self, row: JobRow, found: list[SlurmJob], held: list[SlurmJob]) -> bool:
        """The lost submit did happen: its copy is the job, and all others go, the held ones first."""
        first, *more = sorted(found, key=lambda job: job.id)
        spare = {row.slurm_job_id} if row.held and row.slurm_job_id is not None else set()
        for copy in sorted(spare | {job.id for job in held}):
            self._cancel(copy)
        for job in more:
            self._cancel(job.id)
        return self._dispatched(first.id)

    def _release(self, row: JobRow, slurm_id: int, spare: list[SlurmJob]) -> bool:
        """No other copy was found: noted the first time, released the second time, long enough after.

        ``spare``: further copies that are held, which go.
        """
        pause = self._pause()
        if row.lost_since is not None and now() - row.lost_since >= pause:
            for job in spare:
                self._cancel(job.id)
            if self._let_go(row, slurm_id):
                return self._dispatched(slurm_id)
            return False
        with self._app.database.writing() as session:
            kept = _locked(repository.lock(session, row.id))
            kept.lost_since = kept.lost_since or now()
            kept.submit_after = kept.lost_since + pause
        return False

    def _pause(self) -> timedelta:
        """Between two look-ups; a queue of our own on this machine hides nothing."""
        return timedelta(seconds=0 if self._app.client.kind == "local" else self._app.settings.lookup_seconds)

    def _quiet_long_enough(self, reason: str) -> bool:
        """Whether no copy was found for twice the time between look-ups; if not, the next look-up is set."""
        with self._app.database.writing() as session:
            kept = _locked(repository.lock(session, self._id))
            moment = now()
            kept.lost_since = kept.lost_since or moment
            if moment - kept.lost_since >= 2 * self._pause():
                return True
            kept.submit_after, kept.reason = moment + self._pause(), reason
            repository.changed(session, kept)
        return False

    def _let_go(self, row: JobRow, slurm_id: int) -> bool:
        """Releases the held copy; whether Slurm has it as the job's now."""
        try:
            self._app.client.release(slurm_id)
        except SlurmRefusedError:
            # Released already, before this process was started again: then it is not pending any more.
            copies = self._app.client.find(slurm_name(row.name, row.id))
            if all(copy.state == "PENDING" for copy in copies if copy.id == slurm_id):
                raise
        except SlurmUnknownJobError:
            with self._app.database.writing() as session:
                kept = _locked(repository.lock(session, row.id))
                kept.slurm_job_id, kept.lost_since = None, None
            return False
        return True

    def _withdraw(self, row: JobRow) -> bool:
        """Cancelled while it was not known whether Slurm has it: the held copy goes, the job when no other turned up.

        One that does turn up within that while is adopted, and cancelled as any job in Slurm's hands.
        """
        if row.slurm_job_id is not None:
            self._cancel(row.slurm_job_id)
        if self._quiet_long_enough("It is being cancelled: a submit's answer was lost, so a copy of it may still come"):
            self._end(BEFORE_SUBMIT)
        return False

    def _cancel(self, slurm_id: int) -> None:
        try:
            self._app.client.cancel(slurm_id)
        except SlurmUnknownJobError:
            _log.info("Slurm job %d was to be cancelled, and Slurm does not know it any more", slurm_id)

    def _dispatched(self, slurm_id: int) -> bool:
        with self._app.database.writing() as session:
            row = _locked(repository.lock(session, self._id))
            row.slurm_job_id, row.dispatched_at = slurm_id, now()
            row.phase, row.reason = "waiting", None
            row.submit_started_at = row.submit_after = row.lost_since = row.stale_since = None
            row.held = False
            repository.changed(session, row)
        return True

    def _refused(self, row: JobRow, error: SlurmError) -> None:
        """The end of the job, unless an earlier submit was lost: what Slurm refuses may be a second copy of it."""
        if row.submit_started_at is None or self._quiet_long_enough(f"Slurm refused a second copy of it ({error})"):
            self._end(f"Slurm refused it: {error}")

    def _end(self, reason: str) -> None:
        with self._app.database.writing() as session:
            row = _locked(repository.lock(session, self._id))
            moment = now()
            row.phase, row.reason, row.ended_at, row.ended_seen_at = "ended badly", reason, moment, moment
            row.slurm_job_id = None
            row.submit_started_at = row.submit_after = row.lost_since = None
            row.held = False
            repository.changed(session, row)

    def _later(self, reason: str) -> None:
        settings = self._app.settings
        with self._app.database.writing() as session:
            row = _locked(repository.lock(session, self._id))
            if row.phase in ENDED:
                return  # cancelled in this moment
            row.submit_tries = max(row.submit_tries, 1)
            pause = min(
                settings.submit_retry_seconds * 2 ** min(row.submit_tries - 1, 16), settings.submit_retry_limit_seconds
            )
            row.submit_after = now() + timedelta(seconds=pause)
            row.submit_tries += 1
            row.reason = reason
            repository.changed(session, row)
        _log.warning("job %s: %s", self._id, reason)

    def _row(self) -> JobRow:
        with self._app.database.reading() as session:
            return _locked(repository.get(session, self._id))

    def _run_directory(self, row: JobRow) -> Path:
        run = Path(row.run_dir)
        if run.exists():
            return check_run_directory(run)
        return make_run_directory(run.parent, row.id, row.spec, row.script, by_hand=False)

    def _report(self, run: Path, row: JobRow) -> str | None:
        """Writes where and with which token the ranks ship; returns a new token, or None where there is to be none."""
        url = self._app.url()
        if url is None or (row.token_hash is not None and (run / "report.json").exists()):
            return None
        token = new_token()
        write_whole(run / "report.json", json.dumps({"url": url, "token": token}))
        return token


def refresh_reports(app: Application) -> None:
    """Tells the ranks of live jobs where the service is now: it may have been started again at another address."""
    url = app.url()
    if url is None:
        return
    with app.database.reading() as session:
        rows = repository.unfinished(session)
    for row in rows:
        file = Path(row.run_dir) / "report.json"
        try:
            known = json.loads(file.read_text("utf-8"))
            if known["url"] != url:
                write_whole(file, json.dumps(known | {"url": url}))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be brought up to date: %s; the job's records come by its spool", file, error)


def _locked(row: JobRow | None) -> JobRow:
    if row is None:
        raise LockstepError("a job vanished from the database while it was being submitted")
    return row
