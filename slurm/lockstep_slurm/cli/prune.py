"""``prune``: removes old records and jobs from the service's database, whether the service runs or not."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.output import Exit, console, errors, print_json
from lockstep_slurm.cli.serve import MissingExtraError
from lockstep_slurm.extras import install


def prune(
    *,
    records: Annotated[
        float | None,
        typer.Option(
            "--records-older-than", min=0, metavar="DAYS", envvar="LOCKSTEP_KEEP_RECORDS_DAYS",
            help="Records of jobs that ended longer ago; their curves and last figures stay.",
        ),
    ] = None,
    jobs: Annotated[
        float | None,
        typer.Option(
            "--jobs-older-than", min=0, metavar="DAYS", envvar="LOCKSTEP_KEEP_JOBS_DAYS",
            help="Jobs that ended longer ago, with all that the database has of them.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Then give the room back to the disk (SQLite; everything waits for it).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    folder: Annotated[Path | None, typer.Option("--home", help="Where the service keeps its files.")] = None,
    database: Annotated[
        str | None,
        typer.Option(envvar="LOCKSTEP_DATABASE_URL", help="The service's; by default SQLite in the home folder."),
    ] = None,
) -> None:  # fmt: skip
    """Remove old records, or whole old jobs, from the service's database. Run directories are never touched."""
    if records is None and jobs is None:
        errors.print(
            "lockstep: nothing is old: give --records-older-than DAYS, --jobs-older-than DAYS, or both", markup=False
        )
        raise typer.Exit(Exit.INPUT)
    try:
        from lockstep_service import retention
        from lockstep_service.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the service is not installed ({error.name} is missing); run: {install('service')}"
        ) from None
    where = folder.expanduser().absolute() if folder else home()
    settings = Settings.read(home=where, database_url=database)
    opened = retention.open_existing(settings.url)
    try:
        wanted = retention.plan(opened, retention.Ages.of_days(records, jobs), datetime.now(UTC))
        with Progress(console=errors, disable=not errors.is_terminal) as progress:
            task = progress.add_task("pruning", total=len(wanted.jobs) + len(wanted.records))
            pruned = retention.prune(opened, wanted, dry_run=dry_run, done=lambda: progress.advance(task))
        if compact and not dry_run:
            retention.compact(opened)
    finally:
        opened.close()
    if as_json:
        print_json({"dry_run": dry_run, **asdict(pruned)})
        return
    verb = "would be removed" if dry_run else "removed"
    console.print(
        f"{pruned.jobs:,} jobs {verb}, and of {pruned.jobs_without_records:,} more the records: "
        f"{pruned.records:,} records in all, {pruned.bytes / 1e6:,.1f} MB"
    )
