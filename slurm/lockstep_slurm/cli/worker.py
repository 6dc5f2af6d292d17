"""``lockstep worker build``: Horovod's wheel for a user's own environment."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from lockstep_slurm.cli.output import console, errors, print_json

if TYPE_CHECKING:
    from lockstep_slurm.horovod.step import Progress as StepProgress

app = typer.Typer(help="What compute nodes need.", no_args_is_help=True)
PLAIN_EVERY_SECONDS = 15.0


class Mpi(StrEnum):
    """Which MPI Horovod can use besides Gloo; ``lockstep_slurm.horovod.release.MPI`` has the same."""

    NONE = "none"
    OPENMPI = "openmpi"


class BarView:
    """A progress bar with the step, make's share of it, and the time so far."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=32), TaskProgressColumn(), TimeElapsedColumn(),
            console=errors, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, progress: StepProgress) -> None:
        """Moves the bar."""
        total = None if progress.share is None else 1.0
        self._progress.update(self._task, description=progress.what, total=total, completed=progress.share or 0)


class PlainView:
    """A line now and then, for a log."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PLAIN_EVERY_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __call__(self, progress: StepProgress) -> None:
        """Says how far it is, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_EVERY_SECONDS
            share = "" if progress.share is None else f", {progress.share:.0%}"
            errors.print(f"{progress.what}: {progress.seconds:.0f} s{share}", markup=False)


@app.callback()
def worker() -> None:
    """What compute nodes need."""


@app.command()
def build(
    *,
    python: Annotated[
        Path | None, typer.Option(help="The interpreter of the environment to build for.", show_default="this one")
    ] = None,
    venv: Annotated[
        Path | None, typer.Option(help="The same, as the folder of a virtual or conda environment.", show_default=False)
    ] = None,
    wheels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Take everything from this folder (made by `pip download`), and nothing from a network.",
            show_default=False,
        ),
    ] = None,
    mpi: Annotated[Mpi, typer.Option(help="An MPI besides Gloo; its mpicxx has to be on PATH.")] = Mpi.NONE,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Copy the wheel here.", show_default="only kept in the cache")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Compilers at once, 2.3 GB of memory each.", show_default="as cores and memory allow"),
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="Install the wheel into that environment.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
) -> None:
    """Build Horovod's wheel against the torch of an environment, once; needs a compiler and about 5 minutes."""
    from lockstep_slurm.horovod import machine, target, wheel

    if python is not None and venv is not None:
        raise typer.BadParameter("give --python or --venv, not both")
    interpreter = python or (target.python_of(venv) if venv is not None else Path(sys.executable))
    request = wheel.Request(
        target=target.look(interpreter),
        mpi=machine.find_mpi(mpi.value),
        wheels=None if wheels is None else wheels.expanduser().absolute(),
        jobs=jobs,
    )
    _say_warning(request.target.warning())
    # As an exception the signal ends the compilers, too, which have a process group of their own.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    started = time.monotonic()
    with BarView() if errors.is_terminal else PlainView() as view:
        path, built = wheel.get(request, view, _say)
        seconds = time.monotonic() - started
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copy2(path, output)).absolute()
        if install:
            wheel.install(request, path, view)
    if as_json:
        print_json(
            {
                "wheel": str(path),
                "built": built,
                "seconds": round(seconds, 1),
                "python": str(request.target.python),
                "torch": request.target.torch,
                "mpi": request.mpi.version if request.mpi else None,
                "installed": install,
            }
        )
        return
    how = f"built in {seconds:.0f} s" if built else "it was built before"
    errors.print(f"for torch {request.target.torch} of {request.target.python}: {how}", markup=False, soft_wrap=True)
    if install:
        errors.print("installed there", markup=False)
    console.print(str(path), markup=False, soft_wrap=True)


def _say(message: str) -> None:
    errors.print(message, markup=False, soft_wrap=True)


def _say_warning(warning: str | None) -> None:
    if warning is not None:
        errors.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
