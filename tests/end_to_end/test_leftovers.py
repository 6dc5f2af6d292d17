"""What is left over in a shell, and what lies in its folder, changes nothing about the ranks that it starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep_slurm.cluster import ClusterInfo, down, up
from support import hostile, slurms
from support.lockstep import Lockstep


@pytest.fixture
def another_slurm() -> Iterator[ClusterInfo]:
    """One node of the second Slurm, whose programs are on PATH meanwhile."""
    slurms.needed(slurms.SECOND)
    folder = Path(tempfile.mkdtemp(prefix="lockstep-other-"))
    with slurms.chosen(slurms.SECOND):
        try:
            yield up("otherone", 1, folder / "c")
        finally:
            down(folder / "c")
            shutil.rmtree(folder)


def test_a_bound_shell_in_a_folder_of_traps_starts_the_ranks_as_any_other(
    one_node: ClusterInfo, tmp_path: Path
) -> None:
    ours = Lockstep(tmp_path, one_node.slurm_conf)
    hostile.check_that_it_would_matter(ours)
    hostile.check(ours)


def test_so_it_does_where_slurm_ends_a_step_whose_variables_contradict_each_other(
    another_slurm: ClusterInfo, tmp_path: Path
) -> None:
    ours = Lockstep(tmp_path, another_slurm.slurm_conf)
    # The environment's own programs first, then that Slurm's.
    own, rest = ours.environment["PATH"].split(os.pathsep, 1)
    ours.environment["PATH"] = os.pathsep.join([own, str(slurms.PROGRAMS), rest])
    hostile.check(ours)
