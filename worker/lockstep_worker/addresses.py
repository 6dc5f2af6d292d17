"""This node's addresses, and those by which the nodes of a job reach each other (standard library only).

IPv4 alone: the client of Horovod 0.28.1 that asks the rendezvous asks for IPv4 and nothing else.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep_worker.errors import MeetingError

LOOPBACK = "127.0.0.1"
# linux/sockios.h
_SIOCGIFCONF = 0x8912
_SIOCGIFFLAGS = 0x8913
_SIOCGIFNETMASK = 0x891B
_IFF_UP = 1
_IFREQ = 40 if struct.calcsize("P") == 8 else 32
"""Bytes of one answer of SIOCGIFCONF: 16 of a name, then a union as large as its largest member, struct ifmap."""


@dataclass(frozen=True)
class Interface:
    """One address of a network interface, in ``address/prefix`` form; an interface may have several."""

    name: str
    network: str

    @property
    def address(self) -> str:
        """The address alone."""
        return self.network.partition("/")[0]

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.IPv4Address(self.address).is_loopback


@dataclass(frozen=True)
class Host:
    """What a node tells the others of itself: nodes with the same ``machine`` are one machine and one network."""

    machine: str
    interfaces: tuple[Interface, ...]

    def document(self) -> dict[str, Any]:
        """As the node's placement file carries it."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Host:
        """From a placement file."""
        return cls(document["machine"], tuple(Interface(**found) for found in document["interfaces"]))

    def first_of_each(self) -> tuple[Interface, ...]:
        """The first address of each interface: the one that Gloo takes when it is told the interface's name."""
        by_name: dict[str, Interface] = {}
        for found in self.interfaces:
            by_name.setdefault(found.name, found)
        return tuple(by_name.values())

    def describe(self) -> str:
        """``lo 127.0.0.1/8, eth0 10.0.0.1/24``, for a sentence."""
        return ", ".join(f"{found.name} {found.network}" for found in self.interfaces) or "no IPv4 address at all"


def this_host() -> Host:
    """The machine that this process runs on, as seen from its network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Host(f"{boot}/{os.stat('/proc/self/ns/net').st_ino}", interfaces())  # noqa: PTH116


def interfaces() -> tuple[Interface, ...]:
    """Every IPv4 address of every interface that is up, in the kernel's order."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, address in _configured(control):
            request = struct.pack("16sHH4s", name, socket.AF_INET, 0, address).ljust(_IFREQ, b"\0")
            try:
                flags = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
                mask = fcntl.ioctl(control, _SIOCGIFNETMASK, request)
            except OSError:
                continue  # gone since it was listed
            if struct.unpack_from("H", flags, 16)[0] & _IFF_UP:
                network = f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask[20:24])}"
                text = name.rstrip(b"\0").decode(errors="replace")
                found.append(Interface(text, ipaddress.IPv4Interface(network).with_prefixlen))
    return tuple(found)


def chosen_interfaces(
    hosts: Mapping[str, Host], *, interface: str | None, subnets: Sequence[str], required: bool
) -> dict[str, Interface] | None:
    """The interface of each node (by node name) that ``interface`` names or ``subnets`` hold; None: the routes decide.

    The first of ``subnets`` in which every node has an interface is taken. Where the nodes are different machines,
    a loopback interface is none. Raises ``MeetingError``, which names the node and what it has: for ``interface``
    always, for ``subnets`` unless all nodes are one machine and ``required`` is false.
    """
    apart = are_apart(hosts)
    usable = {
        node: [one for one in host.first_of_each() if not (apart and one.is_loopback)] for node, host in hosts.items()
    }
    if interface is not None:
        chosen: dict[str, Interface] = {}
        for node, found in usable.items():
            named = [one for one in found if one.name == interface]
            if not named:
                raise MeetingError(
                    f"{node} has no interface {interface!r} that the other nodes could reach by IPv4 (it has "
                    f"{hosts[node].describe()}); set communication.interface to one that every node has, set "
                    f"communication.subnet where their names differ, or leave both out"
                )
            chosen[node] = named[0]
        return chosen
    lacking = []
    for subnet in subnets:
        network = ipaddress.IPv4Network(subnet)
        within = {
            node: [one for one in found if ipaddress.IPv4Address(one.address) in network]
            for node, found in usable.items()
        }
        without = next((node for node, found in within.items() if not found), None)
        if without is None:
            return {node: found[0] for node, found in within.items()}
        lacking.append(f"{without} has no interface in {subnet} (it has {hosts[without].describe()})")
    if lacking and (apart or required):
        raise MeetingError(
            f"{'; '.join(lacking)}; set communication.subnet to a network in which every node of the job has an "
            f"interface, or ask the administrator to mend the site's list of subnets"
        )
    return None


