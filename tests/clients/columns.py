"""The columns of the contract suite's table: a client, and the Slurm it talks to."""

from __future__ import annotations

from pathlib import Path

from lockstep_slurm.client import CommandClient, PySlurmClient
from lockstep_slurm.client.protocol import SlurmClient
from support import pyslurm, slurms

COMMAND = ("command-22.05", "command-24.11")
PYSLURM = (pyslurm.column(),)
"""The one that is installed here, for the Slurm that it is for: ``pyslurm-22.05``; where there is none, ``pyslurm``."""
SLURM = (*COMMAND, *PYSLURM)
"""What talks to a Slurm."""
EVERY = (*SLURM, "local")

FIXTURES = {
    "desk": EVERY,
    "slurm_desk": SLURM,
    "command_desk": COMMAND,
    "pyslurm_desk": PYSLURM,
    "own_cluster": SLURM,
    "own_command_cluster": COMMAND,
    "own_desk": SLURM,
    "own_pyslurm": PYSLURM,
}
"""Which columns a test runs over, by the fixture that it asks for."""


def version(column: str) -> str:
    """The Slurm of a column that has one."""
    return column.partition("-")[2]


def needed(column: str) -> None:
    """Skips the test where the column's Slurm or its client is not there."""
    if column in PYSLURM:
        pyslurm.needed()
    slurms.needed(version(column))


def client(column: str, slurm_conf: Path, timeout: float = 30) -> SlurmClient:
    """A client of this column; ``timeout``: seconds that it may wait for an answer."""
    kind = column.partition("-")[0]
    if kind == "command":
        return CommandClient(slurm_conf, timeout=timeout)
    if kind == "pyslurm":
        return PySlurmClient(slurm_conf, timeout=timeout)
    raise ValueError(f"no Slurm client is called {kind!r}")
