"""Where Horovod's ranks listen, read from what Gloo leaves at the rendezvous (standard library only).

A rank leaves one address for each other member of the mesh, in the form of Gloo's own memory on Linux: a
sockaddr_storage (128 bytes) and a sequence number (8 bytes). That is no documented format, so whatever looks
otherwise gets no verdict.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lockstep_worker.store import GLOO_ADDRESS

_MESH = re.compile(r"(global|local_.*|cross_[0-9]+)(_process_set_hash_[0-9a-f]+)?")


@dataclass(frozen=True)
class Announced:
    """What a rank's wrapper says before its training starts: the interface that the training is told to use."""

    node: str
    interface: str
    addresses: frozenset[str]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Announced:
        """From what ``document`` made."""
        return cls(str(document["node"]), str(document["interface"]), frozenset(map(str, document["addresses"])))

    def document(self) -> dict[str, Any]:
        """As it travels."""
        return {"node": self.node, "interface": self.interface, "addresses": sorted(self.addresses)}


def misplaced(scope: str, key: str, value: bytes, announced: Mapping[int, Announced]) -> str | None:
    """One sentence when Horovod listens elsewhere than on the interface that it was told; None: it does, or who knows.

    ``announced``: by rank, of all ranks of the job.
    """
    if _MESH.fullmatch(scope) is None or not key.isdecimal() or not announced:
        return None
    found = addresses(value)
    if found is None:
        return None
    # Among all ranks, a rank's number in the mesh is its own; in a smaller mesh it may be anybody.
    everybody = scope.startswith("global") and len(value) == GLOO_ADDRESS * (len(announced) - 1)
    who = announced.get(int(key)) if everybody else None
    expected = who.addresses if who else frozenset().union(*(one.addresses for one in announced.values()))
    elsewhere = sorted(found - expected)
    if not elsewhere:
        return None
    told = f"{who.interface} ({', '.join(sorted(who.addresses))})" if who else "the interface it was told"
    subject = f"rank {key} on {who.node}" if who else f"a rank of {scope}"
    return (
        f"the Horovod of {subject} listens at {', '.join(elsewhere)} in place of {told}: the release 0.28.1 ignores "
        f"HOROVOD_GLOO_IFACE for its process sets; make one that does not with `lockstep worker build` and install it "
        f"in the environment of the ranks, or leave HOROVOD_GLOO_IFACE alone if the training script sets it"
    )


def addresses(value: bytes) -> frozenset[str] | None:
    """The IP addresses in a value of Gloo's; None where it is not in the one form that is known."""
    if not value or len(value) % GLOO_ADDRESS:
        return None
    found = set()
    for at in range(0, len(value), GLOO_ADDRESS):
        family, port = struct.unpack_from("=H", value, at)[0], struct.unpack_from("!H", value, at + 2)[0]
        if port == 0:
            return None
        if family == socket.AF_INET:
            found.add(str(ipaddress.IPv4Address(value[at + 4 : at + 8])))
        elif family == socket.AF_INET6:
            found.add(str(ipaddress.IPv6Address(value[at + 8 : at + 24])))
        else:
            return None
    return frozenset(found)
