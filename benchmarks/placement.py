"""What Lockstep's placement does for a training's speed, beside srun's defaults, horovodrun and torch's CPU launcher.

    python -m benchmarks.placement [--quick] [--json]          (root and Slurm's packages: it brings up a cluster)
    python -m benchmarks.report FILE                           the table of such a JSON, as Markdown

On one machine, all arms train the same model on the same samples; each is started as its users start it, and then they
take turns in slices of some steps, so that whatever else changes on the machine meets all of them. An arm that has no
turn is stopped. The first steps of a slice are not timed, and starting up never is. Valid: step by step both arms of a
row had equal losses on every rank (relative 1e-3), and each ended with one model on all of its ranks.
docs/benchmarks/placement.md says what is equal between the arms and what is not.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.kept import Kept
from benchmarks.report import Row, paired, publish
from benchmarks.side_by_side import arms
from benchmarks.side_by_side.arms import Arm, Work
from benchmarks.side_by_side.policies import sweep
from benchmarks.side_by_side.turns import Outcome, Pace, equal, take_turns
from lockstep_slurm.cluster import ClusterInfo, down, up
from lockstep_slurm.cluster.cores import read_machine
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job import library
from lockstep_slurm.placement import from_sysfs, plan

OURS = "lockstep"
AGAIN = "lockstep again"
"""The very same arm once more: how far its ratio is from 1 is the error of the method."""
SLOWER_AT_MOST = 1.02
"""The target for the median of our slowdown against the best of the others; its interval's upper end: 1.05."""
MODELS = {"small-cnn": 32, "wide-mlp": 32, "resnet50": 4}
"""By name: samples per rank and step."""
Launch = Callable[["Case", Pace], dict[str, Outcome]]
progress = Console(stderr=True)


@dataclass(frozen=True)
class Case:
    """One comparison: a model on so many ranks."""

    work: Work

    @property
    def name(self) -> str:
        """As the table has it."""
        return f"{self.work.model}, {self.ranks}"

    @property
    def ranks(self) -> str:
        """The ranks and their CPUs, in words."""
        ranks = f"{self.work.ranks} rank{'s' if self.work.ranks > 1 else ''}"
        return f"{ranks} x {self.work.cpus} CPU{'s' if self.work.cpus > 1 else ''}"


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    launches: int
    """How often every arm is started anew: what is settled at a start (where memory lies) is one sample a launch."""
    rounds: int
    launch: float
    """Seconds of one launch's rounds, after which no further one is begun."""
    whole: float
    """Seconds after which no further launch is begun."""


QUICK = Form(launches=1, rounds=20, launch=65, whole=380)
FULL = Form(launches=6, rounds=20, launch=65, whole=2580)


