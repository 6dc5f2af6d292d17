"""A thread's role is how it was born: whatever its mask, whoever else is born meanwhile, whatever id it is given."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lockstep_worker.births import Births, in_order, start_of, threads_alive


class Kernel:
    """Threads as the kernel lists them, to be born and to end at will."""

    def __init__(self) -> None:
        self.threads = {os.getpid(): 1}

    def __call__(self) -> dict[int, int]:
        return dict(self.threads)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def births(kernel: Kernel) -> Births:
    return Births(kernel)


@contextmanager
def python_thread() -> Iterator[int]:
    """A thread of Python's, by its id."""
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    assert thread.native_id is not None
    yield thread.native_id
    go.set()
    thread.join()


def test_roles_are_given_in_the_order_of_birth_and_the_last_to_the_rest(births: Births, kernel: Kernel) -> None:
    with births.during("horovod", "gloo"):
        kernel.threads |= {9_000_001: 7, 9_000_003: 8, 9_000_002: 8}
    assert [births.role(9_000_000 + n, start) for n, start in ((1, 7), (2, 8), (3, 8))] == ["horovod", "gloo", "gloo"]
    assert births.role(os.getpid(), 1) == "main"


def test_what_is_born_in_a_call_within_a_call_keeps_its_role(births: Births, kernel: Kernel) -> None:
    with births.during("imported"):
        kernel.threads[9_000_001] = 5
        with births.during("compute"):
            kernel.threads[9_000_002] = 5
        kernel.threads[9_000_003] = 5
    assert [births.role(9_000_000 + n, 5) for n in (1, 2, 3)] == ["imported", "compute", "imported"]


def test_an_id_that_is_given_again_is_another_thread(births: Births, kernel: Kernel) -> None:
    with births.during("compute"):
        kernel.threads[9_000_001] = 5
    kernel.threads[9_000_001] = 6
    assert births.role(9_000_001, 6) == "unclassified"
    assert births.unknown() == [9_000_001]
    # Also one whose predecessor was there before.
    with births.during("gloo"):
        kernel.threads[9_000_001] = 7
    assert births.role(9_000_001, 7) == "gloo"


def test_a_failure_within_leaves_no_thread_without_its_role(births: Births, kernel: Kernel) -> None:
    def init() -> None:
        with births.during("horovod"):
            kernel.threads[9_000_001] = 5
            raise RuntimeError("no peers")

    with pytest.raises(RuntimeError, match="no peers"):
        init()
    assert births.role(9_000_001, 5) == "horovod"


@pytest.mark.parametrize(
    ("born", "order"),
    [
        ({12: 5, 11: 5, 10: 6}, [11, 12, 10]),  # the moment first, then the id
        ({32_760: 5, 301: 5, 300: 5}, [32_760, 300, 301]),  # ids begin again from below
        ({}, []),
    ],
)
def test_the_order_of_birth(born: dict[int, int], order: list[int]) -> None:
    assert in_order(born, highest=32_768) == order


def test_a_thread_of_pythons_is_no_librarys() -> None:
    births = Births()
    with ExitStack() as stack:
        with births.during("horovod"):
            tid = stack.enter_context(python_thread())
        start = threads_alive()[tid]
        assert births.role(tid, start) == "unclassified"
        assert tid not in births.unknown()
        births.give([tid], "exchange")
        assert births.role(tid, start) == "exchange"


def test_the_name_of_a_thread_may_hold_anything() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    assert start_of(f"17 (a) b (c) S {fields}".encode()) == 22


def test_a_thread_says_itself_what_it_is_and_a_forked_child_begins_anew() -> None:
    code = """
import os, threading
from lockstep_worker import births
seen = []
def run():
    births.register("exchange")
    tid = threading.get_native_id()
    seen.append(births.BIRTHS.role(tid, births.threads_alive()[tid]))
thread = threading.Thread(target=run)
thread.start(); thread.join()
assert seen == ["exchange"], seen
pid = os.fork()
if pid == 0:
    births.register("loader")
    tid = threading.get_native_id()
    os._exit(0 if births.BIRTHS.role(tid, births.threads_alive()[tid]) == "main" else 3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
