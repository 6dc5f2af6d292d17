"""Two machines on one, as far as the network goes: namespaces on a cable, whose interfaces have different names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Machine:
    """One end of the cable."""

    namespace: str
    interface: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command for it to run there; /sys and /proc stay as they are."""
        return ("nsenter", f"--net=/var/run/netns/{self.namespace}", "--")


@contextmanager
def cabled() -> Iterator[tuple[Machine, Machine]]:
    """Two machines in 10.207.3.0/24; skips the test where namespaces cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("network namespaces need iproute2 and util-linux")
    mark = os.urandom(3).hex()
    machines = (
        Machine(f"lockstep-{mark}-a", f"ib{mark}", "10.207.3.1"),
        Machine(f"lockstep-{mark}-b", f"en{mark}", "10.207.3.2"),
    )
    try:
        for machine in machines:
            _ip("netns", "add", machine.namespace)
            _ip("-n", machine.namespace, "link", "set", "lo", "up")
        first, second = machines
        _ip("-n", first.namespace, "link", "add", first.interface, "type", "veth", "peer", "name", second.interface,
            "netns", second.namespace)  # fmt: skip
        for machine in machines:
            _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
            _ip("-n", machine.namespace, "link", "set", machine.interface, "up")
        yield machines
    finally:
        for machine in machines:
            subprocess.run(["ip", "netns", "delete", machine.namespace], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
