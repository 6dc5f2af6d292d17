"""What can be wrong with a checkpoint, or with what is asked of one."""

from __future__ import annotations

from lockstep_worker.errors import WorkerError


class CheckpointError(WorkerError):
    """A checkpoint that cannot be read, or a state that cannot be saved or put back; the message says what and why."""

    code = 74  # EX_IOERR
