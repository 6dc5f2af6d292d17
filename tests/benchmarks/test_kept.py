"""What a benchmark keeps of its finished pieces."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kept import Kept

FOUND = {"ours": [1.5, 2.5]}


def test_an_interrupted_benchmark_finds_what_it_had_measured(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "kept.jsonl"
    Kept(file, "today").add("first", FOUND)
    with file.open("a") as torn:
        torn.write('{"fingerprint": "today", "laun')
    again = Kept(file, "today")
    assert again.find("first") == FOUND
    assert again.find("second") is None
    again.add("second", FOUND)
    assert Kept(file, "today").find("second") == FOUND


def test_what_another_lockstep_or_machine_measured_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    Kept(file, "yesterday").add("first", FOUND)
    assert Kept(file, "today").find("first") is None


def test_a_finished_benchmark_measures_anew_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    kept = Kept(file, "today")
    kept.add("first", FOUND)
    kept.done()
    assert Kept(file, "today").find("first") is None
    assert (tmp_path / "kept.jsonl.last").exists()
