"""A hundred submissions while the service is killed, slurmctld stopped and ended, the disk full and a limit holds."""

from __future__ import annotations

import os
import random

import pytest

from faults.run import perform, possible
from faults.schedule import SHORT
from faults.table import rows
from support import slurm


@pytest.mark.timeout(900)
def test_every_submission_trains_exactly_once_whatever_goes_wrong() -> None:
    slurm.needed()
    assert possible() is None
    # A new run each time, and the same one again where a person gives its number.
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    result = perform(SHORT, seed)
    print(f"FAULTS_SEED={seed}", *(f"{row.what}: {row.found}" for row in rows(result)), sep="\n")
    assert result.findings == []  # neither what was counted, nor that too little went wrong
