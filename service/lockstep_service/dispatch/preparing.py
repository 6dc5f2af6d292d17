"""The files that have to be there before a submit: the run directory, and where its ranks ship to."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from lockstep_service.auth.service import new_token
from lockstep_service.boundary import Application
from lockstep_service.dispatch import worklists
from lockstep_service.tables import JobRow
from lockstep_slurm.client.protocol import Submission
from lockstep_slurm.job import beneath, library
from lockstep_slurm.job.identity import slurm_name
from lockstep_slurm.job.rundir import REPORT, begin_start, check_run_directory, make_run_directory
from lockstep_slurm.job.script import spec_of
from lockstep_slurm.job.writing import write_whole

_LONGEST_REPORT = 1 << 16
_log = logging.getLogger(__name__)


def prepare(row: JobRow, url: str | None, *, hold: bool, umask: int | None = None) -> tuple[Submission, str | None]:
    """The job's submit, with all its files in place; and the job's token, where a new one was made.

    ``url``: where the ranks ship to; None where they are not to. ``umask``: the job's. Raises
    ``RunDirectoryError`` or ``OSError``.
    """
    run, token = _run_directory(row, None if _by_files(row) else url)
    submission = Submission(
        script=run / "job.sbatch",
        name=slurm_name(row.name, row.id),
        output=run / "logs" / "job-%j.log",
        directory=run,
        arguments=(str(run),),
        hold=hold or row.user_hold,
        umask=umask,
    )
    return submission, token


def _run_directory(row: JobRow, url: str | None) -> tuple[Path, str | None]:
    """The run directory, with where the ranks ship, and a token for them; that where it is a new one."""
    run = Path(row.run_dir)
    token = new_token() if url is not None else None
    report = json.dumps({"url": url, "token": token})
    if not run.exists():
        # What the ranks read is what the script carries: with what the site filled in.
        spec = spec_of(row.script) or row.spec
        told = report if token is not None else None
        run = make_run_directory(run.parent, row.id, spec, row.script, by_hand=False, report=told)
    else:
        run = check_run_directory(run)
        if row.token_hash is not None and (run / REPORT).exists():
            token = None
        if token is not None:
            write_whole(run / REPORT, report)
    # A script that was stored before an upgrade starts what was the library then, which may make no folders itself.
    return run if library.name() in row.script else begin_start(run), token


def _by_files(row: JobRow) -> bool:
    """Whether the spec has the ranks not ship at all: then there is no token that could be stolen."""
    found = json.loads(spec_of(row.script) or row.spec)
    return bool(found.get("report", {}).get("transport") == "files")


def refresh_reports(app: Application) -> None:
    """Tells the ranks of live jobs where the service is now: it may have been started again at another address."""
    url = app.url()
    if url is None:
        return
    with app.database.reading() as session:
        rows = worklists.unfinished(session)
    for row in rows:
        file = Path(row.run_dir) / REPORT
        try:
            known = json.loads(beneath.read_file(file.parent, file.name, limit=_LONGEST_REPORT))
            if known["url"] != url:
                write_whole(file, json.dumps(known | {"url": url}))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s cannot be brought up to date: %s; the job's records come by its spool", file, error)
