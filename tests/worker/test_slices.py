"""A thread that communicates has a short slice of the scheduler where the kernel gives one; else nothing happens."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable

import pytest

from lockstep_worker import slices

OWN = slices.slice_of(threading.get_native_id())
knows = pytest.mark.skipif(OWN is None, reason="before Linux 6.12 a thread has no slice of its own")


def in_a_thread(do: Callable[[], object]) -> object:
    """What ``do`` returns in a thread that is born now."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(do()))
    thread.start()
    thread.join()
    return found[0]


def own_slice() -> int | None:
    return slices.slice_of(threading.get_native_id())


@knows
def test_a_thread_that_is_shortened_has_the_slice_and_nobody_else_has() -> None:
    assert in_a_thread(lambda: (slices.shorten(threading.get_native_id()), own_slice())) == (True, 100_000)
    assert own_slice() == OWN


@knows
def test_threads_made_within_begin_with_it_and_the_one_that_makes_them_has_its_own_again() -> None:
    with slices.shortened(), slices.shortened():
        assert in_a_thread(own_slice) == 100_000
    assert own_slice() == OWN
    assert in_a_thread(own_slice) == OWN


@knows
def test_policy_and_nice_value_stay_as_they_are() -> None:
    def shortened_batch() -> tuple[bool, int, int]:
        own = threading.get_native_id()
        os.sched_setscheduler(own, os.SCHED_BATCH, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, own, 19)
        return slices.shorten(own), os.sched_getscheduler(own), os.getpriority(os.PRIO_PROCESS, own)

    assert in_a_thread(shortened_batch) == (True, os.SCHED_BATCH, 19)


@knows
def test_the_variable_gives_another_slice_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slices.VARIABLE, "300")
    assert in_a_thread(lambda: (slices.shorten(threading.get_native_id()), own_slice())) == (True, 300_000)
    monkeypatch.setenv(slices.VARIABLE, "0")
    assert in_a_thread(lambda: (slices.shorten(threading.get_native_id()), own_slice())) == (False, OWN)


def test_a_thread_of_another_policy_is_left_alone() -> None:
    def shortened_idle() -> tuple[bool, int | None, int]:
        own = threading.get_native_id()
        os.sched_setscheduler(own, os.SCHED_IDLE, os.sched_param(0))
        with slices.shortened():
            return slices.shorten(own), slices.slice_of(own), os.sched_getscheduler(own)

    assert in_a_thread(shortened_idle) == (False, None, os.SCHED_IDLE)


def test_what_the_kernel_refuses_changes_nothing() -> None:
    # On a machine whose numbers of the calls are not known, and of a thread that there is not.
    own = threading.get_native_id()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "sparc64")
        assert not slices.shorten(own)
        with slices.shortened():
            assert slices.slice_of(own) is None
    assert not slices.shorten(1 << 30)
    assert own_slice() == OWN


@pytest.mark.parametrize("text", ["short", "-1", "0.5", "99", "100001"])
def test_a_variable_that_is_no_slice_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slices.VARIABLE, text)
    with pytest.raises(ValueError, match=f"LOCKSTEP_SLICE_US is '{text}'"):
        slices.shorten(threading.get_native_id())