def cases(cpus: int, ranks: int, *, quick: bool) -> list[Case]:
    """Each model on ``ranks`` ranks, and on one rank that has all CPUs; --quick has fewer of the latter.

    One of each kind first: where the time is over before all are done, no kind is missing.
    """
    found = []
    for model, batch in MODELS.items():
        if cpus >= ranks > 1:
            found.append(Case(Work(model, batch, ranks, cpus // ranks)))
        if model == "small-cnn" or (model == "resnet50" and not quick):
            found.append(Case(Work(model, batch, 1, cpus)))
    return found


class Bench:
    """The machine's one-node cluster, and the arms that are started on it."""

    def __init__(self, info: ClusterInfo, folder: Path) -> None:
        self.info = info
        self.folder = folder
        self.environment = arms.clean(os.environ, info)
        self.cores = len(info.cores[0].cpus) // read_machine().threads_per_core

    def launch(self, case: Case, variants: Mapping[str, Mapping[str, str]], pace: Pace) -> dict[str, Outcome]:
        """Starts every arm of the case, lets them take turns, and ends them; by name what each did."""
        work, environment = case.work, self.environment
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with contextlib.ExitStack() as stack:
            meeting = stack.enter_context(arms.rendezvous(work.ranks)) if work.ranks > 1 else {}
            starts: dict[str, Callable[[Arm], None]] = {
                OURS: lambda arm: arms.lockstep(arm, environment, {}),
                "srun": lambda arm: arms.srun(arm, environment | meeting),
                "horovodrun": lambda arm: arms.horovodrun(arm, environment),
            }
            if work.ranks == 1:
                starts["run_cpu"] = lambda arm: arms.run_cpu(arm, environment, self.cores)
            for name, settings in {AGAIN: {}, **variants}.items():
                starts[name] = partial(arms.lockstep, environment=environment, settings=settings)
            started = []
            for number, (name, start) in enumerate(starts.items()):
                arm = Arm(name, folder / str(number), work)
                stack.callback(arm.close)
                start(arm)
                started.append(arm)
            return take_turns(started, pace)


def rows_of(case: Case, launches: Sequence[Mapping[str, Outcome]]) -> list[Row]:
    """Ours against each other arm, and against the fastest of those that are not Lockstep's."""
    others = [name for name in launches[0] if name != OURS]
    peers = [name for name in others if not name.startswith(OURS)]
    best = min(peers, key=lambda name: statistics.median(seconds(launches, name)))
    named = [(name, name, None) for name in others] + [(best, f"best of them: {best}", 1 / SLOWER_AT_MOST)]
    return [replace(row_of(case, launches, name, label), target=target) for name, label, target in named]


def row_of(case: Case, launches: Sequence[Mapping[str, Outcome]], peer: str, label: str) -> Row:
    """One row, in samples per second of all ranks; its ratio is of these, so above 1 where ours is faster."""
    row = paired(
        case=case.name,
        metric="throughput",
        unit="samples/s",
        ours=seconds(launches, OURS),
        peer=seconds(launches, peer),
        peer_name=label,
        valid=all(equal(one[OURS], one[peer]) for one in launches),
        groups=[number for number, one in enumerate(launches) for _ in one[OURS].step_seconds],
    )
    samples = case.work.batch_size * case.work.ranks
    return replace(row, ours=samples / row.ours, peer=samples / row.peer)


def seconds(launches: Sequence[Mapping[str, Outcome]], arm: str) -> list[float]:
    """An arm's seconds of a step, slice by slice over all launches."""
    return [value for one in launches for value in one[arm].step_seconds]


def notes_of(case: Case, launches: Sequence[Mapping[str, Outcome]]) -> list[str]:
    """How often it was measured, and what each arm's ranks were given, as they said themselves."""
    outcomes, told = launches[0], []
    for name, one in outcomes.items():
        places = "; ".join(
            f"CPUs {','.join(map(str, cpus))}, {threads} thread{'s' if threads > 1 else ''}"
            for cpus, threads in zip(one.cpus, one.threads, strict=True)
        )
        verdict = f" (its proof: {', '.join(one.verdicts)})" if one.verdicts else ""
        told.append(f"{name}: {places}{verdict}")
    count, pairs = len(launches), len(seconds(launches, OURS))
    return [f"{case.name}: {pairs} pairs in {count} launch{'es' if count > 1 else ''}. {'. '.join(told)}."]


def run_cpu_notes(outcomes: Sequence[Mapping[str, Outcome]]) -> list[str]:
    """What torch's launcher had of what it uses where it finds it."""
    preloaded = [one["run_cpu"].variables[0].get("LD_PRELOAD", "") for one in outcomes if "run_cpu" in one]
    if not preloaded:
        return []
    parts = [
        "numactl" if shutil.which("numactl") else "taskset, numactl being absent",
        *(
            f"{what}{'' if what in preloaded[0] else ' absent'}"
            for what in ("libiomp5", "libtcmalloc")
        ),
    ]  # fmt: skip
    return [f"torch.backends.xeon.run_cpu had {'; '.join(parts)}."]


def measured(
    wanted: Sequence[Case], form: Form, steps: int | None, kept: Kept, launch: Launch
) -> dict[Case, list[dict[str, Outcome]]]:
    """The launches by case: one of each case, then the next of each, until there are enough or the time is over."""
    began = time.monotonic()
    found: dict[Case, list[dict[str, Outcome]]] = {case: [] for case in wanted}
    for number, case in itertools.product(range(form.launches), wanted):
        key = f"{case.name}, launch {number + 1} of {form.launches}"
        if (found_before := kept.find(key)) is not None:
            outcomes = {name: Outcome.parse(outcome) for name, outcome in found_before.items()}
        else:
            if time.monotonic() - began > form.whole:
                progress.print(f"{key}: left out, the time is over")
                continue
            progress.print(key)
            outcomes = launch(case, Pace(form.rounds, form.launch, steps))
            kept.add(key, {name: outcome.document() for name, outcome in outcomes.items()})
        found[case].append(outcomes)
    return {case: launches for case, launches in found.items() if launches}


def main() -> None:
    """Measures what is not kept yet, and prints the table."""
    # As Ctrl-C does it: the ranks, which may be stopped, and the cluster are ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        measure(parsed())
    except LockstepError as error:
        sys.exit(f"benchmarks.placement: {error}")


def measure(options: argparse.Namespace) -> None:
    """All cases of the form that was asked for. Raises ``LockstepError`` where an arm does not come up."""
    usual = QUICK if options.quick else FULL
    form = replace(usual, launches=options.launches or usual.launches, rounds=options.rounds or usual.rounds)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockstep-bench-")))
        progress.print("bringing up a Slurm of one node")
        stack.callback(down, folder / "slurm")
        info = up("bench", 1, folder / "slurm")
        bench = Bench(info, folder)
        arms.share(bench.environment)
        # A changed Lockstep, another machine or another form is another measurement.
        lockstep = library.provide(folder / "runs").name
        kept = Kept(options.kept, f"{lockstep} {os.uname().nodename} {info.cores[0].cpus} {form} {options.steps}")
        topology = from_sysfs()
        planned = partial(plan, topology, info.cores[0].cpus)
        wanted = [
            case
            for case in cases(len(info.cores[0].cpus), options.ranks, quick=options.quick)
            if not options.model or case.work.model in options.model
        ]
        sweeps = {case: sweep(case.work, planned) for case in wanted}
        found = measured(
            wanted, form, options.steps, kept, lambda case, pace: bench.launch(case, sweeps[case].arms(), pace)
        )
    rows = [row for case, launches in found.items() for row in rows_of(case, launches)]
    notes = [note for case, launches in found.items() for note in notes_of(case, launches)]
    # The same for every model.
    notes += dict.fromkeys(f"{case.ranks}: {note}." for case in found for note in sweeps[case].notes)
    notes += run_cpu_notes([launches[0] for launches in found.values()])
    publish("placement", rows, as_json=options.json, notes=notes)
    kept.done()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 minutes at most, in place of 45")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or "~/.cache/lockstep").expanduser()
    parser.add_argument(
        "--kept", type=Path, default=cache / "benchmarks" / "placement.jsonl",
        help="where finished launches are kept, so that a call that was interrupted goes on",
    )  # fmt: skip
    parser.add_argument("--ranks", type=int, default=2, help="ranks of the cases with several")
    parser.add_argument("--model", action="append", choices=MODELS, help="only this model; may be repeated")
    parser.add_argument("--launches", type=int, help="how often each arm is started anew")
    parser.add_argument("--rounds", type=int, help="slices of each arm in a launch")
    parser.add_argument("--steps", type=int, help="timed steps of a slice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
