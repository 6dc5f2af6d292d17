"""The contract suite's table, client x Slurm x case: collected while the tests run, printed at their end, kept in docs.

    .venv/bin/python -m pytest tests/clients --write-compatibility

writes ``docs/compatibility-table.md``. A column of which nothing ran keeps what the file says of it, with its date;
cases that came later than that are "not run" in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support import slurms

FILE = Path(__file__).parents[2] / "docs" / "compatibility-table.md"
NOT_FOR_IT = "-"
"""The cell of a case that a column does not have: the local queue takes no partition, for example."""
NOT_RUN = "not run"
"""The cell of a case that came after the last run of the column."""
_OUTCOMES = ("passed", "failed", "skipped", NOT_RUN)
_NODE = re.compile(r"tests/clients/test_contract\w*\.py::Test(?P<group>\w+)::test_(?P<words>\w+)\[(?P<rest>.*)\]")
_COLUMN = re.compile(r"((?:command|pyslurm)-\d+\.\d+|pyslurm|local)(?:-(.*))?")
_HEAD = """\
# The contract suite's table

Every client keeps the same sentences (`tests/clients/test_contract*.py`), over each Slurm. `make test` prints this
table as it is on the machine at hand; here is what was recorded last. A column is a client and the Slurm it talked to;
`-` means that a case is not about that client, `not run` that it came after the column's date. What the clients are:
[slurm-clients.md](slurm-clients.md).

Written by `.venv/bin/python -m pytest tests/clients --write-compatibility`; a test holds that it names every case.

"""


@dataclass(frozen=True)
class Summary:
    """What is said of a whole column."""

    slurm: str
    date: str


@dataclass
class Table:
    """Outcomes by case and column, in the order of the suite, and a summary of each column."""

    outcomes: dict[str, dict[str, str]] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Every column: the clients of Slurm by name, and then the local queue."""
        found = {column for cells in self.outcomes.values() for column in cells}
        return sorted(found, key=lambda column: (column == "local", column))

    def of(self, column: str) -> dict[str, str]:
        """A column's outcomes by case."""
        return {case: cells[column] for case, cells in self.outcomes.items() if column in cells}

    def count(self, column: str, outcome: str) -> int:
        """How many cases of the column came out so."""
        return list(self.of(column).values()).count(outcome)

    def ran(self, column: str) -> bool:
        """Whether any case of the column ran."""
        return self.count(column, "passed") + self.count(column, "failed") > 0

    def add(self, nodeid: str, outcome: str) -> None:
        """Takes a test's outcome into the table, if it is a case of the suite; what went wrong is never overwritten."""
        found = case_and_column(nodeid)
        if found is not None:
            cells = self.outcomes.setdefault(found[0], {})
            if cells.get(found[1]) != "failed":
                cells[found[1]] = outcome


def case_and_column(nodeid: str) -> tuple[str, str] | None:
    """The case and the column of a test, by its node id; None for a test that is no case of the suite."""
    node = _NODE.fullmatch(nodeid)
    column = _COLUMN.fullmatch(node["rest"]) if node else None
    if node is None or column is None:
        return None
    group = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node["group"]).lower()
    case = f"{group}: {node['words'].replace('_', ' ')}"
    return (f"{case} `{column[2]}`" if column[2] else case), column[1]


def merge(new: Table, old: Table) -> Table:
    """The new table, with the old columns of which nothing ran this time, as far as their cases still exist.

    Those have no column of their own for a client that is not there.
    """
    outcomes = {case: dict(cells) for case, cells in new.outcomes.items()}
    summaries = dict(new.summaries)
    idle = {column for column in new.columns if not new.ran(column)}
    for column in old.columns:
        if new.ran(column):
            continue
        summaries[column] = old.summaries[column]
        for case, cells in new.outcomes.items():
            if any(_kind(one) == _kind(column) for one in cells):
                outcomes[case][column] = old.outcomes.get(case, {}).get(column, NOT_RUN)
    for column in idle - set(old.columns):
        if any(_kind(one) == column for one in old.columns):
            summaries.pop(column, None)
            for cells in outcomes.values():
                cells.pop(column, None)
    return Table(outcomes, summaries)


def _kind(column: str) -> str:
    return column.partition("-")[0]


def write(table: Table) -> str:
    """The page."""
    rows = [
        [column, table.summaries[column].slurm]
        + [str(table.count(column, outcome)) for outcome in _OUTCOMES]
        + [table.summaries[column].date]
        for column in table.columns
    ]
    cells = [
        [case, *(found.get(column, NOT_FOR_IT) for column in table.columns)] for case, found in table.outcomes.items()
    ]
    return (
        _HEAD
        + _markdown(["column", "Slurm", *_OUTCOMES, "date"], rows)
        + "\n"
        + _markdown(["case", *table.columns], cells)
    )


def read(text: str) -> Table:
    """A page that ``write`` wrote."""
    lines = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    second = next((index for index, line in enumerate(lines) if line[0] == "case"), len(lines))
    table = Table(summaries={line[0]: Summary(line[1], line[-1]) for line in lines[1:second]})
    for case, *cells in lines[second + 1 :]:
        outcomes = zip(lines[second][1:], cells, strict=True)
        table.outcomes[case] = {column: outcome for column, outcome in outcomes if outcome != NOT_FOR_IT}
    return table


def _markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "|" + "|".join(cell if cell == "---" else f" {cell.replace('|', chr(92) + '|')} " for cell in line) + "|\n"
        for line in lines
    )


class Reporter:
    """The pytest plugin: listens to the outcomes, prints the table, writes it when asked to."""

    def __init__(self, *, writes: bool) -> None:
        self._writes = writes
        self._table = Table()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes what a test came to: its call, or that its setting up or clearing away went another way."""
        if report.when == "call" or not report.passed:
            self._table.add(report.nodeid, "xfail" if hasattr(report, "wasxfail") else report.outcome)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints the table, one line for each case, above pytest's own last line."""
        table = self._table
        if not table.outcomes:
            return
        table.summaries = _summaries(table.columns)
        terminalreporter.section("the clients' contract: client x Slurm x case")
        widths = {column: max(len(column), len("skipped")) for column in table.columns}
        terminalreporter.write_line("  ".join([*(column.ljust(width) for column, width in widths.items()), "case"]))
        for case, cells in table.outcomes.items():
            found = [cells.get(column, NOT_FOR_IT).ljust(width) for column, width in widths.items()]
            terminalreporter.write_line("  ".join([*found, case]))
        for column in table.columns:
            counts = [f"{table.count(column, one)} {one}" for one in ("passed", "failed", "skipped")]
            terminalreporter.write_line(f"{column}: Slurm {table.summaries[column].slurm}, {', '.join(counts)}")
        if self._writes:
            old = read(FILE.read_text(encoding="utf-8")) if FILE.exists() else Table()
            FILE.write_text(write(merge(table, old)), encoding="utf-8")
            terminalreporter.write_line(f"written: {FILE}")


def _summaries(columns: Iterable[str]) -> dict[str, Summary]:
    today = datetime.now(UTC).date().isoformat()
    versions = {column: column.partition("-")[2] for column in columns}
    return {
        column: Summary((version and slurms.exact(version)) or "none", today) for column, version in versions.items()
    }
