"""Running ``ip`` and ``tc``: makes the hosts' network, looks at its links, cuts and mends them, removes all of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lockstep_slurm.cluster import hosts, processes
from lockstep_slurm.cluster.daemons import search
from lockstep_slurm.cluster.info import NAMESPACES, ClusterError, Host, LinkStatus, Network

PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux"}
FORBIDDEN = ("Operation not permitted", "Permission denied", "Read-only file system")
WITHOUT_TBF = "qdisc kind is unknown"


def digest(folder: Path) -> str:
    """What the names are made from: the cluster's folder, and which root it is seen from.

    Two chroots of one machine may have a folder of the same path, and share the machine's network.
    """
    root = Path("/").stat()
    return hashlib.sha256(f"{root.st_dev}:{root.st_ino}:{folder}".encode()).hexdigest()[:8]


def check() -> None:
    """Raises ``ClusterError`` naming the package where a program for making hosts is missing."""
    for name in PROGRAMS:
        _program(name)


def create(folder: Path, nodes: int, rate: str | None) -> Network:
    """Makes the hosts' network of the cluster in ``folder`` anew. Raises ``ClusterError``, and then nothing is left."""
    remove(folder)
    found = json.loads(_run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    network = hosts.plan(digest(folder), nodes, rate, hosts.routed(found))
    try:
        for command in hosts.build(network):
            _run(command)
    except BaseException:
        remove(folder)
        raise
    return network


def remove(folder: Path) -> bool:
    """Removes every namespace, link and bridge of the cluster in ``folder``; True if there was any.

    They are found by their names, so that what a killed ``up`` left is found too. What still runs in a namespace keeps
    it alive, without a network.
    """
    own = digest(folder)
    # While they are still there to tell by.
    _end_steps(own)
    # A port's other end goes with it, wherever that is.
    interfaces = [name for _, name in socket.if_nameindex() if hosts.is_ours(name, own)]
    for name in interfaces:
        _run(["ip", "link", "delete", name])
    prefix = hosts.namespace_prefix(own)
    namespaces = [entry.name for entry in NAMESPACES.glob(f"{prefix}*")] if NAMESPACES.is_dir() else []
    for name in namespaces:
        _run(["ip", "netns", "delete", name])
    return bool(interfaces or namespaces)


def _end_steps(own: str) -> None:
    """Ends the slurmstepd of steps that Slurm gave up while their node was cut off: nobody tells them any more."""
    prefix = hosts.namespace_prefix(own)
    inodes = {entry.stat().st_ino for entry in NAMESPACES.glob(f"{prefix}*")} if NAMESPACES.is_dir() else set()
    left = []
    for process in processes.everything() if inodes else ():
        try:
            inside = Path(f"/proc/{process.pid}/ns/net").stat().st_ino in inodes
        except OSError:
            continue  # it has ended
        if inside and process.command[0].startswith("slurmstepd"):
            left.append(process)
    processes.end(left, patience=2.0)


def links(network: Network) -> tuple[LinkStatus, ...]:
    """Every host's link as it is now."""
    there = {name for _, name in socket.if_nameindex()}
    return tuple(
        _link(host) if host.port in there else LinkStatus(host.node, host, "missing") for host in network.hosts
    )


def set_link(host: Host, *, on: bool | None = None, rate: str | None = None) -> LinkStatus:
    """Cuts (``on=False``) or mends a host's link, gives it another rate, or both; returns how it is then."""
    if rate is not None:
        for command in hosts.limit(host, rate):
            _run(command)
    if on is not None:
        _run(hosts.switch(host, on=on))
    return _link(host)


def _link(host: Host) -> LinkStatus:
    (shown,) = json.loads(_run(["ip", "-json", "link", "show", "dev", host.port]))
    shapers = json.loads(_run(["tc", "-json", "qdisc", "show", "dev", host.port]))
    rates: list[int] = [found["options"]["rate"] * 8 for found in shapers if found.get("kind") == "tbf"]
    return LinkStatus(
        host.node, host, "up" if "UP" in shown["flags"] else "cut", hosts.as_rate(rates[0]) if rates else None
    )


def _program(name: str) -> str:
    path = shutil.which(name, path=search())
    if path is None:
        raise ClusterError(
            f"{name} is not installed, which makes several hosts of one machine. "
            f"On Debian or Ubuntu: apt-get install -y --no-install-recommends {PROGRAMS[name]}"
        )
    return path


def _run(command: Sequence[str]) -> str:
    """What the command printed; ``ClusterError`` with its own words and, where it is known, the cure."""
    argv = [_program(command[0]), *command[1:]]
    environment: dict[str, Any] = {"PATH": search(), "LANG": "C"}
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False, cwd=os.sep
    )
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip() or f"exit code {done.returncode}"
    cure = ""
    if any(word in said for word in FORBIDDEN):
        cure = (
            " Network namespaces are not allowed here; a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN for them "
            "(docker run --privileged). Else do without --hosts."
        )
    elif WITHOUT_TBF in said:
        cure = " This kernel cannot limit a link (it has no sch_tbf); leave --link out."
    raise ClusterError(f"`{' '.join(command)}` failed: {said}.{cure}")
