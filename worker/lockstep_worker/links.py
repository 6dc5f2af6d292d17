"""Which link is cut: what a node that has lost another one concludes, and how its ranks hear of it.

The watch itself is ``linkwatch``, a process beside each node's local rank 0 (docs/decisions/0005).
Standard library only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.job.rundir import Claim
from lockstep_slurm.job.writing import write_whole
from lockstep_worker.addresses import interfaces, source_towards
from lockstep_worker.environment import Meeting
from lockstep_worker.errors import LinkError, MeetingError
from lockstep_worker.ports import bound
from lockstep_worker.processes import Helper
from lockstep_worker.world import World

PATIENCE = 60.0
"""Seconds of silence after which a node is given up: well above a plug pulled and put back (after 10 s without a link
TCP goes on within another 3), below what Horovod (300 s) and Slurm (SlurmdTimeout, 300 s by default) need for it."""
PATIENCE_VARIABLE = "LOCKSTEP_LINK_PATIENCE"
LOST = signal.SIGUSR2
"""What the watch sends to the node's wrappers once it has left word in the node's folder."""
NAMED = 3
"""So many nodes are named in one sentence; of more, the number is told."""


@dataclass(frozen=True)
class End:
    """One end of a link, as the node itself told it."""

    node: str
    interface: str
    address: str

    @property
    def link(self) -> str:
        """``h2fab0, 10.1.2.2``."""
        return f"{self.interface}, {self.address}"


@dataclass(frozen=True)
class Facts:
    """What a node knows when another one has been silent for too long; None is what could not be found out."""

    own: End
    silent: tuple[End, ...]
    heard: tuple[str, ...]
    """Nodes that are heard all the same."""
    patience: float
    carrier: bool = True
    gateway: str | None = None
    """The gateway that the own interface leads to, where there is one."""
    gateway_answers: bool | None = None
    controller_answers: bool | None = None
    """Slurm's controller: a network of its own may lead to it, so that it counts only where nothing else is known."""


def conclusion(facts: Facts) -> str:
    """One sentence that names the node whose link it is, as far as that can be known from here."""
    own, seconds = facts.own, f"{facts.patience:g} s"
    if not facts.carrier:
        return (
            f"node {own.node} is cut off: its link ({own.link}) has no carrier, "
            f"and no other node was heard for {seconds}"
        )
    reached = True if facts.heard else facts.gateway_answers
    if reached is False:
        return (
            f"node {own.node} is cut off: through its link ({own.link}) no other node was heard for {seconds}, "
            f"and its gateway {facts.gateway} does not answer either"
        )
    if reached is None and facts.controller_answers is False:
        return (
            f"node {own.node} is cut off: through its link ({own.link}) no other node was heard for {seconds}, "
            f"and Slurm's controller does not answer either"
        )
    if reached is None and facts.controller_answers is None and len(facts.silent) == 1:
        (other,) = facts.silent
        return (
            f"nodes {own.node} and {other.node} have not heard from each other for {seconds}; the link of {own.node} "
            f"({own.link}), that of {other.node} ({other.link}) or one of the nodes is down"
        )
    if len(facts.silent) == 1:
        (other,) = facts.silent
        return (
            f"node {other.node} has not been heard from by {own.node} for {seconds}; "
            f"its link ({other.link}) or the node is down"
        )
    named = ", ".join(f"{end.node} ({end.link})" for end in facts.silent[:NAMED])
    more = f" and {len(facts.silent) - NAMED} more" if len(facts.silent) > NAMED else ""
    return (
        f"nodes {named}{more} have not been heard from by {own.node} for {seconds}; their links or the nodes are down"
    )


def patience(environment: Mapping[str, str]) -> float:
    """Seconds, as the environment says them, else ``PATIENCE``; 0 for no watch. Raises ``LinkError`` for nonsense."""
    said = environment.get(PATIENCE_VARIABLE)
    if said is None:
        return PATIENCE
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not (seconds == 0 or 12 <= seconds <= 86_400):
        raise LinkError(
            f"{PATIENCE_VARIABLE} is {said!r}: it is the seconds for which a node may be silent, from 12 to 86400, "
            f"or 0 for no watch"
        )
    return seconds


