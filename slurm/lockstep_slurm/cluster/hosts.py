"""Several hosts on one machine: which namespaces, interfaces, addresses and commands make them. Pure."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from lockstep_slurm.cluster.info import ClusterError, ClusterInputError, Host, Network

# Private ranges (RFC 1918), from each of which a /24 may be taken.
POOLS = tuple(ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
PREFIX = 24
BRIDGE_NUMBER = 254  # the last part of the bridge's address
# Interfaces of a real cluster's nodes are not all called alike, and what takes that for granted is to fail here.
INTERFACES = ("lan", "fab0")
UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
RATE = re.compile(r"([1-9][0-9]{0,5})(kbit|mbit|gbit)")
LATENCY = "50ms"  # what may wait before a limited link: longer, it would hide congestion; much shorter, TCP starves

Command = list[str]


def bits_per_second(rate: str) -> int:
    """``"200mbit"`` -> 200000000; ``ClusterInputError`` for what is no rate."""
    match = RATE.fullmatch(rate)
    if match is None:
        raise ClusterInputError(
            f"{rate!r} is not a link's rate: a whole number and kbit, mbit or gbit (bits per second), such as 200mbit."
        )
    return int(match[1]) * UNITS[match[2]]


def as_rate(bits: int) -> str:
    """200000000 -> ``"200mbit"``."""
    for unit, size in reversed(UNITS.items()):
        if bits % size == 0:
            return f"{bits // size}{unit}"
    return f"{bits}bit"


def bridge_name(digest: str) -> str:
    """The bridge of the cluster with this digest (8 characters); Linux allows 15 for an interface's name."""
    return f"ls{digest}br"


def is_ours(interface: str, digest: str) -> bool:
    """Whether an interface of the machine's own side is the bridge or a port of the cluster with this digest."""
    return re.fullmatch(rf"ls{digest}(br|h[0-9]+)", interface) is not None


def namespace_prefix(digest: str) -> str:
    """How the names of this cluster's namespaces begin."""
    return f"lockstep-{digest}-"


def plan(digest: str, nodes: int, rate: str | None, taken: Sequence[ipaddress.IPv4Network]) -> Network:
    """The network of hosts h1, h2, ...: names from the digest, addresses from a private /24 that overlaps none taken.

    Raises ``ClusterError`` where the rate is none or every private range is taken.
    """
    if rate is not None:
        bits_per_second(rate)
    free = next(_free(digest, taken), None)
    if free is None:
        raise ClusterError(
            "No private network is left for the hosts: this machine's routes cover 10.0.0.0/8, 172.16.0.0/12 and "
            "192.168.0.0/16 (`ip route`). Do without --hosts here."
        )
    hosts = tuple(
        Host(
            node=f"h{number}",
            namespace=f"{namespace_prefix(digest)}h{number}",
            port=f"ls{digest}h{number}",
            interface=f"h{number}{INTERFACES[(number - 1) % len(INTERFACES)]}",
            address=str(free[number]),
        )
        for number in range(1, nodes + 1)
    )
    return Network(
        bridge=bridge_name(digest), address=str(free[BRIDGE_NUMBER]), subnet=str(free), rate=rate, hosts=hosts
    )


def _free(digest: str, taken: Sequence[ipaddress.IPv4Network]) -> Iterator[ipaddress.IPv4Network]:
    """The networks that nobody uses, beginning where the digest says: two clusters seldom try the same one first."""
    for pool in POOLS:
        near = [network for network in taken if network.overlaps(pool)]
        if any(pool.subnet_of(network) for network in near):
            continue
        count = 2 ** (PREFIX - pool.prefixlen)
        for step in range(count):
            index = (int(digest, 16) + step) % count
            found = ipaddress.IPv4Network((int(pool.network_address) + index * 2 ** (32 - PREFIX), PREFIX))
            if not any(found.overlaps(network) for network in near):
                yield found


def routed(routes: Sequence[dict[str, Any]]) -> list[ipaddress.IPv4Network]:
    """The networks that ``ip -json -4 route show table all`` tells of; the default route is none."""
    return [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]


def build(network: Network) -> Iterator[Command]:
    """The commands that make the network, in order."""
    yield ["ip", "link", "add", network.bridge, "type", "bridge"]
    yield ["ip", "address", "add", f"{network.address}/{PREFIX}", "dev", network.bridge]
    yield ["ip", "link", "set", network.bridge, "up"]
    for host in network.hosts:
        yield ["ip", "netns", "add", host.namespace]
        yield ["ip", "link", "add", host.port, "type", "veth", "peer", "name", host.interface, "netns", host.namespace]
        yield ["ip", "link", "set", host.port, "master", network.bridge, "up"]
        yield [*host.inside, "ip", "link", "set", "lo", "up"]
        yield [*host.inside, "ip", "address", "add", f"{host.address}/{PREFIX}", "dev", host.interface]
        yield [*host.inside, "ip", "link", "set", host.interface, "up"]
        # Real nodes have a gateway; this one leads to the machine's own addresses, and no further unless it forwards.
        yield [*host.inside, "ip", "route", "add", "default", "via", network.address]
        if network.rate is not None:
            yield from limit(host, network.rate)


def limit(host: Host, rate: str) -> Iterator[Command]:
    """The commands that give a host's link this rate, in both directions."""
    # Below a few full packets tbf hands out less than its rate; 2 ms of it is enough at any (tc-tbf(8)). Below
    # 64 KiB it cuts what TCP sends at once into single packets, which took 30 % of a CPU at 200 Mbit/s.
    second = bits_per_second(rate) / 8
    burst = max(16 * 1024, math.ceil(second * 0.002), min(80 * 1024, math.ceil(second * 0.008)))
    shaper = ["root", "tbf", "rate", rate, "burst", str(burst), "latency", LATENCY]
    yield ["tc", "qdisc", "replace", "dev", host.port, *shaper]
    yield [*host.inside, "tc", "qdisc", "replace", "dev", host.interface, *shaper]


def switch(host: Host, *, on: bool) -> Command:
    """The command that mends or cuts a link at the bridge's end: the host's carrier goes, as from a pulled plug."""
    return ["ip", "link", "set", host.port, "up" if on else "down"]
