"""Notes on runs by hand: which run a Slurm job has made, so that its requeue goes on in it (standard library only).

The script of such a run names no run directory. A note lies in ``<runs>/by-slurm-id`` under the Slurm job's number,
which Slurm gives to another job one day: where it is set up anew, or has used them all.
"""

from __future__ import annotations

from pathlib import Path

from lockstep_slurm.job import beneath
from lockstep_slurm.job.identity import is_job_id
from lockstep_slurm.job.owned import not_own, not_own_folder
from lockstep_slurm.job.rundir import RunDirectoryError, file_name
from lockstep_slurm.job.writing import write_whole

FOLDER = "by-slurm-id"
_LONGEST = 1024
"""Bytes of a note: it has a job id."""


def make_folder(runs: Path) -> None:
    """Makes the folder of notes where there is none; ``RunDirectoryError`` where another user may write to it."""
    folder = runs / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse(folder, not_own_folder(folder))


def write_note(runs: Path, cluster: str, slurm_job_id: int, job_id: str) -> None:
    """Notes that this Slurm job has made the run ``job_id``, in the folder that ``make_folder`` has made."""
    write_whole(note_file(runs, cluster, slurm_job_id), job_id)


def read_note(runs: Path, cluster: str, slurm_job_id: int) -> str | None:
    """The job id that was noted for a Slurm job of this number, or None.

    Raises ``RunDirectoryError`` where another user may have made the note, since its run would be gone on with.
    """
    note = note_file(runs, cluster, slurm_job_id)
    try:
        _refuse(note.parent, not_own_folder(note.parent))
        _refuse(note, not_own(note))
        job_id = beneath.read_file(note.parent, note.name, limit=_LONGEST).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    return job_id if is_job_id(job_id) else None


def note_file(runs: Path, cluster: str, slurm_job_id: int) -> Path:
    """Where the note is, or would be."""
    return runs / FOLDER / f"{file_name(cluster)}-{slurm_job_id}"


def is_of_script(run: Path, script: bytes) -> bool:
    """Whether it was this very script that made ``run``; raises ``OSError`` where that cannot be read."""
    try:
        return beneath.read_file(run, "job.sbatch", limit=len(script)) == script
    except beneath.NotPlainError:
        return False


def _refuse(path: Path, why: str | None) -> None:
    if why is not None:
        raise RunDirectoryError(
            f"{path} {why}, so another user could choose the run that a requeue goes on with: remove it, or print the "
            "script with a folder for runs that only you may write to (lockstep script --runs)"
        )
