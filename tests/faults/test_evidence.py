"""The counting: each thing that can be wrong is seen in the files, and nothing is found in a run that went well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from faults.evidence import Count, completions, count
from faults.happened import Happened
from faults.schedule import FULL, SHORT

RUN: dict[str, Any] = {
    "answered": {0: {"a"}, 1: {"b"}},
    "jobs": {"a": "ended well", "b": "ended well"},
    "ledger": "start 0 a 1 11\nend 0 a 1 11\nstart 1 b 1 12\nend 1 b 1 12\n",
}


def line(slurm_id: int, job_id: str, state: str = "COMPLETED", nodes: str = "node1") -> str:
    """A line as slurmctld 22.05 writes it."""
    return (
        f"JobId={slurm_id} UserId=root(0) GroupId=root(0) Name=n0.{job_id} JobState={state} Partition=crowd "
        f"TimeLimit=30 StartTime=2026-11-25T17:57:14 EndTime=2026-11-25T17:57:17 NodeList={nodes} NodeCnt=1 ProcCnt=1 "
        "WorkDir=/tmp/home ReservationName= Tres=cpu=1,node=1,billing=1 Account= QOS= WcKey= Cluster=unknown "
        "SubmitTime=2026-11-25T17:57:12 EligibleTime=2026-11-25T17:57:12 DerivedExitCode=0:0 ExitCode=0:0 \n"
    )


COMPLETED = line(1, "a") + line(2, "b")


def counted(completed: str = COMPLETED, **changes: Any) -> Count:
    """A run of two submissions, with these changes."""
    return count(2, completed=completed, **(RUN | changes))


def test_nothing_is_found_in_a_run_that_went_well() -> None:
    found = counted()
    assert found.findings == []
    assert (found.trainings, found.started, found.copies_cancelled) == ({1: 2}, {1: 2}, 0)


def test_a_copy_that_was_cancelled_while_held_is_counted_and_is_no_finding() -> None:
    found = counted(COMPLETED + line(3, "b", "CANCELLED", "(null)"))
    assert (found.copies_cancelled, found.started, found.findings) == (1, {1: 2}, [])


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"ledger": RUN["ledger"] + "start 1 b 2 13\nend 1 b 2 13\n"}, "trainings per submission: {1: 1, 2: 1}"),
        ({"ledger": "start 0 a 1 11\nend 0 a 1 11\n"}, "trainings per submission: {0: 1, 1: 1}"),
        ({"ledger": RUN["ledger"].replace("end 1 b 1 12\n", "")}, "1 submissions were lost"),
        ({"ledger": RUN["ledger"] + "start 7 c 1 13\n"}, "1 jobs belong to no answer"),
        ({"completed": COMPLETED + line(3, "b")}, "Slurm jobs that started per submission: {1: 1, 2: 1}"),
        ({"completed": line(1, "a")}, "Slurm jobs that started per submission: {0: 1, 1: 1}"),
        ({"completed": COMPLETED + line(3, "c")}, "1 jobs belong to no answer"),
        ({"completed": COMPLETED + line(3, "b", "FAILED", "(null)")}, "1 Slurm jobs never started and were not cancel"),
        ({"jobs": {"a": "ended well", "b": "ended badly"}}, "1 jobs ended badly"),
        ({"jobs": {"a": "ended well", "b": "unknown"}}, "1 submissions were lost"),
        ({"jobs": {"a": "ended well"}}, "the service lists 1 jobs"),
        ({"answered": {0: {"a"}}}, "1 of 2 submissions were answered"),
        ({"answered": {0: {"a"}, 1: {"b", "c"}}}, "1 submissions were answered with two jobs"),
    ],
)
def test_everything_that_went_wrong_is_found(changes: dict[str, Any], finding: str) -> None:
    assert any(said.startswith(finding) for said in counted(**changes).findings), counted(**changes).findings


def test_a_requeue_of_slurms_own_is_counted_and_is_no_second_slurm_job() -> None:
    found = counted(COMPLETED.replace(line(2, "b"), line(2, "b", "PENDING") + line(2, "b")))
    assert (found.started, found.restarts, found.findings) == ({1: 2}, 1, [])


def test_a_line_that_cannot_be_read_is_not_left_out() -> None:
    with pytest.raises(ValueError, match="cannot be read: 'JobId=1 half of'"):
        completions("JobId=1 half of")


def test_what_is_wanted_is_exact() -> None:
    assert replace(counted(), submissions=3).findings != []


def test_a_run_in_which_too_little_went_wrong_says_so() -> None:
    enough = Happened(
        kills=40, terminations=6, stops=5, full_disks=1, full_tables=1, refused_by_limit=3, turned_away=9,
        lost_answers=4, happened_all_the_same=1,
    )  # fmt: skip
    assert enough.findings(FULL) == []
    assert replace(enough, kills=39, happened_all_the_same=0).findings(FULL) == [
        "kills: 39, and the run was to have 40 at least",
        "happened_all_the_same: 0, and the run was to have 1 at least",
    ]
    assert len(Happened().findings(SHORT)) == 7
