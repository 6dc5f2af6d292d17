"""``sbatch``: how a script is submitted, and how Slurm is asked what would become of one."""

from __future__ import annotations

import re

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmForecast,
    SlurmRateLimitedError,
    SlurmRefusedError,
    SlurmUnavailableError,
    Submission,
)
from lockstep_slurm.client.runner import Runner, failure, words
from lockstep_slurm.client.squeue import EPOCH

# What sbatch prints to --test-only: Job 17 to start at TIME using 2 processors on nodes node[1-2] in partition main
# (22.05, 24.11). In 25.11 there is a stray "a" before "using".
_FORECAST = re.compile(
    r"Job \d+ to start at (?P<start>\S+)(?: \w+)? using (?P<processors>\d+) processors on(?: nodes)? (?P<nodes>\S+)"
    r"(?: in partition (?P<partition>\S+))?"
)

# slurmctld's answers (the first is that of a reached MaxJobCount) after which sbatch, left alone, tries 15 times again,
# silently, in two minutes (22.05): longer than anyone waits here, and after a service that was killed meanwhile. The
# first pause is one second.
_TRIES_AGAIN = re.compile(rb"(unable to accept job|queue full), sleeping and retrying|temporarily disabled, retrying")
_FIRST_PAUSE = 1.0


def submit(runner: Runner, submission: Submission) -> int:
    """Submits once and returns the Slurm job id."""
    check_folders(submission)
    if "\\" in str(submission.output):
        # One backslash anywhere ends all "%" in the path, and is taken out of it (22.05).
        raise SlurmRefusedError(f"the output {submission.output} has a backslash, which Slurm cannot write; rename it")
    # Of its time format or the like nothing is set here: every SLURM_* of sbatch's environment reaches the job, even
    # with --export=NONE (22.05).
    try:
        answer = runner.run(
            arguments(submission), folder=submission.directory, stop_at=_TRIES_AGAIN, umask=submission.umask
        )
    except SlurmRateLimitedError as error:
        raise SlurmRefusedError(f"{error}") from error
    if answer.stopped:
        raise _queue_full(words(answer), answer.seconds)
    said = answer.out
    # "17" or, where the site has several clusters, "17;site".
    found = re.fullmatch(r"([0-9]+)(;.*)?", said.strip().rpartition("\n")[2])
    if answer.code != 0 and found is None:
        raise failure("sbatch", answer)
    if answer.code != 0 or found is None:
        how = "ended well but printed no job id" if found is None else f"ended with {answer.code} but printed a job id"
        raise SlurmUnavailableError(f"sbatch {how}: {said.strip()!r}; the job may exist")
    return int(found[1])


def _queue_full(said: str, seconds: float) -> SlurmError:
    """The error for an sbatch that was ended ``seconds`` after its start, when it had said that it would try again."""
    if seconds < _FIRST_PAUSE:
        return SlurmRefusedError(f"sbatch: {said}")
    return SlurmUnavailableError(f"sbatch: {said}; it was ended, and may have tried again before")


def arguments(submission: Submission) -> list[str]:
    """The command line."""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={submission.name}",
        f"--output={output_pattern(submission)}",
        "--open-mode=append",
        f"--chdir={submission.directory}",
        *(["--hold"] if submission.hold else []),
        str(submission.script),
        *submission.arguments,
    ]


def output_pattern(submission: Submission) -> str:
    """The output's path in Slurm's form; a backslash anywhere in it ends all "%" and is taken out (22.05)."""
    return f"{str(submission.output.parent).replace('%', '%%')}/{submission.output.name}"


def test(runner: Runner, script: str, name: str) -> SlurmForecast:
    """What Slurm says of a script that it is only asked about."""
    # On standard input, so that nothing is written anywhere. Nothing runs, so the time format may be set here.
    argv = ["sbatch", "--test-only", f"--job-name={name}"]
    answer = runner.run(argv, extra=EPOCH, told=script.encode("utf-8"))
    if answer.code != 0:
        raise failure("sbatch", answer)
    return forecast(answer.err + answer.out)


def forecast(said: str) -> SlurmForecast:
    """The forecast in what ``sbatch --test-only`` said, among whatever else a site's plugin has to say."""
    found = _FORECAST.search(said)
    if found is None:
        raise values.unreadable(f"sbatch --test-only said {said.strip()[:200]!r}")
    return SlurmForecast(
        words=found[0],
        start=values.epoch(found["start"]),
        nodes=values.host_names(found["nodes"]),
        processors=int(found["processors"]),
        partition=found["partition"],
    )


def check_folders(submission: Submission) -> None:
    """Refuses what Slurm accepts to the job's harm.

    Without its working folder a job runs in /tmp; without the output's folder it is FAILED 0:53 and says nothing.
    """
    for what, folder in (("working folder", submission.directory), ("output's folder", submission.output.parent)):
        if not folder.is_absolute() or not folder.is_dir():
            raise SlurmRefusedError(f"the {what} {folder} is not a folder with an absolute path; make it first")
