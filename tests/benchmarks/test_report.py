"""A benchmark's figures: what its interval says, and how it is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.report import Row, figure, markdown, paired


def row(ours: list[float], peer: list[float], groups: list[int] | None = None) -> Row:
    return paired(
        case="a case", metric="time", unit="s", ours=ours, peer=peer, peer_name="another", valid=True, groups=groups
    )


def test_a_ratio_above_one_says_that_ours_costs_less() -> None:
    assert row([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]).ratio == 2.0


def test_the_ratio_is_of_pairs_and_not_of_medians() -> None:
    # The machine was ten times slower for both in the last two pairs.
    found = row([1.0, 10.0, 10.0], [1.1, 11.0, 11.0])
    assert found.ratio == pytest.approx(1.1)
    assert found.ratio_low == pytest.approx(1.1)
    assert found.ratio_high == pytest.approx(1.1)


def test_many_pairs_of_two_launches_that_differ_do_not_pass_for_many_launches() -> None:
    ours, peer = [1.0] * 40, [0.9] * 20 + [1.1] * 20
    groups = [0] * 20 + [1] * 20
    grouped = row(ours, peer, groups)
    assert (grouped.ratio_low, grouped.ratio_high) == (0.9, 1.1)
    # Each launch by itself is as narrow as can be, which is what would be claimed without groups of one of them.
    assert row(ours[:20], peer[:20]).ratio_high == 0.9


@pytest.mark.parametrize(
    ("value", "shown"), [(0.00123, "0.00123"), (1.0, "1"), (99.94, "99.9"), (915.6, "916"), (166_700.0, "166,700")]
)
def test_a_figure_is_written_as_a_person_would(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_the_markdown_table_has_every_row_and_note_of_the_json(tmp_path: Path) -> None:
    good = row([1.0], [2.0])
    document = {
        "name": "trial",
        "machine": "a machine",
        "rows": [asdict(good), asdict(replace(good, case="another case", valid=False))],
        "notes": ["a thing that could not be measured"],
    }
    file = tmp_path / "trial.json"
    file.write_text(json.dumps(document))
    printed = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", str(file)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert printed == markdown(document)
    assert "| a case | time, s | 1 | 2 (another) | 2.000 (2.000 to 2.000) | yes |" in printed.splitlines()
    assert "| another case | time, s | 1 | 2 (another) | 2.000 (2.000 to 2.000) | NO |" in printed.splitlines()
    assert printed.endswith("\n- a thing that could not be measured\n")


@pytest.mark.parametrize("text", ["", "[]", '{"name": "trial"}', '{"name": 1, "machine": 2, "rows": [{"case": 3}]}'])
def test_a_file_that_no_benchmark_wrote_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "none.json"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"benchmarks.report: {file} is not what a benchmark prints")
