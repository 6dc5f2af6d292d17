"""Which Slurm client a service or a command uses here."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Literal

from lockstep_slurm.client import pyslurm_presence
from lockstep_slurm.client.command import CommandClient
from lockstep_slurm.client.local import LocalClient
from lockstep_slurm.client.protocol import SlurmClient, SlurmError, SlurmUnavailableError
from lockstep_slurm.client.pyslurm import PySlurmClient

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
    """The client of this kind.

    ``auto`` is pyslurm where it is installed, loads, and fits the Slurm that is known here; else Slurm's commands where
    Slurm is known here; and else this machine.
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
        if shutil.which("sbatch") is not None and configured(slurm_conf):
            return _pyslurm_where_it_fits(slurm_conf) or CommandClient(slurm_conf)
        if slurm_conf is not None:
            _log.warning("%s is not used, for there is no sbatch on PATH; jobs run on this machine", slurm_conf)
        return LocalClient(home / "local")
    if kind == "pyslurm":
        return _pyslurm(slurm_conf)
    raise SlurmError(f"there is no Slurm client {kind!r}; choose auto, command, pyslurm or local")


def _pyslurm(slurm_conf: Path | None) -> SlurmClient:
    if shutil.which("sbatch") is None:
        raise SlurmError("there is no sbatch on PATH; pyslurm needs Slurm's client commands beside it: install them")
    try:
        reason = pyslurm_presence.why_not(slurm_conf)
    except SlurmUnavailableError as error:
        # It may be known later; until then each call says so.
        _log.warning("whether pyslurm fits Slurm is not known: %s", error)
        reason = None
    if reason is not None:
        raise SlurmError(f"the client 'pyslurm' cannot be used: {reason}")
    return PySlurmClient(slurm_conf)


def _pyslurm_where_it_fits(slurm_conf: Path | None) -> SlurmClient | None:
    if pyslurm_presence.folder() is None:
        return None
    try:
        reason = pyslurm_presence.why_not(slurm_conf)
    except SlurmError as error:
        reason = str(error)
    if reason is not None:
        _log.warning("Slurm is asked through its commands: %s", reason)
        return None
    return PySlurmClient(slurm_conf)


def configured(slurm_conf: Path | None) -> bool:
    """Whether a slurm.conf is known; one that is named counts as known even if it is missing just now."""
    return slurm_conf is not None or bool(os.environ.get("SLURM_CONF")) or any(Path(one).is_file() for one in _USUAL)
