"""Processes of this machine, told apart for ever by boot, pid and start time (/proc; standard library only)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """One process. A pid is reused; a pid with its start time (clock ticks since that boot) is not."""

    boot: str
    pid: int
    start: int


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says (man 5 proc)."""

    pid: int
    state: str
    parent: int
    session: int
    start: int


def boot_id() -> str:
    """This boot of this machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stat(pid: int) -> Stat | None:
    """The process's line, or None if there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, and may itself hold blanks and parentheses.
    field = text.rpartition(")")[2].split()
    return Stat(pid=pid, state=field[0], parent=int(field[1]), session=int(field[3]), start=int(field[19]))


def everything() -> Iterator[Stat]:
    """Every process that is there."""
    for entry in os.listdir(_PROC):  # noqa: PTH208 - only the names are wanted, and this is asked often
        if entry.isdigit() and (found := stat(int(entry))) is not None:
            yield found


def identify(pid: int) -> Identity | None:
    """The identity of the process that has this pid now."""
    found = stat(pid)
    return None if found is None else Identity(boot_id(), pid, found.start)


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs; a zombie does not."""
    found = stat(identity.pid)
    return (
        found is not None and found.start == identity.start and found.state not in "ZX" and boot_id() == identity.boot
    )


def members(leader: Identity) -> list[int]:
    """The pids of the session that this process leads or led.

    The kernel gives no new process the number of a session that still has members, so as long as there are some they
    are its own, unless the session had ended and its number was taken again: then its leader is there and younger.
    """
    if boot_id() != leader.boot:
        return []
    taken = stat(leader.pid)
    if taken is not None and taken.start != leader.start:
        return []
    return [one.pid for one in everything() if one.session == leader.pid and one.state not in "ZX"]


def descendants(root: int) -> list[int]:
    """The pids of all processes below this one, zombies left out."""
    children: dict[int, list[Stat]] = {}
    for one in everything():
        children.setdefault(one.parent, []).append(one)
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child.pid)
            if child.state not in "ZX":
                found.append(child.pid)
    return found


def send(identity: Identity, number: signal.Signals) -> bool:
    """Sends a signal to that very process; False if it has gone. A pid taken by another since is never hit."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is of whoever has the pid now: only if that is ours does the signal go out, and to nobody else.
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def send_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Sends a signal to processes just listed; those that have gone since are left out."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
