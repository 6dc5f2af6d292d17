"""The placement benchmark as a person runs it, as small as it can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import slurm


def test_four_ways_to_start_a_training_are_measured_side_by_side(tmp_path: Path) -> None:
    slurm.needed()
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two ranks need two CPUs")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.placement", "--quick", "--json", "--model", "wide-mlp", "--rounds", "1",
         "--steps", "1", "--kept", str(tmp_path / "kept.jsonl")],
        capture_output=True, text=True, check=False, timeout=280, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["peer_name"]: row for row in found["rows"]}
    assert {"srun", "horovodrun"} <= set(rows)
    assert any(name.startswith("best of them: ") for name in rows)
    for row in rows.values():
        assert row["valid"], row
        assert row["ours"] > 0
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert any("lockstep: CPUs" in note and "srun: CPUs" in note for note in found["notes"])
