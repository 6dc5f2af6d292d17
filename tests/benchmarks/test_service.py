"""The service's benchmark: its rounds, its rows, and that what was measured is not measured again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks import service
from benchmarks.kept import Kept
from benchmarks.serving.frame import Form, Found, rate, take_turns


def test_every_round_begins_with_another_arm_and_each_arm_has_its_turn() -> None:
    called: list[tuple[str, int]] = []

    def turn(name: str, number: int) -> float:
        called.append((name, number))
        return float(len(called))

    costs = take_turns({name: partial(turn, name) for name in "abc"}, 3)
    assert [name for name, _ in called] == list("abcbcacab")
    assert [number for _, number in called] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert costs == {"a": [1.0, 6.0, 8.0], "b": [2.0, 4.0, 9.0], "c": [3.0, 5.0, 7.0]}


def test_a_rate_is_larger_where_the_cost_is_smaller() -> None:
    costs = {"REST": [0.005, 0.005], "loop": [0.010, 0.010]}
    row = rate(case="2 jobs", metric="m", unit="jobs/s", costs=costs, ours="REST", peer="loop", valid=True, target=1.0)
    assert (row.ours, row.peer) == (200.0, 100.0)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (2.0, 2.0, 2.0)
    assert row.target == 1.0


def test_a_part_that_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found((), ("a note",))
    forms: list[Form] = []

    def measure(_part: service.Part, form: Form) -> Found:
        assert form.folder.is_dir()
        forms.append(form)
        return found

    monkeypatch.setattr(service.Part, "measure", measure)
    for _ in range(2):
        kept = Kept(tmp_path / "kept.jsonl", "today")
        assert service.measured(service.PARTS[0], kept, quick=True, cache=tmp_path) == found
    assert len(forms) == 1
    assert not forms[0].folder.exists()


def test_another_form_is_another_measurement() -> None:
    assert service.fingerprint(quick=True) == service.fingerprint(quick=True)
    assert service.fingerprint(quick=True) != service.fingerprint(quick=False)
