"""The errors of the worker: each says what was wrong on this node, and what to do."""

from __future__ import annotations

from lockstep_slurm.errors import LockstepError


class WorkerError(LockstepError):
    """The base of everything that stops a rank before or beside its training; ``code`` is the exit code it leads to."""

    code = 70  # EX_SOFTWARE


class WorldError(WorkerError):
    """The launcher's variables do not say which rank this is."""

    code = 64  # EX_USAGE


class DuplicateError(WorkerError):
    """Another execution of the job has claimed it: nothing is trained, and no exit record is written."""

    code = 75  # EX_TEMPFAIL


class FencedError(WorkerError):
    """A newer attempt exists: this one writes nothing more."""

    code = 75


class MeetingError(WorkerError):
    """The ranks did not find each other within the time they have."""

    code = 69  # EX_UNAVAILABLE


class LinkError(WorkerError):
    """A node's link to the others is cut, or how long it may be is not said properly."""

    code = 69


class MismatchError(WorkerError):
    """Threads do not sit as planned, and the spec says that the training has to end by that (placement.on_mismatch)."""

    code = 71  # EX_OSERR


class DataError(WorkerError):
    """The data of a training are not there, are not what the spec says of them, or cannot be read."""

    code = 66  # EX_NOINPUT


class LossError(WorkerError):
    """The loss is no finite number, so the training comes to nothing."""

    code = 65  # EX_DATAERR


class HangError(WorkerError):
    """A rank came to no step for so long that the watchdog has ended it."""

    code = 124  # what timeout(1) ends with


class LoaderError(WorkerError):
    """A process that loads data has ended by itself."""


class ModelError(WorkerError):
    """The user's own model is not there, or is none."""

    code = 78  # EX_CONFIG
