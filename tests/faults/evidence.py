"""Counting, from what others wrote: the trainings' ledger, Slurm's job-completion file, the service's list of jobs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# jobcomp/filetxt of 22.05 and 24.11; read here by itself, so that it is not the service's own reader that judges it.
COMPLETION = re.compile(
    r"JobId=(?P<id>\d+) .*? Name=(?P<name>\S+) JobState=(?P<state>\S+) .* StartTime=(?P<started>\S+) "
    r".*NodeList=(?P<nodes>\S+) "
)
NO_NODES = frozenset({"(null)", "None", ""})


@dataclass(frozen=True)
class Completion:
    """One line of Slurm's job-completion file."""

    slurm_id: int
    job_id: str
    """The service's, which the Slurm job's name ends with."""
    state: str
    started: bool
    """Whether it ever had a node."""


def completions(text: str) -> list[Completion]:
    """Every line; ``ValueError`` for one that cannot be read, since what is not counted would pass for not there."""
    found = []
    for line in text.splitlines():
        match = COMPLETION.match(line)
        if match is None:
            raise ValueError(f"this line of the job-completion file cannot be read: {line!r}")
        job_id = match["name"].rpartition(".")[2]
        found.append(Completion(int(match["id"]), job_id, match["state"], match["nodes"] not in NO_NODES))
    return found


@dataclass(frozen=True)
class Training:
    """What one submission's trainings wrote of themselves."""

    starts: int
    ends: int
    job_ids: frozenset[str]


def trainings(ledger: str) -> dict[int, Training]:
    """By submission; ``ValueError`` for a line that is not whole."""
    words: dict[int, list[tuple[str, str]]] = {}
    for line in ledger.splitlines():
        word, number, job_id, _attempt, _pid = line.split()
        words.setdefault(int(number), []).append((word, job_id))
    return {
        number: Training(
            starts=sum(word == "start" for word, _ in said),
            ends=sum(word == "end" for word, _ in said),
            job_ids=frozenset(job_id for _, job_id in said),
        )
        for number, said in words.items()
    }


@dataclass(frozen=True)
class Count:
    """What a run came to. A histogram is how many submissions had 0, 1, 2 ... of something."""

    submissions: int
    answered: int
    jobs: int
    """In the service's list."""
    trainings: dict[int, int]
    """Histogram of starts of a training per submission."""
    started: dict[int, int]
    """Histogram of Slurm jobs that ever had a node per submission."""
    copies_cancelled: int
    """Slurm jobs that never had a node, and were cancelled."""
    copies_left: int
    """Slurm jobs that are neither of the two: they never started, and nobody cancelled them."""
    lost: int
    """Submissions that were answered, and did not train to their end or are not known to have ended well."""
    ended_badly: int
    two_jobs: int
    """Submissions that were answered with more than one job, over all tries."""
    strangers: int
    """Jobs, in the list, of Slurm's or in the ledger, that no client was answered."""
    restarts: int
    """Executions beyond the first of Slurm jobs that started: requeues of Slurm's own, of which one alone trains."""

    @property
    def findings(self) -> list[str]:
        """What is not as it should be, in words; nothing where every submission trained exactly once."""
        one = {1: self.submissions}
        checks = [
            (self.answered == self.submissions, f"{self.answered} of {self.submissions} submissions were answered"),
            (self.jobs == self.submissions, f"the service lists {self.jobs} jobs for {self.submissions} submissions"),
            (self.trainings == one, f"trainings per submission: {self.trainings}"),
            (self.started == one, f"Slurm jobs that started per submission: {self.started}"),
            (self.lost == 0, f"{self.lost} submissions were lost"),
            (self.ended_badly == 0, f"{self.ended_badly} jobs ended badly"),
            (self.two_jobs == 0, f"{self.two_jobs} submissions were answered with two jobs"),
            (self.strangers == 0, f"{self.strangers} jobs belong to no answer"),
            (self.copies_left == 0, f"{self.copies_left} Slurm jobs never started and were not cancelled"),
        ]
        return [words for holds, words in checks if not holds]


def count(
    submissions: int,
    *,
    answered: Mapping[int, Iterable[str]],
    jobs: Mapping[str, str],
    ledger: str,
    completed: str,
) -> Count:
    """``answered``: job ids by submission; ``jobs``: the service's jobs with their phases; the others: files' texts."""
    trained = trainings(ledger)
    lines = completions(completed)
    of = {job_id: number for number, ids in answered.items() for job_id in ids}
    executions = Counter((line.job_id, line.slurm_id) for line in lines if line.started)
    started = Counter(of[job_id] for job_id, _ in executions if job_id in of)
    never = {line.slurm_id: line.state for line in lines} | {slurm_id: "started" for _, slurm_id in executions}
    cancelled = sum(state.startswith("CANCELLED") for state in never.values())
    seen = {*jobs, *(line.job_id for line in lines), *(one for said in trained.values() for one in said.job_ids)}
    well = {number for number, ids in answered.items() if any(jobs.get(one) == "ended well" for one in ids)}
    return Count(
        submissions=submissions,
        answered=len(answered),
        jobs=len(jobs),
        trainings=_histogram(submissions, {number: said.starts for number, said in trained.items()}),
        started=_histogram(submissions, started),
        copies_cancelled=cancelled,
        copies_left=len(never) - cancelled - sum(state == "started" for state in never.values()),
        lost=sum(number not in well or number not in trained or trained[number].ends == 0 for number in answered),
        ended_badly=sum(phase == "ended badly" for phase in jobs.values()),
        two_jobs=sum(len(set(ids)) > 1 for ids in answered.values()),
        strangers=len(seen - of.keys()),
        restarts=sum(executions.values()) - len(executions),
    )


def _histogram(submissions: int, counts: Mapping[int, int]) -> dict[int, int]:
    found = Counter(counts.get(number, 0) for number in range(submissions))
    return dict(sorted(found.items()))
