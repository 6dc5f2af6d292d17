"""From what is known of a job to its phase: one table of Slurm's words, and the few rules around it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lockstep_service.jobs.schemas import Phase
from lockstep_slurm.job.rundir import Exit

# Slurm's base states (man squeue, "JOB STATE CODES", 22.05 to 25.11) and those flags that some clients show as states.
PHASES: Final[dict[str, Phase]] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "REQUEUE_FED": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "POWER_UP_NODE": "waiting",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "RESIZING": "running",
    "COMPLETED": "ended well",
    "FAILED": "ended badly",
    "CANCELLED": "ended badly",
    "TIMEOUT": "ended badly",
    "NODE_FAIL": "ended badly",
    "OUT_OF_MEMORY": "ended badly",
    "PREEMPTED": "ended badly",
    "BOOT_FAIL": "ended badly",
    "DEADLINE": "ended badly",
    "LAUNCH_FAILED": "ended badly",
}
ENDED: Final = frozenset({"ended well", "ended badly"})
_BACK_IN_THE_QUEUE = frozenset({"REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_WHY = {
    "FAILED": "Slurm says FAILED: the script or a rank ended with an error; its log has the last words",
    "CANCELLED": "It was cancelled",
    "TIMEOUT": "It reached its time limit; ask for more by resources.time",
    "NODE_FAIL": "A node failed under it",
    "OUT_OF_MEMORY": "It needed more memory than it was given; ask for more by resources.mem",
    "PREEMPTED": "It was preempted by a job of higher priority",
    "BOOT_FAIL": "A node did not boot",
    "DEADLINE": "It could not end before its deadline",
    "LAUNCH_FAILED": "Slurm could not launch it on its nodes",
}
NO_EXIT_RECORD = (
    "Slurm says COMPLETED, but no rank left an exit record: the training did not run to its end; its log may say why"
)
GONE = (
    "Slurm has no word of it any more, and it left no exit record: how it ended is not known; cancel it to put it away"
)
GONE_BY_HAND = "It left no exit record, and no process of it is known here; where it still runs, import it again later"
GIVEN_UP = "It was cancelled when Slurm had no word of it any more; how it ended is not known"


@dataclass(frozen=True)
class Outcome:
    """A phase, and the plain sentence that goes with it where there is one."""

    phase: Phase
    reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether this is evidence of the end."""
        return self.phase in ENDED


def outcome(  # noqa: PLR0911 - one return a rule
    state: str, flags: tuple[str, ...], told: str | None, exit_: Exit | None, *, grace_over: bool
) -> Outcome:
    """What Slurm's ``state`` and ``flags`` mean, with ``told`` (Slurm's reason) and the newest attempt's exit record.

    ``grace_over``: whether an exit record, if there is to be one, would be there by now.
    """
    phase = PHASES.get(state, "unknown")
    if phase == "unknown":
        return Outcome("unknown", f"Slurm says {state}, a state that Lockstep does not know")
    if phase not in ENDED:
        return Outcome(phase, told if phase == "waiting" else None)
    if not _BACK_IN_THE_QUEUE.isdisjoint(flags):
        return Outcome("waiting", told or f"It was put back into the queue after {state}")
    if "COMPLETING" in flags:
        return Outcome("running", "It is ending")
    if phase == "ended badly":
        return Outcome("ended badly", _failure(exit_) or _WHY[state])
    if exit_ is not None:
        return by_exit(exit_)
    return Outcome("ended badly", NO_EXIT_RECORD) if grace_over else Outcome("running", "It is ending")


def by_exit(exit_: Exit) -> Outcome:
    """What an exit record alone tells."""
    return Outcome("ended well") if exit_.ok else Outcome("ended badly", _failure(exit_))


def _failure(exit_: Exit | None) -> str | None:
    if exit_ is None or exit_.ok:
        return None
    how = f"signal {exit_.signal}" if exit_.signal is not None else f"exit code {exit_.code}"
    where = f"rank {exit_.rank} on {exit_.node} ended with {how}"
    return (
        f"{exit_.message} ({where})" if exit_.message else f"{where[:1].upper()}{where[1:]}; its log has the last words"
    )
