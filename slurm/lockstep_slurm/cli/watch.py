"""Following one job to its end: a progress bar for a person, a line now and then for a log."""

from __future__ import annotations

import time
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lockstep_slurm.cli import stream
from lockstep_slurm.cli.api import Api, Json, ProblemError
from lockstep_slurm.cli.home import NoServiceError
from lockstep_slurm.cli.output import Exit, console, errors, number, phase

PLAIN_EVERY_SECONDS = 5.0


class BarView:
    """A progress bar: phase, steps, samples/s, loss and accuracy."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]}"),
            TextColumn("[bold]{task.fields[rate]}[/] samples/s"),
            TextColumn("loss [bold]{task.fields[loss]}[/]"),
            TextColumn("accuracy [bold]{task.fields[accuracy]}[/]"),
            TimeElapsedColumn(),
            console=errors,
        )
        self._task: TaskID = self._progress.add_task("accepted", total=None, steps="", rate="-", loss="-", accuracy="-")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def job(self, job: Json) -> None:
        """Puts the phase before the bar, with the reason while it waits."""
        words = phase(job).markup
        if job["phase"] in {"accepted", "waiting"} and job["reason"]:
            words += f" ({job['reason'][:60]})"
        self._progress.update(self._task, description=words)

    def last(self, last: Json) -> None:
        """Moves the bar."""
        step, steps = last.get("step"), last.get("steps")
        self._progress.update(
            self._task,
            completed=step or 0,
            total=steps,
            steps=f"{step or 0}/{steps or '?'}",
            rate=number(last.get("samples_per_s")),
            loss=number(last.get("loss")),
            accuracy=number(last.get("accuracy")),
        )


class PlainView:
    """Lines for a log: each change of phase, and the figures every few seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._next = 0.0
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def job(self, job: Json) -> None:
        """A line when the phase changed."""
        words = f"{job['phase']}" + (f" ({job['state']})" if job["state"] else "")
        if words != self._phase:
            self._phase = words
            errors.print(words, markup=False)

    def last(self, last: Json) -> None:
        """A line, but not more often than every few seconds."""
        rate, loss, accuracy = (number(last.get(key)) for key in ("samples_per_s", "loss", "accuracy"))
        steps = f"{last.get('step') or 0}/{last.get('steps') or '?'}"
        line = f"step {steps}  {rate} samples/s  loss {loss}  accuracy {accuracy}"
        finished = last.get("step") is not None and last.get("step") == last.get("steps")
        if last.get("step") and line != self._line and (finished or time.monotonic() >= self._next):
            self._line, self._next = line, time.monotonic() + PLAIN_EVERY_SECONDS
            errors.print(line, markup=False)


def watch(api: Api, job_id: str) -> Json:
    """Shows a job until its phase is final and returns it; a service that is away for a while is waited for.

    Where the service is away just after it told of the end, what is returned is without the spec.
    """
    ended: Json = {}
    with BarView() if errors.is_terminal else PlainView() as view:
        for event, data in stream.events(api, job_id):
            if event in {"job", "end"}:
                view.job(data)
                view.last(data["last"])
            elif event == "metrics":
                view.last(data["last"])
            if event == "end":
                ended = data
    try:
        return api.get(f"/jobs/{job_id}")
    except NoServiceError:
        return ended
    except ProblemError as error:
        if not error.passing:
            raise
        return ended


def outcome(job: Json) -> Exit:
    """The exit code of a command that waited for this job, after a last line that says how it ended."""
    last = job["last"]
    figures = (
        f"{number(last['samples_per_s'])} samples/s, loss {number(last['loss'])}, accuracy {number(last['accuracy'])}"
    )
    console.print(f"{job['name']} {job['id']} ", phase(job), f": {figures}", sep="", soft_wrap=True)
    if job["phase"] == "ended well":
        return Exit.WELL
    if job["reason"]:
        errors.print(str(job["reason"]), markup=False)
    if job["nodes"]:  # else nothing has run, and nothing has written to a log
        errors.print(f"its log: lockstep logs {job['id']}", markup=False, soft_wrap=True)
    return Exit.BADLY
