"""``serve`` and ``token``: starting the service, and the token by which a person gets in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lockstep_slurm.cli.home import home
from lockstep_slurm.cli.output import Exit, console, errors
from lockstep_slurm.errors import LockstepError


class Client(StrEnum):
    """Ways of talking to Slurm."""

    AUTO = "auto"
    COMMAND = "command"
    LOCAL = "local"


class MissingExtraError(LockstepError):
    """A subcommand's part is not installed; the message has the command that installs it."""


def serve(
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; anything but loopback shows the service to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    client: Annotated[Client, typer.Option(help="How to reach Slurm; local: none, on this machine.")] = Client.AUTO,
    slurm_conf: Annotated[Path | None, typer.Option(envvar="SLURM_CONF", help="The cluster's slurm.conf.")] = None,
    folder: Annotated[Path | None, typer.Option("--home", help="Where the service keeps its files.")] = None,
    database: Annotated[
        str | None,
        typer.Option(envvar="LOCKSTEP_DATABASE_URL", help="SQLAlchemy's URL; by default SQLite in the home folder."),
    ] = None,
) -> None:
    """Run the API, the dashboard and the dispatch in one process."""
    try:
        from lockstep_service import server
        from lockstep_service.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the service is not installed ({error.name} is missing); run: pip install 'lockstep[service]'"
        ) from None
    options = {
        "home": folder.expanduser().absolute() if folder else home(),
        "host": host,
        "port": port,
        "client": client.value,
    }
    if slurm_conf is not None:
        options["slurm_conf"] = slurm_conf.expanduser().absolute()
    if database is not None:
        options["database_url"] = database
    raise typer.Exit(server.run(Settings.model_validate(options)))


def token() -> None:
    """Print this user's token, which the dashboard asks for."""
    file = home() / "token"
    try:
        console.print(file.read_text(encoding="utf-8").strip(), markup=False, soft_wrap=True)
    except FileNotFoundError:
        errors.print(f"no token at {file} yet; the first start of `lockstep serve` makes one", markup=False)
        raise typer.Exit(Exit.BADLY) from None
