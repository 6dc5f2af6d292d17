"""Starting the daemons of one cluster and asking its controller: the commands, their environment, their logs."""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lockstep_slurm.cluster.configuration import Ports
from lockstep_slurm.cluster.info import ClusterError
from lockstep_slurm.cluster.layout import Layout

# Debian and Ubuntu; the daemons depend on slurm-wlm-basic-plugins, which --no-install-recommends still installs.
PACKAGES = "munge slurmctld slurmd slurm-client"
# Not every root shell has the system folders in its PATH.
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
# Below what Linux gives to outgoing connections (32768-60999), so that none of those takes a port between look and use.
PORT_RANGE = range(20_000, 32_000)


def search() -> str:
    """Where programs are looked for: on PATH as it is now, which may mean another Slurm than a moment ago."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def program(name: str) -> str:
    """The path of one of Slurm's programs; ``ClusterError`` with the packages to install where it is missing."""
    path = shutil.which(name, path=search())
    if path is None:
        raise ClusterError(
            f"{name} is not installed. On Debian or Ubuntu: apt-get install -y --no-install-recommends {PACKAGES}"
        )
    return path


def version() -> tuple[int, int]:
    """Slurm's version (major, minor) as slurmctld tells it."""
    said = subprocess.run([program("slurmctld"), "-V"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None:
        raise ClusterError(
            f"`slurmctld -V` answered {said!r}, in which no version can be found; is Slurm installed whole?"
        )
    return int(match[1]), int(match[2])


def environment(layout: Layout) -> dict[str, str]:
    """What daemons and commands get: no variable of the caller's (secrets, SLURM_*, SQUEUE_FORMAT) reaches them."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "SLURM_CONF": str(layout.slurm_conf)}


def free_ports(nodes: int) -> Ports:
    """Ports that nothing listens on just now."""
    found: list[int] = []
    for port in random.sample(PORT_RANGE, k=min(len(PORT_RANGE), 200 + 20 * nodes)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == nodes + 1:
            return Ports(found[0], tuple(found[1:]))
    raise ClusterError(
        f"found only {len(found)} free ports of the {nodes + 1} needed in {PORT_RANGE.start}-{PORT_RANGE.stop - 1}; "
        "end what listens there (`ss -ltnp` shows it)."
    )


def start_munged(layout: Layout) -> None:
    """Starts munged with a key and a socket of this cluster's own; returns when it answers."""
    if not layout.munge_key.exists():
        layout.munge_key.touch(mode=0o600)
        layout.munge_key.write_bytes(secrets.token_bytes(128))
        layout.munge_key.chmod(0o400)
    # --force: munged wants its socket reachable by all users and refuses a 0700 folder; here that is the point.
    _start(
        "munged",
        [
            program("munged"),
            "--force",
            f"--socket={layout.munge_socket}",
            f"--key-file={layout.munge_key}",
            f"--pid-file={layout.munge_pid}",
            f"--log-file={layout.munge_log}",
            f"--seed-file={layout.munge_seed}",
        ],
        layout,
        layout.munge_log,
    )


def start_controller(layout: Layout) -> None:
    """Starts slurmctld, which goes into the background by itself."""
    _start("slurmctld", [program("slurmctld"), "-f", str(layout.slurm_conf)], layout, layout.controller_log)


def start_node(layout: Layout, node: str, inside: Sequence[str] = ()) -> None:
    """Starts this node's slurmd, which goes into the background by itself; ``inside``: what puts it on its host."""
    command = [*inside, program("slurmd"), "-N", node, "-f", str(layout.slurm_conf)]
    _start(f"slurmd of {node}", command, layout, layout.node_log(node))


def _start(name: str, command: list[str], layout: Layout, log: Path) -> None:
    """Runs a daemon's command until it has gone into the background; its own words if it would not."""
    # A file and not a pipe: the daemon keeps it open, and a pipe would never come to its end.
    out = log.with_suffix(".start")
    with out.open("wb") as file:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment(layout),
                cwd="/",
                timeout=20,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{name} did not start within 20 s. {last_lines(log, out)}") from error
    if done.returncode != 0:
        raise ClusterError(f"{name} ended at once with exit code {done.returncode}. {last_lines(log, out)}")


def last_lines(*logs: Path, count: int = 12) -> str:
    """The ends of these logs, for a person to read."""
    said = []
    for log in logs:
        lines = log.read_text(errors="replace").splitlines()[-count:] if log.exists() else []
        if lines:
            said.append(f"The last lines of {log}:\n  " + "\n  ".join(lines))
    return "\n".join(said) or f"Its log is empty: {logs[0]}"


def ask(layout: Layout, *command: str, timeout: float = 15.0) -> str | None:
    """What one of Slurm's commands printed, or None where the controller did not answer within ``timeout`` seconds."""
    try:
        done = subprocess.run(
            [program(command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(layout),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def node_states(layout: Layout, timeout: float = 15.0) -> dict[str, str] | None:
    """Each node's state in Slurm's long lower-case words, or None where the controller does not answer."""
    said = ask(layout, "sinfo", "--Node", "--noheader", "--format=%N|%T", timeout=timeout)
    if said is None:
        return None
    # sinfo marks a node that does not answer with "*" and others with "~#!%$@+-^": the word alone is the state.
    pairs = (line.partition("|") for line in said.split())
    return {node: state.rstrip("*~#!%$@+^-") for node, _, state in pairs}
