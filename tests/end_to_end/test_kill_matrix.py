"""The row of the worker's kill matrix that no other test has: a disk that fills up in a save.

`make faults-worker` has the others.
"""

from __future__ import annotations

import pytest

from faults.worker.cases import CASES, QUICK
from faults.worker.matrix import perform
from support import slurm

NAMES = ("disk",)


@pytest.mark.timeout(600)
def test_a_full_disk_costs_nothing_that_is_not_said() -> None:
    slurm.hosts_needed()
    rows = list(perform([case for case in CASES if case.name in NAMES], QUICK))
    print(*rows, sep="\n")
    assert [row.name for row in rows] == list(NAMES)
    assert [row.findings for row in rows] == [()]
