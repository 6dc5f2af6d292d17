"""Following one job to its end: a progress bar for a person, a line now and then for a log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import httpx
from httpx_sse import EventSource
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from lockstep_slurm.cli.api import Api, Json
from lockstep_slurm.cli.home import NoServiceError
from lockstep_slurm.cli.output import Exit, console, errors, number, phase

# How long a service may be away before a person who watches is told so and let go; the job is not touched by it.
PATIENCE_SECONDS = 300.0
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
    """Shows a job until its phase is final and returns it; a service that is away for a while is waited for."""
    with BarView() if errors.is_terminal else PlainView() as view:
        for event, data in _events(api, job_id):
            if event in {"job", "end"}:
                view.job(data)
                view.last(data["last"])
            elif event == "metrics":
                view.last(data["last"])
            if event == "end":
                break
    return api.get(f"/jobs/{job_id}")


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


def _events(api: Api, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The job's events, each once: a stream that is lost is opened again behind the last event that came."""
    last_id: str | None = None
    while True:
        with ExitStack() as stack:
            source = _open(api, f"/jobs/{job_id}/events", last_id, stack)
            try:
                for event in source.iter_sse():
                    last_id = event.id or last_id
                    if not event.data:
                        continue  # a keep-alive that carries an id alone
                    yield event.event, json.loads(event.data)
                    if event.event == "end":
                        return
            except httpx.TransportError as error:
                errors.print(f"the service's stream was lost ({error}); opening it again", markup=False)


def _open(api: Api, path: str, last_id: str | None, stack: ExitStack) -> EventSource:
    """Opens the stream, waiting for a service that is away; raises ``NoServiceError`` when patience ends."""
    try:
        for attempt in Retrying(
            retry=retry_if_exception_type(httpx.TransportError),
            wait=wait_exponential_jitter(initial=0.5, max=10),
            stop=stop_after_delay(PATIENCE_SECONDS),
            reraise=True,
        ):
            with attempt:
                return stack.enter_context(api.events(path, last_id))
    except httpx.TransportError as error:
        raise NoServiceError(
            f"the service at {api.address.url} has not answered for {PATIENCE_SECONDS:.0f} s ({error}); "
            "the job is not touched by that: look again with `lockstep watch`"
        ) from None
    raise AssertionError  # Retrying either returns, or raises the last error
