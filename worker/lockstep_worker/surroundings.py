"""What a host finds out about its own link: carrier, gateway, Slurm's controller (standard library only)."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

LOOK = 10.0
"""Seconds for the gateway or the controller: an old entry of the kernel's neighbours needs 8 to be found out."""
AGAIN = 5.0
"""Seconds after which the gateway is asked anew: an entry that has become old is only looked into when it is used."""
REMEMBERED = 60.0
"""Seconds for which an entry may stay valid without a word from the neighbour: 45 (1.5 x base_reachable_time, man 7
arp), then 8 as above, and what two looks lie apart."""
# linux/sockios.h, linux/if.h, linux/if_arp.h
_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_NEIGHBOUR_KNOWN = 0x2


def has_carrier(interface: str) -> bool:
    """Whether the interface is up and has a carrier. Not by /sys, which may show another namespace's."""
    try:
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except OSError:
        return True  # this process is short of descriptors, which is nothing against the link
    with control:
        asked = struct.pack("256s", interface.encode()[:15])
        try:
            (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, asked), 16)
        except OSError:
            return False  # the interface itself is gone
    return bool(flags & _IFF_RUNNING)


def gateway_of(interface: str) -> str | None:
    """The default gateway that this interface leads to, from the kernel's routes."""
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        name, destination, gateway = line.split()[:3]
        if name == interface and int(destination, 16) == 0 and int(gateway, 16) != 0:
            return socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
    return None


async def is_there(address: str, *, silent_for: float) -> bool:
    """Whether something at this address of the own network answers: a connection, its refusal, or at least ARP.

    ``silent_for``: seconds for which the link has been silent already. A router that drops what is sent to it is known
    by its entry in the kernel's table of neighbours alone, and that outlives the link: so the look takes as long as
    such an entry may.
    """
    ends = time.monotonic() + max(LOOK, REMEMBERED - silent_for)
    while True:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, 9), AGAIN)
        except ConnectionRefusedError:
            return True
        except asyncio.TimeoutError:  # noqa: UP041 - 3.9, where it is no OSError
            if time.monotonic() >= ends:
                return _is_neighbour(address)
        except OSError:
            return False
        else:
            writer.close()
            return True


def _is_neighbour(address: str) -> bool:
    for line in Path("/proc/net/arp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[0] == address:
            return bool(int(fields[2], 16) & _NEIGHBOUR_KNOWN)
    return False


def controller_answers() -> bool | None:
    """Whether one of Slurm's controllers answers; None where it cannot be asked."""
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return None
    try:
        done = subprocess.run([scontrol, "ping"], capture_output=True, text=True, timeout=LOOK, check=False)
    except subprocess.TimeoutExpired:
        return False
    return " UP" in done.stdout
