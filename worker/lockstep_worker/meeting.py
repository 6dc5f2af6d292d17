"""The meeting of the ranks: rank 0 opens the place, every rank finds it and says where it will listen.

Standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import Claim, rendezvous_file
from lockstep_worker.addresses import (
    LOOPBACK,
    Host,
    are_apart,
    chosen_interfaces,
    interface_towards,
    meeting_address,
    this_host,
)
from lockstep_worker.environment import Meeting, clean
from lockstep_worker.errors import MeetingError
from lockstep_worker.listening import Announced
from lockstep_worker.node import read_hosts
from lockstep_worker.ports import bound, kept
from lockstep_worker.processes import Helper
from lockstep_worker.rendezvous import Opening
from lockstep_worker.server import OWN_SCOPE
from lockstep_worker.waiting import until
from lockstep_worker.world import World

ANSWER_PATIENCE = 10.0
"""Seconds for one question to the rendezvous; a busy machine with many jobs takes its time."""
FINDING_PATIENCE = 3.0
"""Seconds for the question what was amiss, by a rank that is about to say how it ended."""
REACH_PATIENCE = 60.0
"""Seconds in which a rank must have reached the rendezvous: it listens before anybody hears of it."""


@dataclass(frozen=True)
class Network:
    """What the site or the spec says of the network: subnets in order of preference, and the range of ports."""

    subnets: tuple[str, ...] = ()
    ports: range | None = None

    def arguments(self) -> list[str]:
        """As ``launch`` reads it."""
        subnets = [word for subnet in self.subnets for word in ("--subnet", subnet)]
        return subnets + ([] if self.ports is None else ["--ports", f"{self.ports[0]}-{self.ports[-1]}"])


ANY_NETWORK = Network()


def parse_subnet(text: str) -> str:
    """``10.1.0.0/16`` as it is. Raises ``ValueError``, which says what is wrong with anything else."""
    if ":" in text:
        raise ValueError(
            f"{text!r} is IPv6; ranks meet by IPv4, since Horovod 0.28.1 asks its rendezvous by nothing else"
        )
    try:
        ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IPv4 network such as 10.1.0.0/16: {error}") from None
    return text


class MeetingPlace:
    """One rank's part in the meeting of an attempt. Rank 0's part holds the rendezvous and a port for torch's store."""

    def __init__(self, run: Path, claim: Claim, world: World, spec: Mapping[str, Any], network: Network) -> None:
        self.rendezvous: Helper | None = None
        self._run = run
        self._claim = claim
        self._world = world
        communication = spec.get("communication", {})
        self._interface: str | None = communication.get("interface")
        own: str | None = communication.get("subnet")
        self._asked_for = own is not None
        self._subnets = (own,) if own is not None else network.subnets
        self._ports = network.ports
        self._kept: socket.socket | None = None
        self._meeting: Meeting | None = None

    def meet(self) -> Meeting:
        """Where all ranks of the attempt meet. Raises ``MeetingError``, which names the node and what to set."""
        if self._world.size == 1:
            self._kept = kept(self._ports)
            return Meeting(LOOPBACK, "lo", self._kept.getsockname()[1])
        if self._world.rank == 0:
            self._open(read_hosts(self._run, self._claim))
        found = until(self._published, lambda: f"{self._who()} saw no rendezvous by rank 0")
        named: Mapping[str, str] = found.get("interfaces") or {}
        interface = named.get(self._world.node) or interface_towards(found["address"])
        self._meeting = Meeting(
            found["address"], interface, int(found["master_port"]), port=int(found["port"]), nonce=found["nonce"]
        )
        self._announce(self._meeting)
        return self._meeting

    def finding(self) -> str | None:
        """What the rendezvous found wrong with the ranks' network, in one sentence; None: nothing, or it is gone."""
        if self._meeting is None:
            return None
        try:
            status, body = _ask(self._meeting, "GET", "finding", patience=FINDING_PATIENCE)
        except (OSError, http.client.HTTPException):
            return None  # rank 0 has ended, and the rendezvous with it
        return body.decode() if status == 200 else None

    def close(self, *, finish: bool) -> None:
        """The end of rank 0's part: with ``finish``, once every rank that came has taken its leave."""
        if self._kept is not None:
            self._kept.close()
        if self.rendezvous is not None:
            self.rendezvous.end(finish=finish)

    def _open(self, hosts: Mapping[str, Host]) -> None:
        """Rank 0's: chooses the address and the ports, and starts the rendezvous, which publishes them."""
        own = self._world.node
        chosen = chosen_interfaces(hosts, interface=self._interface, subnets=self._subnets, required=self._asked_for)
        address = chosen[own].address if chosen is not None else meeting_address(own, hosts)
        self._kept = kept(self._ports)
        local = ipaddress.IPv4Address(address).is_loopback
        opening_for = [found for host in hosts.values() for found in host.interfaces if found.is_loopback == local]
        with bound(address, self._ports) as listening:
            opening = Opening(
                descriptor=listening.fileno(),
                allowed=tuple(sorted({found.address for found in opening_for})),
                tasks_by_node=dict(zip(self._world.nodes, self._world.tasks_per_node)),  # noqa: B905 - 3.9
                apart=are_apart(hosts),
                further={
                    "master_port": self._kept.getsockname()[1],
                    "interfaces": {node: found.name for node, found in (chosen or {}).items()},
                    "slurm_job_id": self._world.slurm_job_id,
                    "local_id": self._world.local_id,
                    "restart_count": self._world.restart_count,
                },
            )
            arguments = ["--run", str(self._run), "--attempt", str(self._claim.attempt)]
            self.rendezvous = Helper(
                "lockstep_worker.rendezvous",
                arguments,
                clean(os.environ),
                stdout=subprocess.DEVNULL,
                descriptors=[listening.fileno()],
            )
        self.rendezvous.tell(opening.line())

    def _published(self) -> Mapping[str, Any] | None:
        if self.rendezvous is not None:
            self.rendezvous.check()
        path = rendezvous_file(self._run, self._claim.attempt)
        # A listing, because a network file system caches that a name is absent.
        if path.name not in os.listdir(path.parent):  # noqa: PTH208
            return None
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    def _announce(self, meeting: Meeting) -> None:
        """Tells the rendezvous the interface of this rank, and so proves that it can be reached from here."""
        own = this_host()
        addresses = [found.address for found in own.interfaces if found.name == meeting.interface]
        if not addresses or (_only_local(addresses) and not _only_local([meeting.address])):
            raise MeetingError(
                f"{self._who()} would use interface {meeting.interface}, at which the other nodes cannot reach it "
                f"(it has {own.describe()}); set communication.subnet to a network that every node is in"
            )
        body = json.dumps(Announced(self._world.node, meeting.interface, frozenset(addresses)).document()).encode()
        last = ""

        def told() -> bool | None:
            nonlocal last
            try:
                status, _ = _ask(meeting, "PUT", str(self._world.rank), body)
            except (OSError, http.client.HTTPException) as error:
                last = str(error) or type(error).__name__
                return None
            if status == 403:
                raise MeetingError(
                    f"the rendezvous of rank 0 at {meeting.address} refuses {self._who()} (it has {own.describe()}): "
                    f"it connects from an address that is not its own, such as one that a router put in its place; "
                    f"set communication.subnet to a network that every node is in"
                )
            last = f"it answered {status}"
            return True if status == 200 else None

        until(
            told,
            lambda: (
                f"{self._who()} (it has {own.describe()}) could not reach the rendezvous of rank 0 at "
                f"{meeting.address} port {meeting.port} ({last}); set communication.subnet to a network that every "
                f"node is in, or open the site's range of ports between the nodes; it was tried"
            ),
            REACH_PATIENCE,
        )

    def _who(self) -> str:
        return f"rank {self._world.rank} on {self._world.node}"


def _only_local(addresses: list[str]) -> bool:
    """Whether these are addresses that only this machine can reach."""
    return all(ipaddress.IPv4Address(address).is_loopback for address in addresses)


def _ask(
    meeting: Meeting, method: str, key: str, body: bytes | None = None, patience: float = ANSWER_PATIENCE
) -> tuple[int, bytes]:
    """One request to the rendezvous in the wrappers' own scope: status and body."""
    with contextlib.closing(http.client.HTTPConnection(meeting.address, meeting.port, timeout=patience)) as connection:
        connection.request(method, f"/{meeting.nonce}:{meeting.port}/{OWN_SCOPE}/{key}", body)
        response = connection.getresponse()
        return response.status, response.read()
