"""The data of a recipe, opened on all ranks together: staged where the spec says so, and the same everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import horovod.torch as hvd

import lockstep
from lockstep_worker import data
from lockstep_worker.data.staging import Progress, Stage
from lockstep_worker.errors import DataError
from lockstep_worker.recipe import Recipe


@contextmanager
def opened(recipe: Recipe) -> Iterator[tuple[data.DataSet, Path | None]]:
    """The data set, and where its copy is if staged, until the training ends: a copy without users is removed then.

    Every rank has to call it, after ``hvd.init()``. What one of them finds wrong is its ``DataError``, and ends all.
    """
    stage: Stage | None = None
    try:
        # Not by the files that ranks meet through: however long one node copies, Horovod's own threads keep in touch.
        if recipe.stage and hvd.local_rank() == 0:
            stage, error = _staged(recipe)
        else:
            error = None
        copies = _agreed(error, stage.folder if stage is not None else None)
        folder = next((copy for node, copy in copies if copy is not None and node == _node()), None)
        samples, error = _loaded(recipe, folder)
        fingerprints = _agreed(error, samples.fingerprint() if samples is not None else None)
        assert samples is not None  # else _agreed has raised
        for rank, (node, fingerprint) in enumerate(fingerprints):
            if fingerprint != fingerprints[0][1]:
                if hvd.rank() != rank:
                    raise SystemExit(DataError.code)
                raise DataError(
                    f"rank {rank} on {node} does not see the same files at {recipe.data_path} as rank 0; all nodes "
                    "need the same data set"
                )
        yield samples, folder
    finally:
        if stage is not None:
            stage.leave()


def loader_cpus() -> list[int]:
    """The CPUs that this rank's loaders have; none where the rank loads for itself."""
    return [int(cpu) for cpu in os.environ.get("LOCKSTEP_LOADER_CPUS", "").split(",") if cpu]


def _staged(recipe: Recipe) -> tuple[Stage | None, str | None]:
    node = _node()

    def tell(progress: Progress) -> None:
        lockstep.report(kind="staging", node=node, folder=str(disk), **progress._asdict())
        print(
            f"lockstep: {node}: staged {progress.copied_bytes / 1e6:,.0f} of {progress.total_bytes / 1e6:,.0f} MB "
            f"({progress.files:,} files) to {disk} in {progress.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )

    disk = Path(recipe.stage if isinstance(recipe.stage, str) else os.environ.get("LOCKSTEP_LOCAL_DISK", "/tmp"))  # noqa: S108
    try:
        stage = Stage(Path(recipe.data_path or ""), data.FOLDERS[recipe.data], disk)
        if not stage.fill(tell):
            print(f"lockstep: {node}: {stage.folder} has the data already", file=sys.stderr, flush=True)
    except DataError as error:
        return None, str(error)
    return stage, None


def _loaded(recipe: Recipe, folder: Path | None) -> tuple[data.DataSet | None, str | None]:
    try:
        return data.load(recipe, hvd.size(), folder), None
    except DataError as error:
        return None, str(error)


def _node() -> str:
    return os.environ.get("HOROVOD_HOSTNAME", "")


def _agreed(error: str | None, value: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    """Every rank's node and ``value``. Where one has an ``error``, it raises ``DataError``, and the others end."""
    told = hvd.allgather_object((error, _node(), value), name="lockstep.data")
    for rank, (what, node, _) in enumerate(told):
        if what is not None:
            if rank == hvd.rank():
                raise DataError(f"rank {rank} on {node}: {what}")
            raise SystemExit(DataError.code)
    return [(node, value) for _, node, value in told]


def tell(recipe: Recipe, samples: data.DataSet, folder: Path | None) -> None:
    """What is trained on, as a record of rank 0's; the copy in ``folder`` of what is staged."""
    if hvd.rank() == 0:
        lockstep.report(
            kind="data",
            data=recipe.data,
            path=recipe.data_path or "",
            staged=str(folder or ""),
            train=samples.train,
            held_out=samples.held_out,
            classes=samples.classes,
        )
