"""Why a job waits, in plain words, and which estimates of a start are news."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_service.jobs.waiting import REASONS, estimate, in_words

# As squeue of 22.05 and 24.11 printed them.
SAID = {
    "Resources": "It is the next, and waits until enough nodes, CPUs or memory are free",
    "(Priority)": "Jobs of higher priority are before it in the queue",
    "launch_failed_requeued_held": "Slurm could not launch it, put it back and holds it: release it to try again",
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions": (
        "The nodes that it needs are down, drained, or reserved for jobs of higher priority"
    ),
    "ReqNodeNotAvail,_UnavailableNodes:gpu_node[1-2]": (
        "Nodes that it needs are not available (down, drained, or reserved): Slurm names gpu_node[1-2]"
    ),
    "ReqNodeNotAvail, UnavailableNodes:": "Nodes that it needs are not available (down, drained, or reserved)",
    "ReqNodeNotAvail,_Reserved_for_maintenance": (
        "The nodes that it needs are reserved for maintenance before it could end; it starts afterwards"
    ),
    "ReqNodeNotAvail, May be reserved for other job": "A node that it needs is, or may be, reserved for another job",
    "ReqNodeNotAvail": "A node that it needs is not available: down, drained, or reserved",
    "QOSMaxCpuPerUserLimit": (
        "Its quality of service (QOS) allows one user no more CPUs: it starts once enough of what runs has ended"
    ),
    "QOSMaxJobsPerUserLimit": (
        "Its quality of service (QOS) allows one user no more jobs: it starts once enough of what runs has ended"
    ),
    "AssocGrpCPURunMinutesLimit": (
        "Its account allows no more CPU minutes: it starts once enough of what runs has ended"
    ),
    "AssocGrpCPUMinutesLimit": "Its account allows no more CPU minutes: they are used up",
    "AssocMaxNodePerJobLimit": (
        "It asks for more nodes than its account allows one job: ask for less, or submit it elsewhere"
    ),
    "QOSMaxWallDurationPerJobLimit": (
        "It asks for more time than its quality of service (QOS) allows one job: ask for less, or submit it elsewhere"
    ),
    "QOSMinCpuNotSatisfied": (
        "It asks for fewer CPUs than its quality of service (QOS) demands: ask for more, or submit it elsewhere"
    ),
    "MaxMemoryPerAccount": (
        "The cluster allows one account no more memory: it starts once enough of what runs has ended"
    ),
}


@pytest.mark.parametrize(("said", "plain"), SAID.items())
def test_what_slurm_says_in_plain_words(said: str, plain: str) -> None:
    assert in_words(said) == plain


@pytest.mark.parametrize("said", [None, "", "None", "(None)"])
def test_no_reason_is_none(said: str | None) -> None:
    assert in_words(said) is None


@pytest.mark.parametrize("code", sorted(REASONS))
def test_each_is_found_however_slurm_writes_it(code: str) -> None:
    assert in_words(code) == in_words(code.replace(" ", "_")) == in_words(f"({code})") == REASONS[code]


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=40).filter(lambda said: said != "None"))
def test_a_word_that_is_in_no_table_is_slurms_own(said: str) -> None:
    assert said in str(in_words(said)) or said in REASONS or said.startswith(("QOS", "Assoc", "Grp", "Max", "Min"))


MOMENT = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(st.integers(-3600, 3600))
def test_an_estimate_that_moved_by_less_than_a_minute_is_kept(seconds: int) -> None:
    told = MOMENT + timedelta(seconds=seconds)
    assert estimate(MOMENT, told) == (MOMENT if abs(seconds) < 60 else told)


def test_a_first_estimate_and_the_end_of_one_are_news() -> None:
    assert estimate(None, MOMENT) == MOMENT
    assert estimate(MOMENT, None) is None
