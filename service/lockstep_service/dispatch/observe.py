"""From what Slurm and the run's own files say to a job's row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lockstep_service.dispatch.processes import alive
from lockstep_service.jobs.phase import ENDED, GONE, GONE_BY_HAND, HEARD, PHASES, Outcome, by_exit, by_start, outcome
from lockstep_service.jobs.waiting import estimate
from lockstep_service.tables import AttemptRow, JobRow
from lockstep_service.wire import LATEST, moment
from lockstep_slurm.client.protocol import SlurmJob
from lockstep_slurm.job.file import problems
from lockstep_slurm.job.rundir import Claim, Exit, RunDirectoryError, Start, read_claims, read_exit, read_starts

# Anyone who can write into a run directory writes these, and one that is not as it should be must not stop a loop.
_CLAIM = TypeAdapter(Claim)
_EXIT = TypeAdapter(Exit)
_CLOCKS = 60.0
"""Seconds by which the clocks of a cluster may differ."""
_HEARD = timedelta(seconds=60)
"""A job whose ranks told something within so long is alive, whatever Slurm has forgotten."""


@dataclass(frozen=True)
class RunFiles:
    """What the run directory tells of the job's attempts."""

    claims: tuple[Claim, ...] = ()
    exits: tuple[Exit, ...] = ()
    alive: bool = False
    """Whether the newest attempt's process is known to live: it does on this machine."""
    starts: tuple[Start, ...] = ()
    """What ended before there was a rank to claim it."""

    def newest_start(self, slurm_job_id: int | None, least: int = 0) -> Start | None:
        """Why the job's newest start, of restart ``least`` or later, came to no rank; None where a later one did."""
        found = [start for start in self.starts if start.slurm_job_id == slurm_job_id and start.restart_count >= least]
        newest = max(found, key=lambda start: start.restart_count, default=None)
        if newest is None or any(claim.restart_count >= newest.restart_count for claim in self.claims):
            return None
        return newest

    def exit_of(self, attempt: int) -> Exit | None:
        """How the attempt ended, as far as it was written down."""
        return next((found for found in self.exits if found.attempt == attempt), None)


def read_files(run: Path) -> RunFiles:
    """The claims and exit records; a folder that is not there has none. Raises ``RunDirectoryError`` or ``OSError``."""
    if not run.is_dir():
        return RunFiles()
    try:
        claims = tuple(_CLAIM.validate_python(asdict(claim)) for claim in read_claims(run))
        exits = [read_exit(run, claim.attempt) for claim in claims]
        ended = tuple(_EXIT.validate_python(asdict(found)) for found in exits if found is not None)
        starts = tuple(read_starts(run))
        for told in [claim.claimed for claim in claims] + [found.ended for found in ended]:
            if not 0 <= told < LATEST:
                raise RunDirectoryError(f"{run} has a claim or an exit record of the time {told!r}, which is none")
    except ValidationError as error:
        found = "; ".join(f"{where}: {message}" for where, message in problems(error))
        raise RunDirectoryError(f"{run} has a {error.title.lower()} that is not valid: {found}") from None
    except (RecursionError, TypeError) as error:
        raise RunDirectoryError(f"{run} has a claim or an exit record that is none: {error}") from None
    return RunFiles(claims, ended, bool(claims) and alive(claims[-1]), starts)


def apply_files(row: JobRow, files: RunFiles) -> None:
    """Brings the attempts up to what the run directory tells."""
    known = {attempt.number: attempt for attempt in row.attempts}
    for claim in files.claims:
        attempt = known.get(claim.attempt)
        if attempt is None:
            attempt = AttemptRow(number=claim.attempt, ranks=claim.ranks, nodes=list(claim.nodes))
            row.attempts.append(attempt)
            known[claim.attempt] = attempt
        attempt.slurm_job_id = claim.slurm_job_id
        attempt.restart_count = claim.restart_count
        attempt.nodes = list(claim.nodes)
        attempt.ranks = claim.ranks
        attempt.started_at = moment(claim.claimed)
        if (ended := files.exit_of(claim.attempt)) is not None:
            attempt.ended_at = moment(ended.ended)
            attempt.exit_code, attempt.exit_signal, attempt.message = ended.code, ended.signal, ended.message
    for attempt, later in pairwise(row.attempts):
        _close(row, attempt, later.started_at)


def is_another(job: SlurmJob, files: RunFiles) -> bool:
    """Whether Slurm has given the id of a run by hand to another job: submitted after this start of it was claimed.

    A name without a tag may come again as well. ``_CLOCKS`` is left for clocks that differ.
    """
    same = [claim for claim in files.claims if claim.slurm_job_id == job.id and claim.restart_count >= job.restarts]
    return job.submitted is not None and any(job.submitted.timestamp() > claim.claimed + _CLOCKS for claim in same)


def nodes_it_had(job: SlurmJob, files: RunFiles) -> frozenset[str]:
    """The nodes of which one may have failed under it: where Slurm says so, or has put it back into the queue."""
    newest = files.claims[-1] if files.claims else None
    if job.state == "NODE_FAIL":
        return frozenset(job.nodes).union(newest.nodes if newest is not None else ())
    return frozenset(newest.nodes) if newest is not None and _was_put_back(job, newest) else frozenset()


