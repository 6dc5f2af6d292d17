"""Talking to Slurm: one protocol, one file per way of doing it; the clients are imported when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockstep_slurm.client.command import CommandClient
    from lockstep_slurm.client.local import LocalClient
    from lockstep_slurm.client.pyslurm import PySlurmClient
    from lockstep_slurm.client.selection import select

__all__ = ["CommandClient", "LocalClient", "PySlurmClient", "select"]

_HOMES = {
    "CommandClient": "lockstep_slurm.client.command",
    "LocalClient": "lockstep_slurm.client.local",
    "PySlurmClient": "lockstep_slurm.client.pyslurm",
    "select": "lockstep_slurm.client.selection",
}


def __getattr__(name: str) -> object:
    """The client of that name, from its own module: the local supervisor imports this package and needs none."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
