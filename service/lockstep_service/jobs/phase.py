"""From what is known of a job to its phase: one table of Slurm's words, and the few rules around it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lockstep_service.jobs.schemas import Phase
from lockstep_service.jobs.waiting import in_words
from lockstep_slurm.job.rundir import STOPPED, Exit, Start

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
HEARD = "Slurm has no word of it any more, but its ranks still report: it runs"
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
    state: str,
    flags: tuple[str, ...],
    told: str | None,
    ended: Exit | Start | None,
    *,
    grace_over: bool,
    failed_nodes: tuple[str, ...] = (),
) -> Outcome:
    """What Slurm's ``state`` and ``flags`` mean, with ``told`` (Slurm's reason) and how it ``ended`` by its own words.

    Those are the newest attempt's exit record or, where the script ended before there was a rank, what it said.
    ``grace_over``: whether an exit record, if there is to be one, would be there by now. ``failed_nodes``: those of the
    job's nodes that Slurm says are down, each with its word for it.
    """
    exit_ = ended if isinstance(ended, Exit) else None
    phase = PHASES.get(state, "unknown")
    if phase == "unknown":
        return Outcome("unknown", f"Slurm says {state}, a state that Lockstep does not know")
    if phase not in ENDED:
        # Slurm may wait for minutes for a node that it cannot reach, when the training has long ended.
        return Outcome(phase, _waiting(told, exit_, failed_nodes) if phase == "waiting" else _ending(exit_))
    if not _BACK_IN_THE_QUEUE.isdisjoint(flags):
        return Outcome("waiting", in_words(told) or f"It was put back into the queue after {state}")
    if "COMPLETING" in flags:
        return Outcome("running", _ending(exit_) or "It is ending")
    if state == "NODE_FAIL":
        if not failed_nodes and not grace_over:  # the job may be told of before its node is
            return Outcome("running", _ending(exit_) or "It is ending")
        return Outcome("ended badly", _joined(_node_failure(failed_nodes), _failure(exit_)))
    if phase == "ended badly":
        return _badly(state, ended)
    if isinstance(ended, Exit):
        return by_exit(ended)
    return Outcome("ended badly", NO_EXIT_RECORD) if grace_over else Outcome("running", "It is ending")


def _badly(state: str, ended: Exit | Start | None) -> Outcome:
    if isinstance(ended, Start):
        # A cancel, a time limit or a node's failure in that moment says more than what it made of the script.
        return by_start(ended) if state == "FAILED" else Outcome("ended badly", _WHY[state])
    if ended is not None and ended.code == STOPPED and state != "FAILED":
        # It was to go on: what then became of it, back in the queue, is not what its last attempt says.
        return Outcome("ended badly", _joined(_WHY[state], f"its last attempt: {_failure(ended)}"))
    if state == "OUT_OF_MEMORY":
        # Slurm knows what a rank may not: that the kernel killed something of it for want of memory.
        return Outcome("ended badly", _joined(_WHY[state], _failure(ended)))
    return Outcome("ended badly", _failure(ended) or _WHY[state])


def by_exit(exit_: Exit) -> Outcome:
    """What an exit record alone tells."""
    return Outcome("ended well") if exit_.ok else Outcome("ended badly", _failure(exit_))


def by_start(start: Start) -> Outcome:
    """What a script tells that ended before any rank."""
    return Outcome("ended badly", f"No rank was started. {start.message}")


def _node_failure(nodes: tuple[str, ...]) -> str:
    return f"{_WHY['NODE_FAIL']}: Slurm says {', '.join(nodes)}" if nodes else _WHY["NODE_FAIL"]


def _waiting(told: str | None, last: Exit | None, failed_nodes: tuple[str, ...]) -> str | None:
    """Why it waits; of one that was put back into the queue also why, by ``last``, how its last attempt ended."""
    before = f"its last attempt: {_failure(last)}" if _failure(last) else None
    nodes = f"of the nodes that it had, Slurm says {', '.join(failed_nodes)}" if failed_nodes else None
    return _joined(in_words(told), before, nodes)


def _ending(exit_: Exit | None) -> str | None:
    failure = _failure(exit_)
    return f"It is ending: {failure}" if failure else None


def _joined(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def without_message(reason: str, message: str) -> str:
    """``reason``, as ``outcome`` has it, but for an exit record's ``message``; "" where there is nothing else in it.

    Which rank ended how stays, where that stands behind the message.
    """

    def shorter(found: re.Match[str]) -> str:
        ending, last, where = found["before"].startswith("It"), found["last"] or "", found["where"]
        return "" if ending or where is None else f"{found['before']}{last}{where}"

    where = r"rank \d+ on \S+ ended with (exit code|signal) \d+"
    told = rf"(?P<last>its last attempt: )?{re.escape(message)}( \((?P<where>{where})\))?(?=; |$)"
    return re.sub(rf"(?P<before>^It is ending: |^|; ){told}", shorter, reason, count=1).removeprefix("; ")


def _failure(exit_: Exit | None) -> str | None:
    if exit_ is None or exit_.ok:
        return None
    how = f"signal {exit_.signal}" if exit_.signal is not None else f"exit code {exit_.code}"
    who = f"rank {exit_.rank} on {exit_.node}"
    where = f"{who} ended with {how}"
    if exit_.message and re.match(rf"{re.escape(who)} .*\b{how}\b", exit_.message):
        return exit_.message  # which says it already
    return (
        f"{exit_.message} ({where})" if exit_.message else f"{where[:1].upper()}{where[1:]}; its log has the last words"
    )
