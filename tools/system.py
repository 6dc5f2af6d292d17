"""The set-up's system packages: what is missing is found by looking for the thing itself, and installed by apt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from steps import run, say, stop

SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class Need(NamedTuple):
    """Something the machine must have: how to tell, which package brings it, and what for."""

    there: Callable[[], bool]
    package: str
    what_for: str


def program(name: str, package: str, what_for: str) -> Need:
    """The need for a program on PATH."""
    return Need(lambda: shutil.which(name, path=SEARCH) is not None, package, what_for)


SLURM = [
    program("munged", "munge", "the one-machine Slurm"),
    program("slurmctld", "slurmctld", "the one-machine Slurm"),
    program("slurmd", "slurmd", "the one-machine Slurm"),
    program("sbatch", "slurm-client", "the one-machine Slurm"),
]
HOSTS = [
    program("ip", "iproute2", "the tests with several hosts"),
    program("tc", "iproute2", "the tests with several hosts"),
]
COMPILER = [
    program("g++", "g++", "building Horovod"),
    program("make", "make", "building Horovod"),
    Need(lambda: Path(sysconfig.get_paths()["include"], "Python.h").exists(), "python3-dev", "building Horovod"),
]
OPENMPI = [
    program("mpirun.openmpi", "openmpi-bin", "the tests of Horovod over MPI"),
    Need(
        lambda: any(Path("/usr/lib").glob("*/openmpi/include/mpi.h")),
        "libopenmpi-dev",
        "the tests of Horovod over MPI",
    ),
]
HWLOC = program("lstopo", "hwloc-nox", "the tests of scripts for other machines")
POSTGRESQL = Need(
    lambda: any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb") is not None,
    "postgresql",
    "the tests of the service on PostgreSQL",
)
SYSTEMD = program("systemd-analyze", "systemd", "the tests of the systemd units")
MODULES = Need(
    # Lmod will do: the two exclude each other, and an administrator's choice stays.
    lambda: any(Path(init).exists() for init in ("/usr/share/modules/init/bash", "/usr/share/lmod/lmod/init/bash")),
    "environment-modules",
    "the tests of jobs that load modules",
)


def become_root() -> list[str] | None:
    """What to put before a command for root to run it; None where that cannot be had without a password."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    if (
        shutil.which("sudo")
        and subprocess.call([*sudo, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    ):
        return sudo
    return None


def install(needs: list[Need], *, required: bool = True) -> bool:
    """Installs what of these is missing; True if all is there then.

    Where it cannot be had: with ``required`` the set-up ends with the command that a person has to run; without, the
    same is said and the set-up goes on.
    """
    missing = [need for need in needs if not need.there()]
    if not missing:
        return True
    packages = sorted({need.package for need in missing})
    purposes = " and ".join(sorted({need.what_for for need in missing}))
    command = "apt-get update && apt-get install -y --no-install-recommends " + " ".join(packages)
    before = become_root()
    if before is None or not shutil.which("apt-get"):
        why = (
            "this is not a Debian or Ubuntu"
            if before is not None
            else "installing them needs root, and sudo asks for a password"
        )
        message = (
            f"{purposes} needs packages that are missing, and {why}. "
            f"Have them installed, then run this again:\n    {command}"
        )
        if required:
            stop(message)
        say(message)
        return False
    say("{} needs {}".format(purposes, " ".join(packages)))
    apt = [*before, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    hint = "Are the package sources in /etc/apt reachable from here? The command was: " + command
    run("apt-get update", [*apt, "update"], hint=hint)
    run("apt-get install", [*apt, "install", "-y", "--no-install-recommends", *packages], hint=hint)
    return True
