"""The command's entry point: which subcommands there are, and how every error ends."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated, Any

import typer

from lockstep_slurm.cli import cluster, control, doctor, jobs, plan, prune, script, serve, worker
from lockstep_slurm.cli.api import ProblemError
from lockstep_slurm.cli.home import NoServiceError
from lockstep_slurm.cli.output import Exit, console, errors
from lockstep_slurm.errors import InputError, LockstepError

_HELP = ["-h", "--help"]
app = typer.Typer(
    name="lockstep",
    help="Scale-out deep-learning training on CPU clusters under Slurm.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": _HELP},
)
app.command()(serve.serve)
app.command()(jobs.submit)
app.command()(jobs.ls)
app.command()(jobs.show)
app.command()(jobs.watch)
app.command()(jobs.logs)
app.command()(jobs.cancel)
app.command()(control.rerun)
app.command()(control.hold)
app.command()(control.release)
app.command()(control.requeue)
app.command()(script.script)
app.command()(plan.plan)
app.command("import")(jobs.import_run)
app.command()(doctor.doctor)
app.add_typer(cluster.app, name="cluster")
app.add_typer(worker.app, name="worker")
app.command("open")(serve.open_)
app.command()(prune.prune)
app.command()(serve.token)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        console.print(f"lockstep {importlib.metadata.version('lockstep')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Scale-out deep-learning training on CPU clusters under Slurm."""


def main() -> None:
    """Runs the command; an error a person can act on is printed without a traceback, with its exit code."""
    command = typer.main.get_command(app)
    _show_flags_alone(command)
    try:
        command()
    except NoServiceError as error:
        _end(error, Exit.UNREACHABLE)
    except ProblemError as error:
        refused = Exit.INPUT if error.status in {400, 404, 409, 413, 422} else Exit.BADLY
        _end(error, Exit.UNREACHABLE if error.passing else refused)
    except InputError as error:
        _end(error, Exit.INPUT)
    except LockstepError as error:
        _end(error, Exit.BADLY)


def _show_flags_alone(command: Any) -> None:  # noqa: ANN401 - click's own, or typer's copy of it, by its version
    """Takes ``<bool>`` from behind every flag in the help (typer 0.29), which looks as if a value were to follow."""
    help_option = command.get_help_option(typer.Context(command, help_option_names=_HELP))
    for option in [*command.params, help_option]:
        if option.param_type_name == "option" and option.is_flag and option.metavar is None:
            option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _show_flags_alone(inner)


def _end(error: LockstepError, code: Exit) -> None:
    errors.print(f"lockstep: {error}", markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
