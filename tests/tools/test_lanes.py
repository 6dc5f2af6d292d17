"""The two lanes of ``make test``: which test is in which, and that none brings up what is the other's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from support.lanes import AGAIN, COMPUTING, EXCEPT, ONCE, Lanes, again, lane

TESTS = Path(__file__).parents[1]


def test_what_computes_is_there() -> None:
    for name in (*COMPUTING, *EXCEPT, *AGAIN, *ONCE):
        assert (TESTS.parent / name).exists(), name


def test_what_computes_may_not_ask_for_what_the_other_lane_brings_up() -> None:
    item = SimpleNamespace(nodeid="tests/site/test_site.py::test_x", fixturenames=["tmp_path", "cluster"])
    with pytest.raises(pytest.UsageError, match="test_x asks for cluster"):
        Lanes().pytest_collection_modifyitems([cast("pytest.Item", item)])
    item.nodeid = "tests/end_to_end/test_x.py::test_x"
    item.add_marker = lambda _marker: None
    Lanes().pytest_collection_modifyitems([cast("pytest.Item", item)])


def test_a_test_is_in_the_lane_of_its_folder() -> None:
    assert lane("tests/placement/test_plan.py::test_x[a]") == "computing"
    assert lane("tests/job/test_script.py::test_x") == "waiting"
    assert lane("tests/end_to_end/test_hosts.py::test_x") == "waiting"


def test_what_races_is_not_run_again() -> None:
    assert again("tests/worker/test_births.py::test_x")
    assert again("tests/end_to_end/test_hosts.py::test_x")
    assert not again("tests/worker/gradients/test_gradients.py::test_two_ranks[sleeps]")
    assert again("tests/worker/gradients/test_example.py::test_x")
    assert not again("tests/end_to_end/test_faults.py::test_every_submission_trains_exactly_once_whatever_goes_wrong")
    assert not again("tests/placement/test_plan.py::test_x")


def test_every_worker_collects_the_same_tests() -> None:
    """A name with a time, a random number or a set's order in it differs between workers, which xdist refuses."""

    def collected(seed: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "--numprocesses", "0", str(TESTS)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        ran = subprocess.run(
            command, cwd=TESTS.parent, env=environment | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr
        return [line for line in ran.stdout.splitlines() if "::" in line]

    first, second = collected("1"), collected("2")
    assert len(first) > 1000
    assert first == second
