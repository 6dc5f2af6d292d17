"""The parts of the service's benchmark, as small as they can be: each measures, and each finds itself valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving import listening, listing, submitting
from benchmarks.serving.environments import PeerError
from benchmarks.serving.frame import Form, Found
from support import slurm


@pytest.fixture
def form(tmp_path_factory: pytest.TempPathFactory) -> Form:
    return Form(quick=True, folder=tmp_path_factory.mktemp("b"), cache=Path("/nonexistent"), say=lambda _text: None)


def check(found: Found) -> None:
    for row in found.rows:
        assert row.valid, row
        assert row.ours > 0, row
        assert row.peer > 0, row
        assert row.ratio_low <= row.ratio <= row.ratio_high, row


def test_submissions_through_rest_beside_sbatch(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.needed()

    def absent(*_arguments: object) -> Path:
        raise PeerError("no package index is asked by a test")

    monkeypatch.setattr(submitting, "provide", absent)
    monkeypatch.setattr(submitting, "QUICK", (6, 2))
    monkeypatch.setattr(submitting, "A_REQUEST", 4)
    found = submitting.measure(form)
    check(found)
    assert [row.peer_name for row in found.rows] == [submitting.LOOP, submitting.WIDE] * 2
    assert [row.case.split(", ")[1] for row in found.rows] == [
        how for how in submitting.OURS.values() for _ in range(2)
    ]
    assert any("submitit is left out: no package index" in note for note in found.notes)


def test_the_list_with_many_jobs_beside_few(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MANY", 220)
    monkeypatch.setattr(listing, "FEW", 120)
    monkeypatch.setattr(listing, "LOOKS", 1)
    found = listing.measure(form)
    check(found)
    assert len(found.rows) == 2


def test_listeners_of_the_list_and_of_pages(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "LISTENERS", 6)
    monkeypatch.setattr(listening, "QUICK", 2)
    found = listening.measure(form)
    check(found)
    assert len(found.rows) == 3


def test_where_each_hears_of_a_change_of_its_own_the_percentile_over_the_changes_has_an_interval() -> None:
    case = listening.Case("each", [listening.Listener("/x")] * 20, listening.listed, 20, everyone=False)
    row = listening.row_of(case, [*[100.0] * 15, 200.0, 300.0, 400.0, 500.0, 600.0], valid=True)
    assert (row.ours, row.ratio) == (500.0, 2.0)
    assert row.ratio_low <= 2.0 <= row.ratio_high
    assert row.ratio_low < row.ratio_high
