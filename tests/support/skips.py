"""With ``CI=true`` a skipped test is a failed test, unless ``expected-skips.toml`` names it with its reason."""

from __future__ import annotations

import fnmatch
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "expected-skips.toml"


@dataclass(frozen=True)
class ExpectedSkip:
    """Tests whose node ids match ``test`` (shell-style wildcards) may be skipped; ``reason`` says why."""

    test: str
    reason: str


def read(file: Path = FILE) -> list[ExpectedSkip]:
    """The skips that are expected; ``pytest.UsageError`` where the file names one without a reason."""
    rows = tomllib.loads(file.read_text()).get("skip", [])
    for row in rows:
        if set(row) != {"test", "reason"} or not str(row["reason"]).strip():
            raise pytest.UsageError(
                f"{file}: every [[skip]] has a `test` and a `reason`, and nothing else; this one has {row}"
            )
    return [ExpectedSkip(row["test"], row["reason"]) for row in rows]


def judge(report: pytest.TestReport | pytest.CollectReport, expected: list[ExpectedSkip]) -> None:
    """Turns an unexpected skip into a failure, in place."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    # "[" begins a character class for fnmatch, and a parameter for pytest: in this file it is a parameter.
    if any(fnmatch.fnmatchcase(report.nodeid, skip.test.replace("[", "[[]")) for skip in expected):
        return
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped, which tests/expected-skips.toml does not expect under CI=true. {said}"
