"""The submit loop lets jobs gather between two turns: those that come meanwhile are one batch."""

from __future__ import annotations

from threading import Event, Semaphore

import pytest

from lockstep_service.boundary import Application
from lockstep_service.dispatch import loops
from lockstep_service.dispatch.loops import Dispatch
from lockstep_slurm.client.protocol import Submission

from .conftest import Queue, Store, rows, until

GATHER_SECONDS = 600.0
"""Longer than any machine takes from the end of one turn to the beginning of the next."""


class ByHand(Event):
    """An event for which one waits until the test says so, or it is set. ``asked``: the seconds of each wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float | None] = []
        self._over = Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        self._over.acquire()
        return self.is_set()

    def set(self) -> None:
        super().set()
        self._over.release()

    def let_go(self) -> None:
        """Ends one wait."""
        self._over.release()


@pytest.fixture
def stopping(app: Application, monkeypatch: pytest.MonkeyPatch) -> ByHand:
    """What the submit loop waits on, of an application whose loops may run."""
    monkeypatch.setattr(loops, "_GATHER_SECONDS", GATHER_SECONDS)
    app.settings = app.settings.model_copy(update={"dispatch": True})
    return ByHand()


def test_jobs_that_come_between_two_turns_are_one_batch(
    app: Application, slurm: Queue, store: Store, stopping: ByHand
) -> None:
    first, later = store(1), []
    intents: list[int] = []

    def meets(_submission: Submission) -> None:
        if len(slurm.submits) == 1:
            later.extend(store(1))  # while a turn is under way, so that the next is wanted at once
        else:
            intents.append(sum(row.submit_started_at is not None for row in rows(app, later)))

    slurm.meets = meets
    with Dispatch(app, stopping):
        until(lambda: len(stopping.asked) == 1)
        stopping.let_go()
        until(lambda: len(stopping.asked) == 2)
        later.extend(store(2))
        assert [row.phase for row in rows(app, later)] == ["accepted"] * 3
        stopping.let_go()
        until(lambda: {row.phase for row in rows(app, first + later)} == {"waiting"})
    # Before the first of them was sent, all three were meant to be.
    assert intents == [3, 3, 3]
    before_the_first, before_the_second = stopping.asked[:2]
    assert before_the_first == 0
    assert before_the_second is not None
    assert 0 < before_the_second <= GATHER_SECONDS


def test_what_gathers_while_the_service_is_stopped_is_left_for_the_next(
    app: Application, slurm: Queue, store: Store, stopping: ByHand
) -> None:
    ids = store(1)
    with Dispatch(app, stopping):
        until(lambda: len(stopping.asked) == 1)
    assert slurm.submits == []
    assert [(row.phase, row.submit_started_at) for row in rows(app, ids)] == [("accepted", None)]
