"""The rule about skips: under CI=true only the named ones may be skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import skips


def report(nodeid: str, outcome: str = "skipped") -> pytest.TestReport:
    where = ("tests/x.py", 3, "Skipped: no such machine")
    return pytest.TestReport(nodeid, ("tests/x.py", 3, "x"), {}, outcome, where, "setup")  # type: ignore[arg-type]


EXPECTED = [skips.ExpectedSkip("tests/client/test_contract.py::*[pyslurm]", "not installable here")]


@pytest.mark.parametrize(
    ("ci", "nodeid", "outcome"),
    [
        ("true", "tests/client/test_contract.py::test_submit[pyslurm]", "skipped"),
        ("true", "tests/client/test_contract.py::test_submit[command]", "failed"),
        ("true", "tests/other.py::test_x", "failed"),
        ("", "tests/other.py::test_x", "skipped"),
    ],
)
def test_an_unnamed_skip_fails_under_ci(monkeypatch: pytest.MonkeyPatch, ci: str, nodeid: str, outcome: str) -> None:
    monkeypatch.setenv("CI", ci)
    judged = report(nodeid)
    skips.judge(judged, EXPECTED)
    assert judged.outcome == outcome


def test_the_failure_says_why_it_was_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    judged = report("tests/other.py::test_x")
    skips.judge(judged, EXPECTED)
    assert "no such machine" in str(judged.longrepr)
    assert "expected-skips.toml" in str(judged.longrepr)


def test_an_expected_failure_is_not_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    judged = report("tests/other.py::test_x")
    judged.wasxfail = "known"
    skips.judge(judged, EXPECTED)
    assert judged.outcome == "skipped"


def test_a_skip_without_a_reason_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "expected.toml"
    file.write_text('[[skip]]\ntest = "tests/*"\nreason = " "\n')
    with pytest.raises(pytest.UsageError, match="reason"):
        skips.read(file)


def test_the_projects_own_list_can_be_read() -> None:
    assert all(skip.reason for skip in skips.read())
