"""Many jobs by one request: all are stored by one transaction, or none; one idempotency key covers all.

Each is a job like any other from there on. The key is the first one's, and all have the digest of the whole request, by
which they are found again together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from lockstep_service.boundary import Application
from lockstep_service.errors import ConflictError, InvalidError, ProblemItem, TooLargeError
from lockstep_service.jobs import repository, service
from lockstep_service.jobs.batch_schemas import Batch, BatchJob, BatchRequest
from lockstep_service.jobs.control import merged
from lockstep_service.jobs.service import Origin
from lockstep_service.problems import invalid
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.spec import JobSpec

_IN_FULL = 8
"""How many times as long as a body all specs together may be, each in full: what all have in common is sent once."""
_MOST_TOLD = 10
"""Errors that are told: where the common spec is wrong, each job has the same ones."""


def store(app: Application, wanted: BatchRequest, key: str | None, origin: Origin) -> Batch:
    """Stores a job for each of ``wanted.changes``, or answers again what ``key`` was answered before.

    ``InvalidError`` for what any of them would be refused for by itself, naming each place, and when ``key`` came with
    something else. ``InProgressError`` while another request has the key. ``TooLargeError`` when the specs come to more
    than this service takes at once. ``ConflictError`` when not all that ``key`` was answered with are kept any more.
    """
    specs, texts = _specs(app, wanted)
    with app.keys_in_progress.claimed(key):
        digest = None if key is None else origin.digest("\n".join((key, *texts)))
        if key is not None and (known := service.known_by(app, key)) is not None:
            return _again(app, known, digest, len(specs))
        rows = _rows(app, specs, texts, origin)
        for row in rows:
            row.idempotency_digest = digest
        rows[0].idempotency_key = key
        try:
            app.intake.add(*rows)
        except IntegrityError:
            # The same key, in the same moment, to another process: that one was first.
            if key is None or (known := service.known_by(app, key)) is None:
                raise
            return _again(app, known, digest, len(specs))
    app.wake_submit()
    return _answer([(row.id, row.name) for row in rows])


def _specs(app: Application, wanted: BatchRequest) -> tuple[list[JobSpec], list[str]]:
    """The spec of each job, and the same as it is stored."""
    specs, texts, left = [], [], _IN_FULL * app.settings.body_limit
    errors = _Errors()
    for place, changes in enumerate(wanted.changes):
        try:
            spec = _spec(wanted.spec, changes)
        except InvalidError as error:
            errors.add(place, error)
            continue
        text = spec.model_dump_json(exclude_none=True)
        left -= len(text)
        if left < 0:
            raise TooLargeError(
                f"The specs of the first {place + 1} of {len(wanted.changes)} jobs are, each in full, longer than "
                f"{_IN_FULL * app.settings.body_limit} bytes together; send fewer jobs at once."
            )
        specs.append(spec)
        texts.append(text)
    errors.raise_any()
    return specs, texts


def _spec(common: Mapping[str, Any], changes: Mapping[str, Any]) -> JobSpec:
    try:
        return JobSpec.model_validate(merged(common, changes))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)) from None
    except RecursionError:
        raise InvalidError.at("", "it is nested too deeply") from None


def _rows(app: Application, specs: Sequence[JobSpec], texts: Sequence[str], origin: Origin) -> list[JobRow]:
    """The jobs, made in one moment, with ids that sort as they were asked for."""
    errors, effective = _Errors(), []
    for place, spec in enumerate(specs):
        try:
            effective.append(service.allowed(app, spec, origin))
        except InvalidError as error:
            errors.add(place, error)
    errors.raise_any()
    reason, site, moment = service.waits(app, origin.after), service.script_site(app), now()
    ids = sorted(new_job_id() for _ in specs)
    wanted = (service.Wanted(*one) for one in zip(specs, texts, effective, strict=True))
    rows = [service.new_row(app, one, origin, site, job_id) for one, job_id in zip(wanted, ids, strict=True)]
    for row in rows:
        row.reason, row.created_at, row.changed_at = reason, moment, moment
    return rows


class _Errors:
    """What is wrong with which of the jobs."""

    def __init__(self) -> None:
        self._found: list[ProblemItem] = []

    def add(self, place: int, error: InvalidError) -> None:
        """Keeps what is wrong with the job at ``place``; raises all once they are as many as anybody wants to read."""
        self._found += error.beneath(f"changes.{place}").errors
        if len(self._found) >= _MOST_TOLD:
            self.raise_any()

    def raise_any(self) -> None:
        """Raises what was found, if anything."""
        if self._found:
            raise InvalidError.at_all([(one.where, one.message, one.value) for one in self._found])


def _again(app: Application, known: JobRow, digest: str | None, count: int) -> Batch:
    if known.idempotency_digest != digest:
        raise InvalidError.at(
            "Idempotency-Key", f"was used for job {known.id} with another submission; take a new key for new jobs"
        )
    with app.database.reading() as session:
        jobs = repository.stored_with(session, known)
    if len(jobs) != count:
        raise ConflictError(
            f"Of the {count} jobs that were stored with this Idempotency-Key only {len(jobs)} are kept; take a new key "
            "for new jobs."
        )
    return _answer(jobs)


def _answer(jobs: Sequence[tuple[str, str]]) -> Batch:
    return Batch(items=[BatchJob(id=job_id, name=name) for job_id, name in jobs])
