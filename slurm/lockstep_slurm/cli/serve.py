"""``serve`` and ``token``: starting the service, and the token by which a person gets in."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.output import Exit, console, errors, print_json
from lockstep_slurm.cli.script import SiteOption
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.extras import install


class Client(StrEnum):
    """Ways of talking to Slurm."""

    AUTO = "auto"
    COMMAND = "command"
    PYSLURM = "pyslurm"
    LOCAL = "local"


class Role(StrEnum):
    """What a service process does."""

    ALL = "all"
    API = "api"
    DISPATCH = "dispatch"


_PASSWORD = re.compile(r"://[^/@]*:[^@]+@|[?&](ssl)?password=")


class ExposedError(LockstepError):
    """A secret stands where others can read it."""


class MissingExtraError(LockstepError):
    """A subcommand's part is not installed; the message has the command that installs it."""


def serve(
    context: typer.Context,
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; anything but loopback shows the service to the network.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="0: any free one, which is the default with --role dispatch.", show_default="8080"
        ),
    ] = None,
    client: Annotated[Client, typer.Option(help="How to reach Slurm; local: none, on this machine.")] = Client.AUTO,
    slurm_conf: Annotated[Path | None, typer.Option(envvar="SLURM_CONF", help="The cluster's slurm.conf.")] = None,
    folder: Annotated[Path | None, typer.Option("--home", help="Where the service keeps its files.")] = None,
    database: Annotated[
        str | None,
        typer.Option(envvar="LOCKSTEP_DATABASE_URL", help="SQLAlchemy's URL; by default SQLite in the home folder."),
    ] = None,
    site: SiteOption = None,
    role: Annotated[
        Role, typer.Option(help="Run the API and the dashboard, or the dispatch, as a process of its own.")
    ] = Role.ALL,
    restored: Annotated[
        bool,
        typer.Option("--restored", help="The database comes from a backup: look in Slurm before submitting from it."),
    ] = False,
) -> None:
    """Run the API, the dashboard and the dispatch in one process, or --role api and --role dispatch in two."""
    try:
        from lockstep_service import server
        from lockstep_service.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the service is not installed ({error.name} is missing); run: {install('service')}"
        ) from None
    options = {
        "home": folder.expanduser().absolute() if folder else home(),
        "host": host,
        "port": port if port is not None else 0 if role is Role.DISPATCH else 8080,
        "client": client.value,
        "role": role.value,
        "restored": restored,
    }
    if slurm_conf is not None:
        options["slurm_conf"] = slurm_conf.expanduser().absolute()
    if site is not None:
        options["site"] = site.expanduser().absolute()
    if database is not None:
        given = context.get_parameter_source("database")
        if given is not None and given.name == "COMMANDLINE" and _PASSWORD.search(database):
            raise ExposedError(
                "--database has a password in it, which everyone on this machine can read in the list of processes; "
                "give the address as LOCKSTEP_DATABASE_URL, or leave the password to ~/.pgpass"
            )
        options["database_url"] = database
    raise typer.Exit(server.run(Settings.read(**options)))


def open_(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="A job's id, the end of one, or a name: its page.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document for scripts.")] = False,
) -> None:
    """Print a link to the dashboard that lets one browser in, once.

    No browser is started: a program's arguments are seen by everyone on the machine.
    """
    from lockstep_slurm.cli.api import Api

    with Api() as api:
        page = f"/jobs/{api.job_id(job)}" if job is not None else "/"
        made = api.post("/session/links")
        url = f"{api.address.url}{page}#code={made['code']}"
    if as_json:
        print_json({"url": url, "until": made["until"]})
    else:
        console.print(url, markup=False, soft_wrap=True, highlight=False)


def token() -> None:
    """Print this user's token, which the dashboard asks for."""
    file = home() / "token"
    try:
        console.print(file.read_text(encoding="utf-8").strip(), markup=False, soft_wrap=True)
    except FileNotFoundError:
        errors.print(f"lockstep: no token at {file} yet; the first start of `lockstep serve` makes one", markup=False)
        raise typer.Exit(Exit.BADLY) from None