def are_apart(hosts: Mapping[str, Host]) -> bool:
    """Whether the nodes are more than one machine."""
    return len({host.machine for host in hosts.values()}) > 1


def source_towards(address: str) -> str:
    """The own address from which packets to ``address`` leave, by the kernel's routes; nothing is sent.

    Raises ``MeetingError`` where there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError as error:
            raise MeetingError(
                f"{socket.gethostname()} has no route to {address}: {error.strerror} (it has "
                f"{this_host().describe()}); set communication.subnet to a network that every node is in"
            ) from error
        return str(probe.getsockname()[0])


def interface_towards(address: str) -> str:
    """The interface by which this node reaches ``address``. Raises ``MeetingError`` where there is none."""
    source, own = source_towards(address), this_host()
    for found in own.interfaces:
        if found.address == source:
            return found.name
    if ipaddress.IPv4Address(source).is_loopback:
        return "lo"  # 127.0.0.0/8 belongs to it whole, whichever address is asked for
    raise MeetingError(
        f"no interface of {socket.gethostname()} holds {source} (it has {own.describe()}); set communication.subnet"
    )


def meeting_address(own: str, hosts: Mapping[str, Host]) -> str:
    """The address of node ``own`` at which all of ``hosts`` (by node name) can meet, by the kernel's routes.

    On one machine the loopback address; else the source address of the route to another node. Which of the
    other node's addresses that is: the one its name resolves to, else one in a network that both share, else any.
    """
    here = hosts[own]
    others = {node: host for node, host in hosts.items() if host.machine != here.machine}
    if not others:
        return LOOPBACK
    node, host = next(iter(others.items()))
    candidates = _usable(host, list(hosts.values()))
    if not candidates:
        raise MeetingError(
            f"{node} has no IPv4 address of its own (it has {host.describe()}), so {own} cannot reach it; "
            f"set communication.subnet to a network that both are in"
        )
    shared = [ipaddress.IPv4Interface(found.network).network for found in here.interfaces]
    named = _resolved(node)
    candidates.sort(key=lambda one: (one not in named, not any(ipaddress.IPv4Address(one) in net for net in shared)))
    return source_towards(candidates[0])


def _usable(host: Host, hosts: Sequence[Host]) -> list[str]:
    """The addresses that only this machine has: a bridge of containers has the same one on every node."""
    elsewhere = {found.address for other in hosts if other.machine != host.machine for found in other.interfaces}
    own = [found.address for found in host.interfaces if not found.is_loopback]
    return [address for address in own if address not in elsewhere]


def _resolved(node: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(node, None, socket.AF_INET)}
    except OSError:
        return set()  # a node's name in Slurm need not be a host's name


def _configured(control: socket.socket) -> list[tuple[bytes, bytes]]:
    """The name and the four bytes of each IPv4 address, a second one of an interface included (netdevice(7))."""
    room = 64
    while True:
        buffer = array.array("B", bytes(room * _IFREQ))
        # struct ifconf: how many bytes there are, and where.
        answer = fcntl.ioctl(control, _SIOCGIFCONF, struct.pack("iP", len(buffer), buffer.buffer_info()[0]))
        (used,) = struct.unpack_from("i", answer)
        if used < len(buffer):
            break
        room *= 2  # it may have had more to say
    listed = buffer.tobytes()[:used]
    # Behind the name comes a sockaddr_in: family, port, address.
    return [(listed[at : at + 16], listed[at + 20 : at + 24]) for at in range(0, used, _IFREQ)]
