"""Why a training ended, in the plain sentences that its page has (docs/what-went-wrong.md).

Pure; standard library only. ``who`` is a rank as ``rank 3 on h2``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.rundir import one_line

_LONGEST = 600
"""Characters of an exception's text."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE)
_NO_MEMORY = ("can't allocate memory", "not enough memory", os.strerror(errno.ENOMEM))
"""What torch (2.13) says in a RuntimeError where the kernel gave it no memory, and what the kernel calls that."""


@dataclass(frozen=True)
class Words:
    """Why a training ended, by its own process."""

    kind: str
    """The exception's class."""
    text: str
    number: int | None = None
    """Of ``errno``, where that says why."""
    file: str | None = None
    ours: bool = False
    """Whether the text is a whole sentence of Lockstep's."""

    @classmethod
    def of(cls, error: BaseException) -> Words:
        """Of an exception that ended a training, or of what it was raised from, where that says more."""
        seen: list[BaseException] = []
        one: BaseException | None = error
        while one is not None and one not in seen:
            number = _number(one)
            if number is not None or isinstance(one, LockstepError):
                file = one.filename if isinstance(one, OSError) else None
                return cls(
                    type(one).__name__,
                    one_line(str(one)[:_LONGEST]),
                    number,
                    one_line(os.fsdecode(file)) if isinstance(file, (str, bytes)) else None,
                    isinstance(one, LockstepError),
                )
            seen.append(one)
            one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        return cls(type(error).__name__, one_line(str(error)[:_LONGEST]))

    @classmethod
    def parse(cls, document: Mapping[str, object]) -> Words:
        """From what ``document()`` made."""
        return cls(**{name: document[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def document(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)

    @property
    def knows_why(self) -> bool:
        """Whether this is a cause: what is merely raised may be how another rank's end is noticed."""
        return self.ours or self.number is not None

    def sentence(self, who: str) -> str:
        """What the exit record says."""
        if self.number == errno.ENOMEM:
            return no_memory(who, self.text)
        if self.number is not None:
            return no_disk(who, self.number, self.file, self.text)
        if self.ours:
            return self.text if self.text.startswith("rank ") else f"{who}: {self.text}"
        return f"{self.kind}: {self.text}" if self.text else self.kind


def _number(error: BaseException) -> int | None:
    """The ``errno`` that an exception stands for, of those that a person can do something about."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno in (errno.ENOMEM, *_DISK):
        return error.errno
    text = str(error)
    if any(words in text for words in _NO_MEMORY):
        return errno.ENOMEM
    # What a library makes of the kernel's answer keeps its words at least.
    return next((number for number in _DISK if os.strerror(number) in text), None)


def no_memory(who: str, text: str) -> str:
    """The kernel, or a limit, refused memory that the training asked for."""
    said = f" ({text})" if text else ""
    return f"{who} was given no more memory{said}; {_MORE_MEMORY}"


def killed_for_memory(who: str, limit: int | None) -> str:
    """The kernel killed it since its cgroup had used up what it may have, ``limit`` bytes."""
    of = "" if limit is None else f" of {limit / (1 << 30):.2f} GiB"
    return f"{who} was killed by the kernel, since the memory{of} that it was given was used up; {_MORE_MEMORY}"


def maybe_killed_for_memory(who: str, node: str) -> str:
    """It was killed, and the kernel of its node killed somebody since the node had no memory left."""
    return (
        f"{who} was ended by signal 9 (SIGKILL), and meanwhile {node} had no memory left and its kernel killed for it; "
        "ask for as much as is needed (resources.mem), or for whole nodes (resources.exclusive)"
    )


_MORE_MEMORY = "ask for more by resources.mem, or take a smaller batch_size or a larger accumulate"


def no_disk(who: str, number: int, file: str | None, text: str = "") -> str:
    """A disk is full, a quota used up, or a mount stale; ``file`` is what could not be written or read."""
    where = f"write {file}" if file else f"go on ({text})"
    if number == errno.ESTALE:
        where = f"use {file}" if file else where
        return (
            f"{who} could not {where}: "
            "its mount is stale: the file server does not know it any more; it has to be mounted anew there"
        )
    if number == errno.EDQUOT:
        return f"{who} could not {where}: the quota is used up; remove something, or ask for a larger one"
    return f"{who} could not {where}: the disk is full; make room there"


def bad_loss(loss: float, step: int) -> str:
    """A loss that is no finite number."""
    return f"the loss of step {step} is {loss}"


def hung(who: str, *, step: int, seconds: float, where: str, others_wait: bool, saved: int | None) -> str:
    """A rank that does not come to the end of its step, and was ended for it."""
    what = ", and the others wait for it" if others_wait else ""
    at = f", in {where}" if where else ""
    kept = "nothing was saved" if saved is None else f"the newest checkpoint is of step {saved}"
    return (
        f"{who} has hung: no rank has finished a step for {_long(seconds)}{what} in step {step}{at}; "
        f"its stacks are in the log; {kept}"
    )


def goes_on(who: str, state: str, where: str, seconds: float) -> str:
    """No rank finishes a step, and that is no hang."""
    at = f", in {where}" if where else ""
    return f"no rank has finished a step for {_long(seconds)}: {who} {state}{at}; the job goes on"


def _long(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
