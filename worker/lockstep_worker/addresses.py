"""This node's addresses, and the one by which its ranks reach the others (standard library only, IPv4)."""

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
_SIOCGIFADDR = 0x8915
_SIOCGIFNETMASK = 0x891B


@dataclass(frozen=True)
class Interface:
    """One network interface with its address in ``address/prefix`` form."""

    name: str
    network: str

    @property
    def address(self) -> str:
        """The address alone."""
        return self.network.partition("/")[0]


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


def this_host() -> Host:
    """The machine that this process runs on, as seen from its network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Host(f"{boot}/{os.stat('/proc/self/ns/net').st_ino}", interfaces())  # noqa: PTH116


def interfaces() -> tuple[Interface, ...]:
    """Every interface that has an IPv4 address, with its first one."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            try:
                address, mask = (_ask(control, request, name) for request in (_SIOCGIFADDR, _SIOCGIFNETMASK))
            except OSError:
                continue  # no IPv4 address
            found.append(Interface(name, ipaddress.IPv4Interface(f"{address}/{mask}").with_prefixlen))
    return tuple(found)


def address_of(interface: str) -> str:
    """The address of one named interface. Raises ``MeetingError`` naming those that there are."""
    known = {found.name: found.address for found in interfaces()}
    if interface not in known:
        raise MeetingError(
            f"{socket.gethostname()} has no interface {interface!r} with an IPv4 address (it has {', '.join(known)}); "
            f"set communication.interface to one that every node has, or leave it out"
        )
    return known[interface]


def source_towards(address: str) -> str:
    """The own address from which packets to ``address`` leave, by the kernel's routes; nothing is sent.

    Raises ``MeetingError`` where there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError as error:
            raise MeetingError(f"{socket.gethostname()} has no route to {address}: {error.strerror}") from error
        return str(probe.getsockname()[0])


def interface_towards(address: str) -> str:
    """The interface that holds that address. Raises ``MeetingError`` where none does."""
    source = source_towards(address)
    for found in interfaces():
        if found.address == source:
            return found.name
    if ipaddress.IPv4Address(source).is_loopback:
        return "lo"  # 127.0.0.0/8 belongs to it whole, whichever address is asked for
    raise MeetingError(f"no interface of {socket.gethostname()} holds {source}; set communication.interface")


def meeting_address(own: str, hosts: Mapping[str, Host]) -> str:
    """The address of node ``own`` at which all of ``hosts`` (by node name) can meet.

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
            f"{node} has no IPv4 address of its own, so {own} cannot reach it; set communication.interface"
        )
    shared = [ipaddress.IPv4Interface(found.network).network for found in here.interfaces]
    named = _resolved(node)
    candidates.sort(key=lambda one: (one not in named, not any(ipaddress.IPv4Address(one) in net for net in shared)))
    return source_towards(candidates[0])


def _usable(host: Host, hosts: Sequence[Host]) -> list[str]:
    """The addresses that only this machine has: a bridge of containers has the same one on every node."""
    elsewhere = {found.address for other in hosts if other.machine != host.machine for found in other.interfaces}
    own = [found.address for found in host.interfaces if not ipaddress.IPv4Interface(found.network).is_loopback]
    return [address for address in own if address not in elsewhere]


def _resolved(node: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(node, None, socket.AF_INET)}
    except OSError:
        return set()  # a node's name in Slurm need not be a host's name


def _ask(control: socket.socket, request: int, name: str) -> str:
    """One ``ioctl`` that answers with a sockaddr_in behind the interface's name (struct ifreq)."""
    buffer = array.array("B", struct.pack("256s", name.encode()[:15]))
    fcntl.ioctl(control, request, buffer)
    return socket.inet_ntoa(bytes(buffer[20:24]))
