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
from lockstep_slurm.job.rundir import begin_start, check_run_directory, make_run_directory, write_whole
from lockstep_slurm.job.script import spec_of

_LONGEST_REPORT = 1 << 16
_log = logging.getLogger(__name__)


def prepare(row: JobRow, url: str | None, *, hold: bool) -> tuple[Submission, str | None]:
    """The job's submit, with all its files in place; and the job's token, where a new one was made.

    ``url``: where the ranks ship to; None where they are not to. Raises ``RunDirectoryError`` or ``OSError``.
    """
    run = _run_directory(row)
    token = _report(run, row, url)
    submission = Submission(
        script=run / "job.sbatch",
        name=slurm_name(row.name, row.id),
        output=run / "logs" / "job-%j.log",
        directory=run,
        arguments=(str(run),),
        hold=hold or row.user_hold,
    )
    return submission, token


def _run_directory(row: JobRow) -> Path:
    run = Path(row.run_dir)
    if run.exists():
        run = check_run_directory(run)
    else:
        # What the ranks read is what the script carries: with what the site filled in.
        run = make_run_directory(run.parent, row.id, spec_of(row.script) or row.spec, row.script, by_hand=False)
    # A script that was stored before an upgrade starts what was the library then, which may make no folders itself.
    return run if library.name() in row.script else begin_start(run)


def _report(run: Path, row: JobRow, url: str | None) -> str | None:
    """Writes where and with which token the ranks ship; returns a new token, or None where there is to be none."""
    if url is None or _by_files(row) or (row.token_hash is not None and (run / "report.json").exists()):
        return None
    token = new_token()
    write_whole(run / "report.json", json.dumps({"url": url, "token": token}))
    return token


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
        file = Path(row.run_dir) / "report.json"
        try:
            known = json.loads(beneath.read_file(file.parent, file.name, limit=_LONGEST_REPORT))
            if known["url"] != url:
                write_whole(file, json.dumps(known | {"url": url}))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s cannot be brought up to date: %s; the job's records come by its spool", file, error)
