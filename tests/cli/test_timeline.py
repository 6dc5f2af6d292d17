"""``lockstep show``: what happened to a job, one line each."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cli.timeline import MOST_ENTRIES, lines
from support.lockstep import Lockstep
from support.placements import RunOnNodes, machine


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A service for runs that were made by hand."""
    found = Lockstep(tmp_path_factory.mktemp("home"), None)
    found.environment["TZ"] = "Asia/Kathmandu"
    found.start("local")
    try:
        yield found
    finally:
        found.kill(signal.SIGTERM)


def test_an_imported_run_shows_what_happened(ours: Lockstep, tmp_path: Path) -> None:
    made = RunOnNodes(tmp_path / "runs", machine())
    made.tell(0, "data", {"data": "digits", "path": "", "staged": "", "train": 1437, "held_out": 360, "classes": 10})
    made.tell(0, "checkpoint", {"bytes": 1 << 20, "seconds": 0.5, "path": "step-5"}, step=5)
    made.end()
    ours.run("import", made.run)
    shown = ours.run("show", made.run.name).stdout.splitlines()
    happened = ours.json("show", made.run.name)["timeline"]
    assert "imported" in [entry["kind"] for entry in happened]
    saved = "Attempt 1 saved a checkpoint behind step 5 as step-5, 1 MiB, written in 500 ms."
    assert saved in [entry["text"] for entry in happened]
    rows = {line.split("  ")[0].strip(): line.rstrip() for line in shown}
    assert rows["global batch"].endswith("128 = 4 x 32")
    assert rows["data"].endswith("Trains on 1,437 samples of digits and is evaluated on 360, of 10 classes.")
    for line, entry in zip(shown[-len(happened) :], happened, strict=True):
        assert line.endswith(f"  {entry['text']}")
        # In Kathmandu it is a quarter to the hour.
        assert line[14:16] == f"{(int(entry['time'][14:16]) + 45) % 60:02}"


def _entries(count: int) -> list[dict[str, Any]]:
    return [{"time": "2026-11-23T06:00:00.000Z", "text": f"Thing {number}."} for number in range(count)]


def test_many_entries_are_cut_at_the_old_end_and_counted() -> None:
    said = list(lines(_entries(MOST_ENTRIES + 7)))
    assert said[0] == "... 7 earlier: --json has all of them"
    assert said[1].endswith("  Thing 7.")
    assert len(said) == MOST_ENTRIES + 1
    assert len(list(lines(_entries(MOST_ENTRIES)))) == MOST_ENTRIES