def start(
    run: Path, claim: Claim, world: World, folder: Path, *, meeting: Meeting, ports: range | None
) -> Helper | None:
    """Starts the node's watch; None where there is nothing to watch: one node, one machine, or it was not wanted.

    One that cannot listen, since the site's range of ports is used up, is said and done without: the training goes on.
    """
    seconds = patience(os.environ)
    if world.local_rank != 0 or len(world.nodes) == 1 or seconds == 0:
        return None
    try:
        address = _own_address(meeting)
        if address is None or ipaddress.IPv4Address(address).is_loopback:
            return None
        arguments = [
            *("--run", str(run), "--attempt", str(claim.attempt), "--folder", str(folder)),
            *("--patience", f"{seconds:g}", "--nodes", ",".join(world.nodes), "--index", str(world.node_index)),
            *("--interface", meeting.interface, "--address", address),
        ]
        with bound(address, ports) as listening:
            arguments += ["--descriptor", str(listening.fileno())]
            # With Slurm's variables, since it may have to ask whether the controller answers.
            return Helper("lockstep_worker.linkwatch", arguments, os.environ, subprocess.DEVNULL, [listening.fileno()])
    except (MeetingError, OSError) as error:
        print(f"lockstep: nobody watches the link of {world.node}: {error}", file=sys.stderr, flush=True)
        return None


def _own_address(meeting: Meeting) -> str | None:
    """The address of this node's interface; of several, the one from which rank 0 is reached."""
    own = [found.address for found in interfaces() if found.name == meeting.interface]
    source = source_towards(meeting.address)
    return source if source in own else next(iter(own), None)


def leave_word(folder: Path, sentence: str) -> None:
    """The watch's: tells the wrappers of all ranks of this node, which then end their trainings."""
    write_whole(_word(folder), sentence)
    for pid in _wrappers(folder):
        try:
            os.kill(pid, LOST)
        except (ProcessLookupError, PermissionError) as error:
            # It has ended already, and its id may be another's by now.
            print(f"lockstep: process {pid}, a rank of this node, was not told: {error}", file=sys.stderr, flush=True)


def word(folder: Path) -> str | None:
    """What the node's watch left, or None: then a signal came from somebody else."""
    try:
        return _word(folder).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def end_step(run: Path, world: World) -> None:
    """Asks the step's ``srun`` to end, where it runs on this node; the last thing that a node's local rank 0 does.

    With --kill-on-bad-exit it has asked for the end of every task, but waits without limit for those of a node that it
    cannot reach (22.05), and the job with it. On SIGTERM it gives them KillWait + 2 s.
    """
    if world.node_index != 0 or world.local_rank != 0:
        return
    for pid in _sruns(run):
        try:
            os.kill(pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError) as error:
            print(f"lockstep: srun ({pid}) was not asked to end: {error}", file=sys.stderr, flush=True)


def _sruns(run: Path) -> Sequence[int]:
    """The process ids of this run's ``srun``; the second process that each starts is left to its first."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if (entry / "comm").read_bytes() == b"srun\n" and os.fsencode(run) in (entry / "cmdline").read_bytes():
                # Behind the command's name in parentheses: state, parent.
                found[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            continue  # it has ended
    return [pid for pid, parent in found.items() if parent not in found]


def _word(folder: Path) -> Path:
    return folder / "link"


def _wrappers(folder: Path) -> Sequence[int]:
    """The process ids of the node's rank wrappers, each of which is in its rank's file."""
    found = []
    for path in folder.glob("*.json"):
        try:
            found.append(int(json.loads(path.read_text(encoding="utf-8"))["pid"]))
        except FileNotFoundError:
            continue  # this rank is just leaving
    return found
