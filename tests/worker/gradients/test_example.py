"""The example's one line: with Horovod's own in its place the script trains identically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lockstep_slurm.job.file import read
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory
from support.ranks import ROOT, Launched, base_environment

EXAMPLE = ROOT / "examples" / "gradients"
HOROVODS = {
    "optimizer = lockstep.DistributedOptimizer(": "optimizer = hvd.DistributedOptimizer(",
    ', transport="tcp")': ")",
}


def losses(folder: Path, script: str) -> tuple[list[Any], list[str]]:
    """The losses of all ranks at every step, and the evaluations that the script printed."""
    folder.mkdir()
    (folder / "train.py").write_text(script)
    spec = read(EXAMPLE / "gradients.toml")
    training = spec.training.model_copy(update={"script": str(folder / "train.py"), "arguments": ["--steps", "50"]})
    spec = spec.model_copy(update={"training": training})
    run = make_run_directory(folder / "runs", new_job_id(), spec.model_dump_json(), "#!/bin/bash\n", by_hand=True)
    launched = Launched(run, ["--local-ranks", "2"], base_environment())
    try:
        assert launched.wait() == 0, launched.text
    finally:
        if launched.process.poll() is None:
            launched.process.kill()
            launched.process.wait()
    steps = [(one["step"], one["rank"], one["values"]["loss"]) for one in launched.records("step")]
    return sorted(steps), [line for line in launched.text.splitlines() if "right" in line]


def test_the_example_trains_as_with_horovods_own_optimizer(tmp_path: Path) -> None:
    script = its = (EXAMPLE / "train.py").read_text()
    for old, new in HOROVODS.items():
        assert its.count(old) == 1
        its = its.replace(old, new)
    ours, evaluations = losses(tmp_path / "ours", script)
    horovods, expected = losses(tmp_path / "horovods", its)
    assert len(ours) == 100
    assert ours == horovods
    assert len(evaluations) == 1
    assert evaluations == expected
