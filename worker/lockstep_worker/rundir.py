"""The run directory of this start: ``python -m lockstep_worker.rundir`` prints its path (standard library only).

With ``--run`` (made by the service before it submitted) it checks it, and adds the folders that a start needs.
Without, this is a run by hand: the first start makes the folder and notes it by its Slurm id, and a requeue of the same
script finds it by that note.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.notes import is_of_script, make_folder, note_file, read_note, write_note
from lockstep_slurm.job.rundir import RunDirectoryError, begin_start, make_run_directory


def main() -> int:
    """Prints the run directory; exit 78 (EX_CONFIG) with one sentence when there is none to be had."""
    parser = argparse.ArgumentParser(
        prog="lockstep_worker.rundir", description="Prints the run directory of this start."
    )
    parser.add_argument("--runs", type=Path, required=True, help="the folder of run directories")
    parser.add_argument("--spec-file", type=Path, required=True, help="the job spec, as JSON")
    parser.add_argument("--script", type=Path, required=True, help="the script that runs")
    parser.add_argument("--run", type=Path, help="the run directory, where it was made before")
    options = parser.parse_args()
    try:
        print(find_or_make(options.runs, options.spec_file, options.script, options.run))
    except (LockstepError, OSError, UnicodeDecodeError) as error:
        print(f"lockstep: {error}", file=sys.stderr)
        return 78
    return 0


def find_or_make(runs: Path, spec_file: Path, script: Path, run: Path | None) -> Path:
    """The run directory for this start of the script; raises ``RunDirectoryError`` or ``OSError``."""
    if run is not None:
        return begin_start(run)
    runs = runs.expanduser().absolute()
    slurm_job_id = os.environ.get("SLURM_JOB_ID")
    cluster = os.environ.get("SLURM_CLUSTER_NAME") or "slurm"
    text = script.read_bytes()
    if slurm_job_id is not None and int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0:
        noted = _noted(runs, cluster, int(slurm_job_id), text)
        # None: the first start ended before it had made a folder, so there is nothing to go on with.
        if noted is not None:
            return begin_start(noted)
    spec_json = spec_file.read_text(encoding="utf-8")
    try:
        json.loads(spec_json)
    except ValueError as error:
        raise RunDirectoryError(f"the spec in {spec_file} is not JSON: {error}") from error
    if slurm_job_id is not None:
        make_folder(runs)
    made = make_run_directory(runs, new_job_id(), spec_json, text.decode(), by_hand=True)
    if slurm_job_id is not None:
        write_note(runs, cluster, int(slurm_job_id), made.name)
    return made


def _noted(runs: Path, cluster: str, slurm_job_id: int, script: bytes) -> Path | None:
    """The run that an earlier start of this Slurm job has made, by its note; None where there is none.

    A note of another script's run is of an earlier job that had this number.
    """
    job_id = read_note(runs, cluster, slurm_job_id)
    if job_id is None:
        return None
    try:
        return runs / job_id if is_of_script(runs / job_id, script) else None
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{note_file(runs, cluster, slurm_job_id)} names the run {job_id}, and this node sees no "
            f"{runs / job_id / 'job.sbatch'}: see that run directories are on a shared file system; where that run was "
            "removed, remove the note as well, and the job begins anew"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
