"""Which Slurm client a service or a command uses here."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Literal

from lockstep_slurm.client.command import CommandClient
from lockstep_slurm.client.local import LocalClient
from lockstep_slurm.client.protocol import SlurmClient, SlurmError

_log = logging.getLogger(__name__)

Kind = Literal["auto", "command", "local", "pyslurm"]
# Where Slurm's commands look by themselves: the distributions' places, a plain build's, and slurmd's copy where the
# cluster hands out its configuration (configless).
_USUAL = (
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/usr/local/etc/slurm.conf",
    "/run/slurm/conf/slurm.conf",
)


def select(kind: Kind, *, slurm_conf: Path | None, home: Path) -> SlurmClient:
    """The client of this kind; ``auto`` is Slurm's commands where Slurm is known here, and else this machine.

    ``slurm_conf``: the cluster's slurm.conf, where it is not SLURM_CONF or Slurm's own place; ``home``: Lockstep's home
    folder, in which the local queue lives. ``SlurmError`` for a kind that cannot be had, with the reason.
    """
    if kind == "local":
        return LocalClient(home / "local")
    if kind == "command":
        if shutil.which("sbatch") is None:
            raise SlurmError("there is no sbatch on PATH; install Slurm's client commands, or choose the local client")
        return CommandClient(slurm_conf)
    if kind == "auto":
        if shutil.which("sbatch") is not None and _configured(slurm_conf):
            return CommandClient(slurm_conf)
        if slurm_conf is not None:
            _log.warning("%s is not used, for there is no sbatch on PATH; jobs run on this machine", slurm_conf)
        return LocalClient(home / "local")
    if kind == "pyslurm":
        raise SlurmError("this build talks to Slurm through its commands; choose 'command' instead of 'pyslurm'")
    raise SlurmError(f"there is no Slurm client {kind!r}; choose auto, command or local")


def _configured(slurm_conf: Path | None) -> bool:
    """Whether a slurm.conf is known; one that is named counts as known even if it is missing just now."""
    return slurm_conf is not None or bool(os.environ.get("SLURM_CONF")) or any(Path(one).is_file() for one in _USUAL)
