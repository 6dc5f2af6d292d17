"""``sbatch``: how a script is submitted."""

from __future__ import annotations

import re

from lockstep_slurm.client.protocol import SlurmRefusedError, SlurmUnavailableError, Submission
from lockstep_slurm.client.runner import Runner


def submit(runner: Runner, submission: Submission) -> int:
    """Submits once and returns the Slurm job id."""
    check_folders(submission)
    if "\\" in str(submission.output):
        # One backslash anywhere ends all "%" in the path, and is taken out of it (22.05).
        raise SlurmRefusedError(f"the output {submission.output} has a backslash, which Slurm cannot write; rename it")
    # Of its time format or the like nothing is set here: every SLURM_* of sbatch's environment reaches the job, even
    # with --export=NONE (22.05).
    said = runner.ask(arguments(submission), folder=submission.directory)
    # "17" or, where the site has several clusters, "17;site".
    found = re.fullmatch(r"([0-9]+)(;.*)?", said.strip().rpartition("\n")[2])
    if found is None:
        raise SlurmUnavailableError(f"sbatch ended well but printed no job id: {said.strip()!r}; the job may exist")
    return int(found[1])


def arguments(submission: Submission) -> list[str]:
    """The command line; ``%`` in the output's folder is literal, ``%j`` in its last part is the job id."""
    folder = str(submission.output.parent).replace("%", "%%")
    return [
        "sbatch",
        "--parsable",
        f"--job-name={submission.name}",
        f"--output={folder}/{submission.output.name}",
        "--open-mode=append",
        f"--chdir={submission.directory}",
        *(["--hold"] if submission.hold else []),
        str(submission.script),
        *submission.arguments,
    ]


def check_folders(submission: Submission) -> None:
    """Refuses what Slurm accepts to the job's harm.

    Without its working folder a job runs in /tmp; without the output's folder it is FAILED 0:53 and says nothing.
    """
    for what, folder in (("working folder", submission.directory), ("output's folder", submission.output.parent)):
        if not folder.is_absolute() or not folder.is_dir():
            raise SlurmRefusedError(f"the {what} {folder} is not a folder with an absolute path; make it first")
