"""Slurm's answers as the doctor reads them."""

from __future__ import annotations

import pytest

from lockstep_slurm.doctor.cluster import Limit
from lockstep_slurm.doctor.look_slurm import controller_clock, mpi_types, parse_limits

# Of `srun --mpi=list`, Slurm 22.05.8.
TYPES = """MPI plugin types are...
\tpmix
\tnone
\tcray_shasta
\tpmi2
specific pmix plugin versions available: pmix_v4
"""
SDIAG = """*******************************************************
sdiag output at Wed Nov 25 10:25:07 2026 (1795602307)
Data since      Wed Nov 25 10:24:42 2026 (1795602282)
"""


def test_mpi_types_are_the_lines_below_the_heading() -> None:
    assert mpi_types(TYPES) == ("cray_shasta", "none", "pmi2", "pmix")
    with pytest.raises(ValueError, match="no list of types"):
        mpi_types("srun: error: Unable to contact slurm controller")


def test_the_controllers_clock_is_known_to_its_second_and_the_time_of_asking() -> None:
    (low, high), there = controller_clock(SDIAG, 1795602307.2, 1795602307.5)
    assert there == 1795602307
    assert (round(low, 3), round(high, 3)) == (-0.5, 0.8)
    with pytest.raises(ValueError, match="no time"):
        controller_clock("sdiag: error: Access denied", 0, 0)


def test_limits_are_those_of_the_users_accounts_and_of_the_qos_that_they_name() -> None:
    associations = "physics|normal,long||100||\nphysics|normal||100||\nmaths|long|2|||\n"
    qos = "normal|||||\nlong|1|10|||\nforeign|0|0|0|0\n".replace("|||||", "||||")
    accounts, limits = parse_limits(associations, qos.replace("long|1|10|||", "long|1|10||"))
    assert accounts == ("physics", "maths")
    assert limits == (
        Limit("account physics", "MaxSubmit", 100),
        Limit("account maths", "MaxJobs", 2),
        Limit("QOS long", "MaxJobsPU", 1),
        Limit("QOS long", "MaxSubmitPU", 10),
    )


def test_a_user_without_an_account_has_no_limit() -> None:
    assert parse_limits("", "normal||||\n") == ((), ())
