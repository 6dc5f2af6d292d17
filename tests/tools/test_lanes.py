"""The two lanes of ``make test``: every folder of tests is in one, and none that shares a cluster is in the other."""

from __future__ import annotations

import re
from pathlib import Path

from support.lanes import COMPUTING, lane

TESTS = Path(__file__).parents[1]
SHARED = re.compile(r"def \w+\([^)]*\b(cluster|one_node|hosts|second_cluster|chromium): ")


def test_what_computes_is_there_and_brings_up_nothing_that_is_shared() -> None:
    for folder in COMPUTING:
        files = sorted((TESTS.parent / folder).rglob("test_*.py"))
        assert files or folder == "tests/support/", folder
        for file in files:
            if lane(str(file.relative_to(TESTS.parent))) == "computing":
                found = SHARED.search(file.read_text(encoding="utf-8"))
                assert found is None, f"{file}: {found} asks for what the other lane brings up"


def test_a_test_is_in_the_lane_of_its_folder() -> None:
    assert lane("tests/placement/test_plan.py::test_x[a]") == "computing"
    assert lane("tests/job/test_script.py::test_x") == "waiting"
    assert lane("tests/end_to_end/test_hosts.py::test_x") == "waiting"
