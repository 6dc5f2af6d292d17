"""The real pyslurm, where this machine has one: each is for one release of Slurm, so no machine is sure to have it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from lockstep_slurm.client import pyslurm_presence


def column() -> str:
    """``pyslurm-22.05``: with the release of Slurm that the installed one is for; ``pyslurm`` where there is none."""
    try:
        major, minor = importlib.metadata.version("pyslurm").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return "pyslurm"
    return f"pyslurm-{major}.{minor:>02}"


def needed() -> None:
    """Skips the test where none is installed."""
    if pyslurm_presence.folder() is None:
        pytest.skip("pyslurm is not installed; docs/compatibility.md says for which Slurm there is one")


def environment(slurm_conf: Path) -> dict[str, str]:
    """What a service needs to find it; skips the test where there is none for the Slurm of this configuration."""
    needed()
    if reason := pyslurm_presence.why_not(slurm_conf):
        pytest.skip(reason)
    # The service's Python is this one, yet not everything on this one's path is on its own.
    return {"PYTHONPATH": str(pyslurm_presence.needed())}
