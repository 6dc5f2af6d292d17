"""Runs the chosen faults one after another, beside one run of the same training to which nothing happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from faults.worker import evidence
from faults.worker.cases import PACE, STEPS, Case, Form
from faults.worker.evidence import Reference, Row
from faults.worker.surroundings import Job, Machines, NotInTimeError, machines
from lockstep_slurm.job.writing import write_whole

Say = Callable[[float, str], None]
"""Told how far the run is (0 to 1), and what is tried just now."""


def perform(
    cases: Sequence[Case], form: Form, say: Say = lambda _part, _what: None, *, kept: Path | None = None
) -> Iterator[Row]:
    """A row for each, as it comes. ``kept``: a file for the losses of the run to which nothing happens.

    One that is there is read, so that a matrix which is tried in pieces makes that run once.
    """
    say(0.0, "reference")
    steps = STEPS + int(form.stopped / PACE)
    with machines(max(case.nodes for case in cases)) as on:
        reference = _read(kept) if kept is not None and kept.exists() else uninterrupted(on, steps)
        if kept is not None:
            write_whole(kept, json.dumps([[*key, loss] for key, loss in reference.items()]))
        for number, case in enumerate(cases, 1):
            say(number / (len(cases) + 1), case.name)
            yield tried(case, on, form, reference)
        say(1.0, "")


def uninterrupted(on: Machines, steps: int) -> Reference:
    """The losses of the same training when nothing happens."""
    job = Job(on, "reference", steps=steps, pace=0.0)
    state = job.ends()
    if state != "COMPLETED":
        raise NotInTimeError(f"the run to which nothing happened is {state}: {job.show()['reason']}")
    return {(one.rank, one.step): one.loss for one in job.ledger()}


def _read(kept: Path) -> Reference:
    return {(rank, step): loss for rank, step, loss in json.loads(kept.read_text())}


def tried(case: Case, on: Machines, form: Form, reference: Reference) -> Row:
    """One row; what did not come in time is a finding, and the machines are made ready for the next."""
    try:
        found = case.perform(on, form)
    except NotInTimeError as error:
        row = Row(case.name, case.fault, "not seen to its end", "", "", "", "", (str(error),))
        on.slurm("scancel", "--user=root")
    else:
        row = evidence.row(case.name, case.fault, case.wanted, found, reference)
    on.idle()
    return row