def apply_slurm(
    row: JobRow,
    job: SlurmJob,
    files: RunFiles,
    when: datetime,
    grace: timedelta,
    *,
    failed_nodes: tuple[str, ...] = (),
) -> None:
    """Brings the row up to what Slurm said at ``when``; ``failed_nodes``: those of ``nodes_it_had`` that are down."""
    apply_files(row, files)
    row.missing_since = None
    row.state, row.flags, row.slurm_nodes = job.state, list(job.flags), list(job.nodes)
    grace_over = row.ended_seen_at is not None and when - row.ended_seen_at >= grace
    exit_ = _exit_of(job, files)
    # One that came to no rank is newer than all that did; jobcomp/filetxt knows of no restarts.
    start = files.newest_start(job.id, job.restarts)
    if start is not None or (files.claims and _is_of_before(job, files.claims[-1])):
        close_last(row, when)
    ended = start or exit_ or _exit_before(job, files)
    found = outcome(job.state, job.flags, job.reason, ended, grace_over=grace_over, failed_nodes=failed_nodes)
    if job.started is not None and found.phase != "waiting":
        row.started_at = job.started
    if found.ended:
        row.ended_at = job.ended or row.ended_at or when
        if row.attempts and row.attempts[-1].ended_at is None:
            row.attempts[-1].ended_at = row.ended_at
    if not outcome(job.state, job.flags, None, None, grace_over=True).ended:
        row.ended_seen_at = None  # put back into the queue, or imported while it ran
    elif row.ended_seen_at is None:
        row.ended_seen_at = when
    _apply(row, found, when)
    if found.phase == "waiting":
        row.slurm_reason, row.expected_start = job.reason, estimate(row.expected_start, job.started)


def apply_absence(row: JobRow, files: RunFiles, when: datetime, grace: timedelta) -> None:
    """Slurm has no word of it, or it runs without Slurm: only an exit record ends it, and time alone never does."""
    apply_files(row, files)
    newest = files.claims[-1] if files.claims else None
    exit_ = files.exit_of(newest.attempt) if newest is not None else None
    if row.missing_since is None:
        row.missing_since = when
    restarts = [known.restart_count for known in row.attempts if known.slurm_job_id == row.slurm_job_id]
    # One of a start before a requeue looks the same: Slurm has its time to speak of the next.
    start = files.newest_start(row.slurm_job_id, max(restarts, default=0))
    if files.alive:
        # With an exit record too: the wrapper outlives its training until the last records are put away.
        row.missing_since = row.ended_seen_at = None
        _apply(row, Outcome("running", None if exit_ is None else "It is ending"), when)
    elif start is not None and when - row.missing_since >= grace:
        close_last(row, when)
        row.ended_at = row.ended_at or when
        row.ended_seen_at = row.ended_seen_at or when
        _apply(row, by_start(start), when)
    elif exit_ is not None and start is None:
        row.ended_at = row.ended_at or moment(exit_.ended)
        row.ended_seen_at = row.ended_seen_at or when
        _apply(row, by_exit(exit_), when)
    elif row.heard_at is not None and when - row.heard_at < _HEARD:
        _apply(row, Outcome("running", HEARD), when)
    elif when - row.missing_since >= grace:
        _apply(row, Outcome("unknown", GONE_BY_HAND if row.by_hand else GONE), when)


def close_last(row: JobRow, when: datetime) -> None:
    """The newest attempt is over, as is known at ``when``, whether or not it left an exit record."""
    if row.attempts:
        _close(row, row.attempts[-1], when)


def apply_silence(row: JobRow, when: datetime) -> None:
    """Slurm did not answer: nothing is known but since when."""
    row.stale_since = row.stale_since or when


def _apply(row: JobRow, found: Outcome, when: datetime) -> None:
    reason = found.reason
    if found.phase in ENDED and row.state == "CANCELLED" and row.cancel_requested_at is not None:
        reason = "It was cancelled on request"
    row.phase, row.reason = found.phase, reason
    row.observed_at, row.stale_since = when, None
    if found.phase != "waiting":
        row.slurm_reason = row.expected_start = None


def _exit_of(job: SlurmJob, files: RunFiles) -> Exit | None:
    """The exit record of the Slurm job's present start, not of one before a requeue."""
    if not files.claims:
        return None
    newest = files.claims[-1]
    if newest.slurm_job_id is not None and (newest.slurm_job_id != job.id or newest.restart_count < job.restarts):
        return None
    return files.exit_of(newest.attempt)


def _exit_before(job: SlurmJob, files: RunFiles) -> Exit | None:
    """How the last attempt of a job ended that waits to be started again."""
    newest = files.claims[-1] if files.claims else None
    return files.exit_of(newest.attempt) if newest is not None and _was_put_back(job, newest) else None


def _was_put_back(job: SlurmJob, newest: Claim) -> bool:
    """Whether the job waits to be started again after the claim."""
    return _is_of_before(job, newest) and PHASES.get(job.state) == "waiting"


def _is_of_before(job: SlurmJob, claim: Claim) -> bool:
    """Whether the job has been put back into the queue since the claim."""
    return claim.slurm_job_id == job.id and claim.restart_count < job.restarts


def _close(row: JobRow, attempt: AttemptRow, latest: datetime | None) -> None:
    """Ends an attempt that has no exit record: when its ranks were heard of last, where that is known to be its.

    Its node may have failed long before the next attempt began, which is the ``latest`` that it can have lived.
    """
    if attempt.ended_at is not None:
        return
    heard = row.heard_at
    its = heard is not None and latest is not None and (attempt.started_at or heard) <= heard <= latest
    attempt.ended_at = heard if its else latest
