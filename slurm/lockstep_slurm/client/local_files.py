"""The files of the local queue: one folder per job, every file written whole (standard library only).

``<folder>/lock``                    whoever changes the queue holds it (flock)
``<folder>/last-id``                 the newest id given
``<folder>/queue/<id>/job.json``     what was submitted, and what was asked since; written under the lock
``<folder>/queue/<id>/script``       the script as it was at the submit
``<folder>/queue/<id>/run-<n>.json`` the supervisor's claim of restart n: who runs it
``<folder>/queue/<id>/end-<n>.json`` the supervisor's word on how restart n ended
``<folder>/ended/<id>/``             the same, of a job that ended a while ago
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from lockstep_slurm.client.processes import Identity, is_alive, members
from lockstep_slurm.client.protocol import SlurmUnavailableError

LOCK_DEADLINE = 20.0
"""Seconds to wait for the queue's lock; it is held for a supervisor's start at the longest."""


@dataclass(frozen=True)
class Job:
    """job.json: what was submitted, and what was asked since."""

    id: int
    name: str
    arguments: tuple[str, ...]
    directory: str
    output: str
    environment: dict[str, str]
    submitted: float
    held: bool = False
    cancelled: float | None = None
    """When it was cancelled, before its end."""
    restarts: int = 0
    requeued: tuple[int, ...] = ()
    """The restarts that a requeue ended."""
    umask: int | None = None
    """None: that of whatever process starts it."""


@dataclass(frozen=True)
class Run:
    """run-<n>.json: one execution of the script. ``leader`` leads the script's session, once it has been started."""

    started: float
    supervisor: Identity
    leader: Identity | None = None

    def is_alive(self) -> bool:
        """Whether anything of it still runs."""
        return is_alive(self.supervisor) or (self.leader is not None and bool(members(self.leader)))


@dataclass(frozen=True)
class End:
    """end-<n>.json: how one execution ended."""

    ended: float
    code: int | None = None
    signal: int | None = None
    message: str | None = None


@dataclass(frozen=True)
class Files:
    """One job's folder, read."""

    folder: Path
    job: Job
    runs: dict[int, Run] = field(default_factory=dict)
    ends: dict[int, End] = field(default_factory=dict)
    alive: frozenset[int] = frozenset()
    """The runs without an end of which something still runs."""

    def with_job(self, **changes: object) -> Files:
        """The same with another job.json, which is written."""
        job = replace(self.job, **changes)  # type: ignore[arg-type]
        write(self.folder / "job.json", asdict(job))
        return replace(self, job=job)


def write(path: Path, value: object) -> None:
    """Writes JSON so that a reader, or a machine that loses its power, finds all of it or none."""
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    with spare.open("w", encoding="utf-8") as out:
        json.dump(value, out)
        out.flush()
        os.fsync(out.fileno())
    spare.replace(path)


def claim(path: Path, value: object) -> bool:
    """Like ``write``, but only if there is no such file yet; False if there is."""
    spare = path.with_name(f".{path.name}.{os.getpid()}.claim")
    write(spare, value)
    try:
        os.link(spare, path)
    except FileExistsError:
        return False
    finally:
        spare.unlink()
    return True


def read(folder: Path) -> Files | None:
    """One job's folder, or None if there is no such job."""
    try:
        job = _load(folder / "job.json")
        runs = {_number(path): _run(_load(path)) for path in folder.glob("run-*.json")}
        # In this order: a supervisor that was gone before the ends are read has written all that it ever will.
        alive = frozenset(number for number, run in runs.items() if run.is_alive())
        ends = {_number(path): End(**_load(path)) for path in folder.glob("end-*.json")}
    except FileNotFoundError:
        return None
    if not (folder / "job.json").exists():
        # Put away among the ended ones in between: what was read may be half of it.
        return None
    tuples = {"arguments": tuple(job["arguments"]), "requeued": tuple(job["requeued"])}
    return Files(folder, Job(**job | tuples), runs, ends, alive - set(ends))


def read_all(folder: Path) -> list[Files]:
    """All jobs of ``queue`` or ``ended``, in the order of their ids."""
    with suppress(FileNotFoundError):
        ids = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
        return [found for one in ids if (found := read(folder / str(one))) is not None]
    return []


@contextmanager
def locked(folder: Path, deadline: float = LOCK_DEADLINE) -> Iterator[None]:
    """Holds the queue's lock.

    ``SlurmUnavailableError`` if it cannot be had within ``deadline`` seconds, or if the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("a", encoding="ascii") as lock:
            _take(lock, time.monotonic() + deadline)
            yield
    except BlockingIOError as error:
        raise SlurmUnavailableError(
            f"the local queue's lock {folder / 'lock'} was held by another process for {deadline:g} s"
        ) from error
    except OSError as error:
        raise SlurmUnavailableError(f"the local queue in {folder} cannot be used: {error}") from error


def _take(lock: TextIO, until: float) -> None:
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def next_id(folder: Path) -> int:
    """A new id; under the lock. Ids are never used again."""
    path = folder / "last-id"
    number = int(path.read_text(encoding="ascii")) + 1 if path.exists() else 1
    write(path, number)
    return number


def _load(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _run(value: dict[str, Any]) -> Run:
    leader = value["leader"]
    return Run(value["started"], Identity(**value["supervisor"]), None if leader is None else Identity(**leader))


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
