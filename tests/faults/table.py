"""A run's figures as rows of words, the same for a terminal, for JSON and for docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from faults.away import P95, Away
from faults.run import Result


@dataclass(frozen=True)
class Row:
    """One figure, and what it has to be; no ``wanted`` where it only tells what happened."""

    what: str
    found: str
    wanted: str = ""


def rows(result: Result) -> list[Row]:
    """First what has to hold, then what went wrong meanwhile."""
    count, happened, tries = result.count, result.happened, result.tries
    every = f"exactly 1 each ({count.submissions})"
    failed = sum(number for what, number in tries.items() if what not in {"200", "201"})
    least = {name: f"{wanted} at least" if wanted else "" for name, (_, wanted) in happened.least(result.form).items()}
    return [
        Row("trainings per submission", histogram(count.trainings), every),
        Row("Slurm jobs that ever started per submission", histogram(count.started), every),
        Row("submissions lost", str(count.lost + count.submissions - count.answered), "0"),
        Row("jobs wrongly ended badly", str(count.ended_badly), "0"),
        Row("submissions answered with two jobs", str(count.two_jobs), "0"),
        Row("jobs that belong to no submission", str(count.strangers), "0"),
        Row("copies cancelled while held", str(count.copies_cancelled)),
        Row("copies left over", str(count.copies_left), "0"),
        Row("Slurm jobs that Slurm itself put back and started again", str(count.restarts)),
        Row("service ended by SIGKILL", f"{happened.kills} times", least["kills"]),
        Row("service ended by itself (no byte for its database)", f"{happened.ended_by_itself} times"),
        Row("slurmctld ended by SIGTERM and started again", f"{happened.terminations} times", least["terminations"]),
        Row("slurmctld stopped by SIGSTOP", f"{happened.stops} times", least["stops"]),
        Row("submits that slurmctld did not answer", str(happened.lost_answers)),
        Row(
            "jobs of these of which the submit had happened all the same",
            str(happened.happened_all_the_same),
            least["happened_all_the_same"],
        ),
        Row("the database's disk full", f"{happened.full_disks} times", least["full_disks"]),
        Row(
            "submits refused by the limit of queued jobs",
            f"{happened.refused_by_limit} ({result.form.limit} jobs)",
            least["refused_by_limit"],
        ),
        Row("submits turned away by a MaxJobCount of as many", f"{happened.turned_away}", least["turned_away"]),
        Row("POST /jobs tried again by clients", f"{failed} of {sum(tries.values())}"),
        Row("seed; duration", f"{result.seed}; {result.seconds:.0f} s"),
    ]


def histogram(of: Mapping[int, int]) -> str:
    """``1 each (1000)``, or how many submissions had how many."""
    if len(of) == 1:
        ((number, submissions),) = of.items()
        return f"{number} each ({submissions})"
    return ", ".join(f"{number}: {submissions}" for number, submissions in of.items())


def rows_of_outage(away: Away) -> list[Row]:
    """What the service did while slurmctld was down."""
    return [
        Row("slurmctld down for", f"{away.seconds:.0f} s"),
        Row("POST /jobs meanwhile, p95", f"{away.p95 * 1000:.0f} ms of {away.submissions}", f"< {P95 * 1000:.0f} ms"),
        Row("POST /jobs meanwhile, median; longest", f"{away.median * 1000:.0f} ms; {away.longest * 1000:.0f} ms"),
        Row("submissions refused meanwhile", str(away.refused), "0"),
        Row("jobs of before that changed in anything but staleness", str(len(away.changed)), "0"),
        Row("jobs of before that showed since when they are stale", str(away.stale), str(away.before)),
        Row("submitted meanwhile, trained afterwards", str(away.sent_on), str(away.submissions)),
        Row("trained more than once", str(away.trained_twice), "0"),
    ]


def table(title: str, found: Sequence[Row]) -> Table:
    """For a terminal."""
    made = Table(title=title, title_justify="left")
    for heading in ("what", "found", "wanted"):
        made.add_column(heading)
    for row in found:
        made.add_row(row.what, row.found, row.wanted)
    return made
