"""The spec's ``checkpoint`` section: when a training is saved, what stays, and when it is told that its time ends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from lockstep_slurm.job.fields import AbsolutePath, Section

_MARGIN = 30
"""Seconds by which Slurm is early or late with a limit and with the signal before it (man sbatch, 22.05)."""


def _which(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """One sentence for a value that is none of the three, in place of one for each."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(f'{value!r} is neither "last" nor "best" nor a step, a whole number from 1 on') from None


class Checkpoint(Section):
    """With it, even empty, a built-in recipe saves and resumes, and Slurm tells a job some time before its limit."""

    every_steps: int | None = Field(None, ge=1, description="Saved behind each so many steps")
    every_minutes: float | None = Field(
        None,
        gt=0,
        le=100_000,
        allow_inf_nan=False,
        description="And so long after the last time; 10 where neither is said",
    )
    keep: int = Field(2, ge=1, le=10_000, description="The newest so many checkpoints are kept")
    best: bool = Field(True, description="And the one whose evaluation was the best")  # noqa: FBT003
    signal_seconds: int = Field(
        120,
        ge=1,
        le=65_535,
        description="So long before its time limit, give or take 30 s, a job is told to save and to go back into the "
        "queue: three steps and one save have to fit",
    )
    resume_from: AbsolutePath | None = Field(
        None,
        description="Where another job's checkpoints are, from which this one goes on: its run directory, their folder "
        "or one file",
    )
    resume_step: Annotated[
        Literal["last", "best"] | Annotated[int, Field(ge=1, strict=True)] | None, WrapValidator(_which)
    ] = Field(None, description="Which of them: the last (the default), that of the best evaluation, or that of a step")

    @model_validator(mode="after")
    def _a_step_is_of_something(self) -> Checkpoint:
        if self.resume_step is not None and self.resume_from is None:
            raise ValueError("resume_step is set without resume_from; say where that checkpoint is")
        return self


def seconds_of(limit: str) -> int:
    """The seconds of a time limit in one of sbatch's forms, which ``forms.TIME_LIMIT`` has checked."""
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return int(days) * 86_400 + hours * 3600 + minutes * 60 + seconds
    if len(parts) == 3:
        return parts[0] * 3600 + parts[1] * 60 + parts[2]
    return parts[0] * 60 + sum(parts[1:])


def too_short(limit: str, signal_seconds: int, whose: str = "") -> str | None:
    """Why a job of this limit would be told to stop before it has come to anything; None: it would not.

    A sentence without its subject, resources.time; ``whose`` tells where a limit comes from that no spec says.
    """
    seconds = seconds_of(limit)
    if seconds == 0 or seconds > signal_seconds + 2 * _MARGIN:
        return None
    return (
        f"is {limit} ({seconds} s){whose and f', {whose}'}, and checkpoint.signal_seconds is {signal_seconds}: the job "
        f"would be told to stop as soon as it starts; ask for more than {signal_seconds + 2 * _MARGIN} s, or for a "
        "later signal"
    )
