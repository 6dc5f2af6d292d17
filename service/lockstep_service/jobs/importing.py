"""Taking in a run that was made without the service: everything is read again from its run directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.dispatch.observe import RunFiles, apply_absence, apply_files, apply_slurm, read_files
from lockstep_service.errors import InvalidError
from lockstep_service.jobs import repository, view
from lockstep_service.jobs.phase import ENDED
from lockstep_service.jobs.schemas import Job
from lockstep_service.tables import JobRow
from lockstep_service.timeline import repository as timeline
from lockstep_service.wire import LATEST, moment, now
from lockstep_slurm.client.protocol import SlurmError, SlurmJob
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job import beneath
from lockstep_slurm.job.file import SIZE_LIMIT, problems
from lockstep_slurm.job.rundir import Claim, check_run_directory
from lockstep_slurm.job.spec import JobSpec

_NO_GRACE = timedelta(0)


class Origin(BaseModel):
    """``origin.json``."""

    job_id: str
    by_hand: bool
    created: float = Field(ge=0, lt=LATEST)


_Description = tuple[JobSpec, Origin, str]
"""The spec, where it came from, and the script."""


def take_in(app: Application, run_dir: str) -> tuple[Job, bool]:
    """Reads ``run_dir`` and stores what it tells; the job, and whether it was known already.

    Its own transactions, since a spool may be long: the row first, then the spool in pieces, then the end.
    ``InvalidError`` when it is not a whole run directory of the service's user.
    """
    run = _checked(Path(run_dir))
    told = _described(run)
    files = _files(run)
    slurm = _slurm_says(app, told[0], files)
    try:
        known = _stored(app, run, told, files, slurm)
    except UNSTORABLE as error:
        raise InvalidError.at("run_dir", f"tells something that cannot be stored: {error!r:.300}", str(run)) from None
    _read_spools(app, run)
    with app.database.writing() as session:
        row = repository.lock(session, run.name)
        if row is None:
            raise InvalidError.at("run_dir", "vanished from the database while it was being imported", str(run))
        if row.by_hand:
            # Not for ever: read again, a run may turn out to live.
            row.final = row.phase in ENDED or row.phase == "unknown"
        repository.changed(session, row)
        if not known:
            timeline.note(session, row, "imported", "It was imported from its run directory")
        return view.full(row), known


def _stored(app: Application, run: Path, told: _Description, files: RunFiles, slurm: SlurmJob | None) -> bool:
    """Stores all but the records; whether the job was known already."""
    spec, origin, script = told
    moment_ = now()
    with app.database.writing() as session:
        row = repository.lock(session, run.name)
        known = row is not None
        if row is None:
            row = JobRow(
                id=run.name,
                name=spec.name,
                spec=spec.model_dump_json(exclude_none=True),
                script=script,
                run_dir=str(run),
                client=app.client.kind,
                by_hand=True,
                nodes_requested=spec.resources.nodes,
                ranks=spec.ranks,
                phase="unknown",
                created_at=moment(origin.created),
                changed_at=moment_,
                attempts=[],
                revision=0,
                final=False,
            )
            repository.add(session, row)
        elif Path(row.run_dir) != run:
            if Path(row.run_dir).exists() or not row.by_hand:
                raise InvalidError.at("run_dir", f"is job {run.name}, which is known under {row.run_dir}", str(run))
            row.run_dir = str(run)
        if row.by_hand:
            _apply(row, files, slurm)
        else:
            apply_files(row, files)
        repository.changed(session, row)
    return known


def _apply(row: JobRow, files: RunFiles, slurm: SlurmJob | None) -> None:
    """The state of a run by hand."""
    when = now()
    newest = files.claims[-1] if files.claims else None
    if newest is not None:
        row.slurm_job_id = newest.slurm_job_id
        row.started_at = moment(files.claims[0].claimed)
    row.ended_seen_at = row.ended_seen_at or when
    if slurm is not None:
        apply_slurm(row, slurm, files, when, _NO_GRACE)
    else:
        apply_absence(row, files, when, _NO_GRACE)


def _checked(run: Path) -> Path:
    try:
        found = check_run_directory(run.resolve())
        if (owner := found.stat().st_uid) != os.geteuid():
            raise InvalidError.at(
                "run_dir",
                f"belongs to user {owner}, and this service runs as {os.geteuid()}; import it there",
                str(run),
            )
    except LockstepError as error:
        raise InvalidError.at("run_dir", str(error), str(run)) from None
    except OSError as error:
        raise InvalidError.at("run_dir", f"cannot be read: {error.strerror}", str(run)) from None
    return found


def _described(run: Path) -> _Description:
    try:
        spec = JobSpec.model_validate_json(_read(run, "spec.json"))
        origin = Origin.model_validate_json(_read(run, "origin.json"))
        script = _read(run, "job.sbatch").decode("utf-8")
    except ValidationError as error:
        found = "; ".join(f"{where}: {message}" for where, message in problems(error))
        raise InvalidError.at("run_dir", f"has a {error.title} file that is not valid: {found}", str(run)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError.at("run_dir", f"cannot be read: {error}", str(run)) from None
    if origin.job_id != run.name:
        raise InvalidError.at(
            "run_dir", f"is named {run.name}, but its origin.json is of job {origin.job_id}", str(run)
        )
    return spec, origin, script


def _read(run: Path, name: str) -> bytes:
    """A file of the run's own; ``InvalidError`` for one that leads out of it, or that no job has."""
    try:
        content = beneath.read_file(run, name, limit=SIZE_LIMIT)
    except beneath.NotPlainError as error:
        raise InvalidError.at("run_dir", f"has a {name} that is not read: {error.strerror}", str(run)) from None
    if b"\0" in content:
        raise InvalidError.at("run_dir", f"has a {name} that is no text", str(run))
    return content


def _files(run: Path) -> RunFiles:
    try:
        return read_files(run)
    except (LockstepError, OSError) as error:
        raise InvalidError.at("run_dir", f"cannot be read: {error}", str(run)) from None


def _read_spools(app: Application, run: Path) -> None:
    try:
        read_spools(app, run.name, run)
    except (OSError, *UNSTORABLE) as error:
        raise InvalidError.at("run_dir", f"has a spool that cannot be read: {error}", str(run)) from None


def _slurm_says(app: Application, spec: JobSpec, files: RunFiles) -> SlurmJob | None:
    """What Slurm has of the newest attempt; None where it has nothing, does not answer, or its id was used again."""
    newest = files.claims[-1] if files.claims else None
    if newest is None or newest.slurm_job_id is None:
        return None

    def fitting(told: Iterable[SlurmJob]) -> list[SlurmJob]:
        same = (job for job in told if (job.id, job.name) == (newest.slurm_job_id, spec.name))
        return [job for job in same if _held_the_claim(job, newest)]

    try:
        # Another job may have its id in the queue by now.
        found = fitting(app.client.queue()) or fitting(app.client.finished([newest.slurm_job_id]))
    except SlurmError:
        return None
    return found[-1] if found else None


def _held_the_claim(job: SlurmJob, claim: Claim) -> bool:
    """Whether the claim was made while this Slurm job ran; a minute is left for clocks that differ."""
    began = job.started is None or job.started.timestamp() - 60 <= claim.claimed
    return began and (job.ended is None or claim.claimed <= job.ended.timestamp() + 60)
