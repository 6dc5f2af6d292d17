"""The contract suite's table in docs: it names exactly the cases that the suite has, and none of them failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import compatibility
from support.compatibility import Summary, Table

ROOT = Path(__file__).parents[2]
WRITE = "write it anew: .venv/bin/python -m pytest tests/clients --write-compatibility"


# What runs on every machine that runs the tests. Other columns (pyslurm) are recorded where they can run.
EVERYWHERE = ("command-22.05", "command-24.11", "local")


def test_the_committed_table_names_exactly_the_cases_of_the_suite() -> None:
    argv = [sys.executable, "-m", "pytest", "tests/clients", "--collect-only", "--quiet"]
    # Without a person's own options, which may change the form of what is printed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    suite = Table()
    for line in done.stdout.splitlines():
        suite.add(line, "collected")
    committed = compatibility.read(compatibility.FILE.read_text(encoding="utf-8"))
    assert set(EVERYWHERE) <= set(suite.columns)
    assert len(suite.outcomes) > 50
    assert set(committed.outcomes) == set(suite.outcomes), WRITE
    for column in suite.columns:
        if column in EVERYWHERE or column in committed.columns:
            assert set(committed.of(column)) == set(suite.of(column)), WRITE


def test_no_case_of_the_committed_table_failed() -> None:
    committed = compatibility.read(compatibility.FILE.read_text(encoding="utf-8"))
    outcomes = {outcome for column in committed.columns for outcome in committed.of(column).values()}
    assert outcomes <= {"passed", "skipped", compatibility.NOT_RUN}
    assert {outcome for column in EVERYWHERE for outcome in committed.of(column).values()} == {"passed"}


@pytest.mark.parametrize(
    ("nodeid", "found"),
    [
        ("tests/clients/test_contract.py::TestA::test_b_c[local]", ("a: b c", "local")),
        (
            "tests/clients/test_contract_x.py::TestAsking::test_b[command-24.11-x-y]",
            ("asking: b `x-y`", "command-24.11"),
        ),
        ("tests/clients/test_contract.py::TestTheCluster::test_b[pyslurm-25.11]", ("the cluster: b", "pyslurm-25.11")),
        ("tests/clients/test_contract.py::TestA::test_b", None),
        ("tests/clients/test_contract.py::TestA::test_b[22.05]", None),
        ("tests/clients/test_command.py::TestA::test_b[command-22.05]", None),
    ],
    ids=["a case", "with parameters", "of two words", "without any", "without a column", "not of the contract"],
)
def test_a_case_is_a_test_of_the_contract_that_has_a_column(nodeid: str, found: tuple[str, str] | None) -> None:
    assert compatibility.case_and_column(nodeid) == found


class TestTheTable:
    one = "tests/clients/test_contract.py::TestA::test_one[{}]"
    two = "tests/clients/test_contract.py::TestA::test_two[{}-a|b]"

    def table(self, outcomes: dict[str, str], date: str) -> Table:
        table = Table()
        for column, outcome in outcomes.items():
            table.add(self.one.format(column), outcome)
            table.summaries[column] = Summary(column.partition("-")[2], date)
        return table

    def test_it_reads_back_as_it_was_written(self) -> None:
        table = self.table({"command-22.05": "passed", "local": "skipped"}, "2026-01-02")
        table.add(self.two.format("local"), "failed")
        assert compatibility.read(compatibility.write(table)) == table

    def test_a_column_of_which_nothing_ran_keeps_its_record(self) -> None:
        old = self.table({"command-22.05": "failed", "pyslurm-25.11": "passed"}, "2025-01-01")
        new = self.table({"command-22.05": "passed", "pyslurm-25.11": "skipped", "local": "passed"}, "2026-01-02")
        merged = compatibility.merge(new, old)
        assert merged.outcomes == {"a: one": {"command-22.05": "passed", "pyslurm-25.11": "passed", "local": "passed"}}
        assert {column: summary.date for column, summary in merged.summaries.items()} == {
            "command-22.05": "2026-01-02",
            "pyslurm-25.11": "2025-01-01",
            "local": "2026-01-02",
        }

    def test_a_case_that_came_later_was_not_run_in_the_columns_of_its_client_that_are_kept(self) -> None:
        old = self.table(
            {"command-22.05": "passed", "pyslurm-22.05": "passed", "pyslurm-25.11": "passed"}, "2025-01-01"
        )
        new = self.table({"command-22.05": "passed", "pyslurm-22.05": "passed"}, "2026-01-02")
        new.add(self.two.format("command-22.05"), "passed")
        new.add(self.two.format("pyslurm-22.05"), "passed")
        new.add("tests/clients/test_contract.py::TestA::test_three[command-22.05]", "passed")
        merged = compatibility.merge(new, old)
        assert merged.of("pyslurm-25.11") == {"a: one": "passed", "a: two `a|b`": "not run"}
        assert (merged.count("pyslurm-25.11", "passed"), merged.count("pyslurm-25.11", "not run")) == (1, 1)
        assert compatibility.read(compatibility.write(merged)) == merged

    def test_a_client_that_is_not_there_gets_no_column_beside_those_that_are_kept(self) -> None:
        old = self.table({"pyslurm-25.11": "passed"}, "2025-01-01")
        new = self.table({"command-22.05": "passed", "pyslurm": "skipped"}, "2026-01-02")
        new.add(self.two.format("pyslurm"), "skipped")
        merged = compatibility.merge(new, old)
        assert merged.columns == ["command-22.05", "pyslurm-25.11"]
        assert merged.of("pyslurm-25.11") == {"a: one": "passed", "a: two `a|b`": "not run"}

    def test_a_case_that_is_gone_is_kept_for_no_column(self) -> None:
        old = self.table({"pyslurm-25.11": "passed"}, "2025-01-01")
        new = Table()
        new.add(self.two.format("local"), "passed")
        assert compatibility.merge(new, old).columns == ["local"]

    def test_what_went_wrong_while_clearing_away_is_a_failure(self) -> None:
        table = self.table({"local": "failed"}, "2026-01-02")
        table.add(self.one.format("local"), "passed")
        assert table.count("local", "failed") == 1
