"""The two Slurms of the tests: the machine's own, 22.05, and 24.11, which the set-up makes (tools/second_slurm.py).

Which of them a command, a client or a one-machine cluster means is decided by PATH, as on any machine.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import second_slurm

from lockstep_slurm.cluster.daemons import program
from support import slurm

SECOND = second_slurm.VERSION
# Both as they were when the tests began.
PROGRAMS = second_slurm.programs()
_PATH = os.environ.get("PATH", os.defpath)


def needed(version: str) -> None:
    """Skips the test where no one-machine Slurm of this version can run, and says what is missing."""
    slurm.needed()
    if version == SECOND and not PROGRAMS.is_dir():
        pytest.skip(second_slurm.why_not() or f"Slurm {version} is not there: `make setup` makes it")
    found = exact(version)
    if found is None:
        # It is there, and yet it does not run: the mount that its programs need may be forbidden here.
        pytest.fail(f"Slurm {version} does not run: {_answer(version)!r}")
    if not found.startswith(f"{version}."):
        pytest.skip(f"these cases are about Slurm {version}, and here it is {found}")


def exact(version: str) -> str | None:
    """The exact version of the Slurm that is taken for this one, ``24.11.5``; None where there is none."""
    said = re.search(r"\d+\.\d+\.\d+", _answer(version))
    return said[0] if said else None


@cache
def _answer(version: str) -> str:
    with chosen(version):
        done = subprocess.run([program("slurmctld"), "-V"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@contextmanager
def chosen(version: str) -> Iterator[None]:
    """Meanwhile PATH leads to this Slurm's programs, whatever a test did to it before; then it is as it was.

    Every version but the second one is the machine's own, whichever that is.
    """
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{PROGRAMS}{os.pathsep}{_PATH}" if version == SECOND else _PATH
    try:
        yield
    finally:
        os.environ["PATH"] = before
