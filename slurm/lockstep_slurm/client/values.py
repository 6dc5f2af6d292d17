"""Slurm's way of writing states, times, exit codes and host lists, as Python values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetParseError

from lockstep_slurm.client.protocol import SlurmUnavailableError

JOB_ENDS = frozenset(
    {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}
)
"""Base states that a job does not leave by itself."""
# squeue and sacct print one word, and a flag hides the base state (22.05). These flags exist with one base only
# (man squeue, JOB STATE CODES; slurm.h) ...
_BASE_UNDER = {
    "CONFIGURING": "RUNNING",
    "POWER_UP_NODE": "RUNNING",
    "RESIZING": "RUNNING",
    "SIGNALING": "RUNNING",
    "STOPPED": "RUNNING",
    "REQUEUED": "PENDING",
    "REQUEUE_FED": "PENDING",
    "REQUEUE_HOLD": "PENDING",
    "RESV_DEL_HOLD": "PENDING",
    "SPECIAL_EXIT": "PENDING",
}
# ... and these with several.
_OVER_ANY = frozenset(
    {"COMPLETING", "EXPEDITING", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED", "STAGE_OUT", "UPDATE_DB"}
)
JOB_FLAGS = _OVER_ANY | set(_BASE_UNDER)
_NOTHING = frozenset({"", "(null)", "N/A", "None", "NONE", "Unknown", "unknown", "n/a", "n/s"})
# node_state_string's suffix in sinfo and in older scontrol (man sinfo, NODE STATE CODES).
_NODE_MARKS = {
    "*": "NOT_RESPONDING",
    "~": "POWERED_DOWN",
    "#": "POWERING_UP",
    "!": "POWER_DOWN",
    "%": "POWERING_DOWN",
    "$": "MAINTENANCE",
    "@": "REBOOT_REQUESTED",
    "^": "REBOOT_ISSUED",
    "-": "PLANNED",
}


@lru_cache(maxsize=256)
def job_state(text: str) -> tuple[str, tuple[str, ...]]:
    """A job's base state and flags from Slurm's word or words.

    Where only a flag is printed whose base may be one of several, the flag's word is also the state: what Slurm
    said is kept, nothing is guessed. A word of neither list is a state, verbatim.
    """
    found = [word for word in re.split(r"[+,\s]+", text.partition(" by ")[0].strip()) if word]
    flags = tuple(word for word in found if word in JOB_FLAGS)
    bases = [word for word in found if word not in JOB_FLAGS]
    if bases:
        return bases[0], flags + tuple(bases[1:])
    if flags:
        return _BASE_UNDER.get(flags[0], flags[0]), flags
    return "", ()


def has_ended(state: str) -> bool:
    """Whether end time and exit code are those of an end: before it squeue prints the limit's end and 0.

    COMPLETING is none, for a requeued job is that too.
    """
    return state in JOB_ENDS


def node_state(text: str) -> tuple[str, tuple[str, ...]]:
    """A node's base state and flags from ``IDLE+DRAIN`` or ``DOWN*``."""
    base, *flags = text.strip().split("+")
    while base and base[-1] in _NODE_MARKS:
        flags.append(_NODE_MARKS[base[-1]])
        base = base[:-1]
    return base, tuple(dict.fromkeys(flags))


def epoch(text: str) -> datetime | None:
    """A time that Slurm printed with ``SLURM_TIME_FORMAT=%s``."""
    text = text.strip()
    if text in _NOTHING:
        return None
    if not text.isdigit():
        raise unreadable(f"the time {text!r}")
    return datetime.fromtimestamp(int(text), UTC) if int(text) else None


def local_time(text: str) -> datetime | None:
    """A time without a zone, as the controller writes it into a completion file: its zone is taken for this machine's.

    In the hour that a clock change repeats, it is the earlier one.
    """
    if text.strip() in _NOTHING:
        return None
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except ValueError as error:
        raise unreadable(f"the time {text!r}") from error


def wait_status(text: str) -> tuple[int | None, int | None]:
    """Exit code and signal from the wait status that ``squeue`` prints; the code is None where a signal ended it."""
    if ":" in text:
        return code_and_signal(text)
    if not text.strip().isdigit():
        raise unreadable(f"the exit status {text!r}")
    status = int(text)
    return ((status >> 8) & 0xFF, None) if not status & 0x7F else (None, status & 0x7F)


def code_and_signal(text: str) -> tuple[int | None, int | None]:
    """Exit code and signal from Slurm's ``code:signal``; the code is None where a signal ended it."""
    code, _, number = text.strip().partition(":")
    if not code.isdigit() or (number and not number.isdigit()):
        raise unreadable(f"the exit code {text!r}")
    return (None, int(number)) if number and int(number) else (int(code), None)


@lru_cache(maxsize=4096)
def host_names(text: str) -> tuple[str, ...]:
    """``node[1-2]`` as names; an empty or ``(null)`` list is none."""
    text = text.strip()
    if text in _NOTHING or text == "None assigned":
        return ()
    try:
        # Without the resolver a name could mean a group of the machine's own ClusterShell settings.
        return tuple(NodeSet(text, resolver=RESOLVER_NOGROUP))
    except NodeSetParseError as error:
        raise unreadable(f"the host list {text!r}: {error}") from error


def seconds(text: str) -> int | None:
    """A time of ``scontrol show config``, such as ``30 sec`` or ``5 min``; None where it is none."""
    found = re.fullmatch(r"(\d+)(?: (sec|min)\w*)?", text.strip())
    return int(found[1]) * (60 if found[2] == "min" else 1) if found else None


def words_or_none(text: str) -> str | None:
    """Free text, or None where Slurm says that there is none."""
    return None if text.strip() in _NOTHING else text.strip()


def unreadable(what: str) -> SlurmUnavailableError:
    """An answer that this build cannot read tells nothing about any job: no answer was had."""
    return SlurmUnavailableError(f"Slurm's answer could not be read: {what}; is this version of Slurm supported?")
