"""Run directories, and ranks launched for real as ``python -m lockstep_worker.launch`` starts them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory
from lockstep_slurm.job.spec import JobSpec
from support.hooked import Train, run_hooked
from support.ranks import Launched, base_environment

MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(model=..., ...)``: a run directory whose spec has this ``training`` section (and others by name)."""

    def make(sections: dict[str, Any] | None = None, **training: Any) -> Path:
        spec = JobSpec.model_validate({"training": training, **(sections or {})})
        return make_run_directory(
            tmp_path / "runs", new_job_id(), spec.model_dump_json(), "#!/bin/bash\n", by_hand=True
        )

    return make


@pytest.fixture
def launch() -> Iterator[Launch]:
    """``launch(run, ranks)`` without Slurm, or ``launch(run, slurm={...})`` for one task as ``srun`` would start it."""
    launched: list[Launched] = []

    def start(
        run: Path,
        ranks: int | None = None,
        slurm: dict[str, str] | None = None,
        *extra: str,
        prefix: tuple[str, ...] = (),
    ) -> Launched:
        arguments = [*(["--local-ranks", str(ranks)] if ranks else []), *extra]
        launched.append(Launched(run, arguments, base_environment() | (slurm or {}), prefix))
        return launched[-1]

    yield start
    for one in launched:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """``train(code)``: runs it with the hook (``run_hooked``)."""
    return functools.partial(run_hooked, tmp_path)
