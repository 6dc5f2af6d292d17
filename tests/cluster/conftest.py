"""A folder for clusters that a test brings up, breaks and brings down itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_slurm.cluster import down
from support import slurm


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for a cluster of the test's own, with a short path; what runs in it is ended afterwards."""
    slurm.needed()
    parent = Path(tempfile.mkdtemp(prefix="lockstep-c-"))
    yield parent / "c"
    for left in parent.iterdir():
        down(left)
    shutil.rmtree(parent)
