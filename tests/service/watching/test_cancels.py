"""Cancels on their way to Slurm go by the last look at the queue, and take no question of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from lockstep_service.boundary import Application
from lockstep_service.dispatch.reconcile import pass_on_cancels, reconcile
from lockstep_service.jobs import repository
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import SlurmJob

from .conftest import Answers, Scripted, row

# What is asked of Slurm does not depend on the database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that Slurm was told to end."""
    told: list[int] = []
    monkeypatch.setattr(Scripted, "cancel", lambda _self, number: told.append(number))
    return told


def ask(app: Application, *jobs: SlurmJob) -> None:
    for job in jobs:
        with app.database.writing() as session:
            found = repository.lock(session, row(app, job).id)
            assert found is not None
            found.cancel_requested_at, found.dispatched_at = now(), now() - timedelta(hours=1)


def test_cancels_take_no_question_of_their_own_while_the_last_look_is_fresh(
    app: Application, jobs: list[SlurmJob], answers: Answers, cancelled: list[int]
) -> None:
    ask(app, *jobs[:3])
    pass_on_cancels(app)
    assert (cancelled, answers.asked) == ([1, 2, 3], [])
    assert app.watch.queue_at is not None
    app.watch.queue_at -= timedelta(minutes=1)
    ask(app, *jobs[3:6])
    pass_on_cancels(app)
    assert (cancelled, answers.asked) == ([1, 2, 3, 4, 5, 6], ["queue"])


def test_cancels_wait_after_silence_until_slurm_says_whose_the_numbers_are(
    app: Application, jobs: list[SlurmJob], answers: Answers, cancelled: list[int]
) -> None:
    told, answers.queue = answers.queue, None
    reconcile(app)
    ask(app, *jobs)
    pass_on_cancels(app)
    assert cancelled == []
    # Its state was lost meanwhile: the first numbers are others'.
    assert told is not None
    answers.queue = [replace(job, name="somebody.else") for job in told[:2]] + told[2:]
    pass_on_cancels(app)
    assert cancelled == [3, 4, 5, 6, 7, 8]


def test_cancels_of_one_that_is_not_there_take_no_question_and_are_not_forgotten(
    app: Application, jobs: list[SlurmJob], answers: Answers, cancelled: list[int]
) -> None:
    assert answers.queue is not None
    gone = answers.queue.pop(0)
    reconcile(app)
    answers.asked.clear()
    with app.database.writing() as session:
        found = repository.lock(session, row(app, gone).id)
        assert found is not None
        found.phase = "running"  # its ranks report
    assert app.watch.queue_at is not None
    app.watch.queue_at -= timedelta(minutes=1)
    ask(app, gone)
    pass_on_cancels(app)
    assert (cancelled, answers.asked, row(app, gone).cancel_sent_at) == ([], [], None)
    answers.queue.append(gone)
    reconcile(app)
    pass_on_cancels(app)
    assert cancelled == [gone.id]
