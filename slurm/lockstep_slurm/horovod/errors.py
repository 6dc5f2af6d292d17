"""The error of a build: each says what is missing or broke, where, and what to do."""

from __future__ import annotations

from lockstep_slurm.errors import InputError, LockstepError


class WheelError(LockstepError):
    """Horovod's wheel could not be built or installed; the message has the cure or the log's last lines."""


class WheelInputError(WheelError, InputError):
    """What was named to build for, or from, is not there, or is something else."""
