"""Small trainings for tests, and what their ranks have said."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockstep_slurm.job.rundir import spool_files
from support.ranks import Launched

MLP = {
    "model": "digits-mlp",
    "data": "digits",
    "learning_rate": 0.05,
    "weight_decay": 0.001,
    "warmup_steps": 5,
    "seed": 3,
}
REPORTS_FOR_EVER = """
import sys, time
import lockstep
step = 0
while True:
    step += 1
    lockstep.report(step=step, loss=1.0)
    time.sleep(0.02)
"""
MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]


def is_contiguous(launched: Launched) -> bool:
    """Whether every rank's ``seq`` counts from 1 without holes in its spool."""
    by_rank: dict[int, list[int]] = {}
    for record in launched.records():
        by_rank.setdefault(record["rank"], []).append(record["seq"])
    return all(seqs == list(range(1, len(seqs) + 1)) for seqs in by_rank.values())


def digests(launched: Launched) -> set[str]:
    """The parameters' digests of all ranks."""
    return {record["values"]["parameters_sha256"] for record in launched.records("end")}


def mean_losses(launched: Launched) -> list[float]:
    """The loss of each global batch: the mean over ranks, whose shares are equal."""
    by_step: dict[int, list[float]] = {}
    for record in launched.records("step"):
        by_step.setdefault(record["step"], []).append(record["values"]["loss"])
    return [sum(by_step[step]) / len(by_step[step]) for step in sorted(by_step)]


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, what
        time.sleep(0.05)
    return found


def spool_text(launched: Launched) -> str:
    return "".join(file.read_text() for file in spool_files(launched.run, 1))
