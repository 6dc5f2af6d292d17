"""A loop whose work fails again and again, as where the database is away: what is logged, and that it goes on."""

from __future__ import annotations

import logging
import time
from threading import Event

import pytest
from sqlalchemy import create_engine

from lockstep_service.dispatch import loops
from lockstep_service.dispatch.loops import Loop

STUCK = loops._STUCK_SECONDS
TURNS = 5
WITHIN = 30.0


def test_a_failure_that_lasts_is_logged_once_with_where_it_came_from(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "_AFTER_ERROR_SECONDS", 0.0)
    away = create_engine("sqlite:////nonexistent/folder/a.db")
    failed, stopping, healthy = 0, Event(), []

    def turn() -> float:
        nonlocal failed
        if failed < TURNS:
            failed += 1
            away.connect()
        healthy.append(loop.healthy())  # the last turn failed
        stopping.set()
        return 0.0

    loop = Loop("reconcile", turn, stopping)
    with caplog.at_level(logging.INFO, logger=loops.__name__):
        thread = loop.start()
        thread.join(WITHIN)
    assert not thread.is_alive()
    assert failed == TURNS
    assert healthy == [False]
    assert loop.healthy()
    first, last = caplog.records
    assert first.levelname == "ERROR"
    assert "reconcile failed" in first.getMessage()
    assert "unable to open database file" in first.getMessage()
    assert first.exc_info is not None
    assert last.getMessage().startswith("reconcile goes on, after failing for")


def test_a_loop_that_rests_for_long_is_not_stuck_and_one_that_does_not_come_back_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stopping, rests = Event(), Event()
    loop = Loop("reconcile", lambda: 2 * STUCK, stopping)

    def wait(_pause: float) -> None:
        rests.set()
        stopping.wait(WITHIN)

    monkeypatch.setattr(loop.woken, "wait", wait)
    thread = loop.start()
    assert rests.wait(WITHIN)
    now += 2 * STUCK
    assert loop.healthy()
    now += STUCK
    assert not loop.healthy()
    stopping.set()
    thread.join(WITHIN)
    assert not thread.is_alive()
