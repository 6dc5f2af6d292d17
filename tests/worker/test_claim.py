"""Attempts are claimed once, by one execution of the job, and a requeue fences what came before."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.rundir import newest_fence, read_claims, read_exit
from lockstep_worker import exit as exit_record
from lockstep_worker.claim import claim, follow
from lockstep_worker.errors import DuplicateError, FencedError, MeetingError
from lockstep_worker.world import World, from_slurm
from support.ranks import Launched, task

CLAIMANTS = 12


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(model="digits-mlp", data="digits")


def world(rank: int = 0, **variables: Any) -> World:
    return from_slurm(task(rank, **variables))


def _claim_at_once(run: Path, own: World, barrier: Barrier, answers: Any) -> None:
    barrier.wait(60)
    try:
        answers.put(("claimed", claim(run, own).fence, own.slurm_job_id))
    except DuplicateError as error:
        answers.put(("refused", str(error), own.slurm_job_id))


def race(run: Path, worlds: list[World]) -> list[tuple[str, Any, int]]:
    """Lets one process for each world claim at the same moment."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(len(worlds)), context.Queue()
    processes = [context.Process(target=_claim_at_once, args=(run, own, barrier, answers)) for own in worlds]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def test_of_many_copies_that_claim_at_once_exactly_one_trains(run: Path) -> None:
    answers = race(run, [world(job=job) for job in range(1, CLAIMANTS + 1)])
    claimed = [answer for answer in answers if answer[0] == "claimed"]
    assert [answer[1] for answer in claimed] == [1]
    assert len(answers) == CLAIMANTS
    assert [found.slurm_job_id for found in read_claims(run)] == [claimed[0][2]]
    # Nothing partial is left, and every refused copy has been told so.
    names = sorted(path.name for path in (run / "claims").iterdir())
    assert len(names) == CLAIMANTS
    assert sum(name.startswith("refused-") for name in names) == CLAIMANTS - 1


def test_requeues_that_claim_at_once_get_numbers_of_their_own_in_order(run: Path) -> None:
    claim(run, world(restart=0))
    answers = race(run, [world(restart=restart) for restart in range(1, 6)])
    fences = sorted(answer[1] for answer in answers if answer[0] == "claimed")
    assert fences == list(range(2, 2 + len(fences)))
    assert fences, "the highest restart can never be refused"
    claims = read_claims(run)
    assert [found.restart_count for found in claims] == sorted(found.restart_count for found in claims)
    assert claims[-1].restart_count == 5


def test_a_requeue_gets_the_next_attempt_and_the_one_before_is_refused(run: Path) -> None:
    assert claim(run, world(restart=0)).attempt == 1
    assert claim(run, world(restart=1)).attempt == 2
    for late in (world(restart=0), world(restart=1), world(job=8, restart=5), world(restart=1, step=1)):
        with pytest.raises(DuplicateError, match="second copy of the job"):
            claim(run, late)
    assert newest_fence(run) == 2


def test_the_other_ranks_follow_their_own_rank_0(run: Path) -> None:
    claim(run, world(restart=0))
    found = []
    follower = threading.Thread(target=lambda: found.append(follow(run, world(rank=1, restart=1), patience=20)))
    follower.start()
    made = claim(run, world(restart=1))
    follower.join(20)
    assert found == [made]


def test_the_other_ranks_of_a_refused_copy_end_too(run: Path) -> None:
    claim(run, world())
    with pytest.raises(DuplicateError) as refused:
        claim(run, world(job=8))
    with pytest.raises(DuplicateError) as followed:
        follow(run, world(rank=1, job=8), patience=20)
    assert str(followed.value) == str(refused.value)
    # And the ranks of the copy that trains are not misled by it.
    assert follow(run, world(rank=1), patience=20).slurm_job_id == 7


def test_a_rank_whose_rank_0_never_comes_says_so(run: Path) -> None:
    with pytest.raises(MeetingError, match=r"rank 1 on node2 saw no claim by rank 0 .* within 0.2 s"):
        follow(run, world(rank=1), patience=0.2)


class TestExitRecord:
    """One record an attempt: failures win, the first of them stays, and an attempt that is fenced off writes none."""

    def test_a_failure_replaces_a_success_and_no_later_failure_replaces_the_first(self, run: Path) -> None:
        own = claim(run, world())
        exit_record.record(run, own, world(0), 0)
        assert read_exit(run, 1).code == 0  # type: ignore[union-attr]
        exit_record.record(run, own, world(1), -9)
        exit_record.record(run, own, world(0), 1)
        exit_record.record(run, own, world(0), 0)
        ended = read_exit(run, 1)
        assert ended is not None
        assert (ended.code, ended.signal, ended.rank, ended.node) == (None, 9, 1, "node2")
        assert ended.message == "rank 1 on node2 was ended by signal 9 (SIGKILL)"

    def test_of_failures_at_once_one_is_recorded(self, run: Path) -> None:
        own = claim(run, world())
        barrier = threading.Barrier(8)

        def fail(code: int) -> None:
            barrier.wait(20)
            exit_record.record(run, own, world(), code)

        threads = [threading.Thread(target=fail, args=(code,)) for code in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        ended = read_exit(run, 1)
        assert ended is not None
        assert ended.code in range(1, 9)
        exit_record.record(run, own, world(), 99)
        assert read_exit(run, 1) == ended

    def test_only_rank_0_writes_a_success(self, run: Path) -> None:
        own = claim(run, world())
        exit_record.record(run, own, world(1), 0)
        assert read_exit(run, 1) is None

    def test_a_stale_fence_writes_none(self, run: Path) -> None:
        old = claim(run, world(restart=0))
        claim(run, world(restart=1))
        for code in (0, 1, -15):
            with pytest.raises(FencedError, match="attempt 2 has been claimed"):
                exit_record.record(run, old, world(restart=0), code)
        assert list((run / "exit").iterdir()) == []


def test_a_second_copy_exits_75_on_all_ranks_without_training(run: Path, launch: Callable[..., Launched]) -> None:
    claim(run, world(job=6))
    copies = [launch(run, slurm=task(rank)) for rank in range(2)]
    assert [copy.wait() for copy in copies] == [75, 75]
    for copy in copies:
        assert "this is a second copy of the job: Slurm job 6" in copy.text
    assert read_exit(run, 1) is None
    assert list((run / "spool").iterdir()) == []
