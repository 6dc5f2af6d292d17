"""What Lockstep's defaults gain where a rank computes: memory that is kept, and images with their channels last.

    python -m benchmarks.computing [--part malloc|layout] [--quick] [--json]
    python -m benchmarks.computing --one googlenet --threads 2     one start of a training, as a line of JSON

The same training is started anew for each figure, by turns with one of the two things as it would be without Lockstep:
glibc settles anew in each start how much it gives back to the kernel. No communication; a process on as many CPUs as it
has threads. A figure is the median step of a start, and its pair the other one's of the same turn. Valid: both had the
same losses (with other memory bit for bit; with another layout sums are made in another order: the first one up to
rounding, the mean within 2 %), and programs of others had next to nothing of the CPUs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.exposing.cases import Case, case_of
from benchmarks.exposing.contenders import RATE, batches, build
from benchmarks.exposing.figures import QUIET
from benchmarks.exposing.rank import busy_seconds
from benchmarks.report import Row, paired, publish
from lockstep_slurm.job.malloc import malloc_variables

STEPS = {"weak-scaling": 4, "resnet50": 8, "googlenet": 16, "vgg16": 4, "alexnet": 8, "gpt": 16}
"""Timed, of a start; the models, batches and images are those of ``benchmarks.exposed_communication``."""
WARM = 2
"""Steps before those, in which glibc's own thresholds grow to what they will be."""
ROUNDING = 1e-4
"""Of a first loss, as a share of it, where sums are made in another order."""
PAIRS = {False: 10, True: 4}
"""Of starts; of the full form and of ``--quick``."""


@dataclass(frozen=True)
class Part:
    """One question: what is started beside a training as Lockstep has it by default."""

    peer_name: str
    variables: Mapping[str, str]
    """Of the peer's environment."""
    channels_last: bool
    """Of the peer."""
    tolerance: float
    """Of the mean loss, as a share of it; 0: every loss is the same."""


KEPT = malloc_variables({})
PARTS = {
    "malloc": Part(
        "glibc as it comes", malloc_variables({"environment": {"malloc": "system"}}), channels_last=True, tolerance=0.0
    ),
    "layout": Part("channels first", KEPT, channels_last=False, tolerance=0.02),
}
Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""What ``trained`` found of ours, and of the peer's start of the same turn."""


def trained(name: str, threads: int, *, channels_last: bool) -> dict[str, Any]:
    """One training in this very process: milliseconds of its median step, and pages that the kernel made in a step."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    torch.set_num_threads(threads)
    case = case_of(name)
    model, pool = build(case), batches(case, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=case.momentum)
    seconds, losses = [], []
    for step in range(WARM + STEPS[name]):
        if step == WARM:
            faults, busy, cpu, began = _faults(), busy_seconds(), time.process_time(), time.perf_counter()
        at = time.perf_counter()
        samples, labels = pool[step % len(pool)]
        if channels_last and case.side:
            # As a recipe does it: batch by batch, and the layers follow.
            samples = samples.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss = cross_entropy(model(samples).flatten(0, -2), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.item()))
        seconds.append(time.perf_counter() - at)
    whole, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "ms": 1e3 * statistics.median(seconds[WARM:]),
        "pages": (_faults() - faults) / STEPS[name],
        "foreign": max(0.0, busy_seconds() - busy - cpu) / (whole * threads),
        "losses": losses,
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def started(name: str, threads: int, variables: Mapping[str, str], *, channels_last: bool) -> dict[str, Any]:
    """``trained`` in a process of its own, with these variables. Raises ``SystemExit`` where it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    command = [sys.executable, "-m", "benchmarks.computing", "--one", name, "--threads", str(threads)]
    ended = subprocess.run(
        [*command, *(["--channels-last"] if channels_last else [])], env={**kept, **variables},
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        sys.exit(f"benchmarks.computing: the training ended with {ended.returncode}:\n{ended.stderr}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def pair_of(part: Part, name: str, threads: int, turn: int) -> Pair:
    """Both starts of a turn, in an order that changes from one to the next."""

    def ours() -> dict[str, Any]:
        return started(name, threads, KEPT, channels_last=True)

    def peer() -> dict[str, Any]:
        return started(name, threads, part.variables, channels_last=part.channels_last)

    if turn % 2:
        return ours(), peer()
    theirs = peer()
    return ours(), theirs


def row(part: Part, case: Case, threads: int, pairs: Sequence[Pair]) -> Row:
    """The row of one training."""
    return paired(
        case=title(case, threads),
        metric="a step",
        unit="ms",
        ours=[ours["ms"] for ours, _ in pairs],
        peer=[peer["ms"] for _, peer in pairs],
        peer_name=part.peer_name,
        valid=all(are_the_same(ours["losses"], peer["losses"], part.tolerance) for ours, peer in pairs)
        and statistics.median(one["foreign"] for pair in pairs for one in pair) <= QUIET,
    )


def are_the_same(ours: Sequence[float], peer: Sequence[float], tolerance: float) -> bool:
    """Whether the losses are, step by step; with a ``tolerance`` the first one up to rounding, and the mean within it.

    A training on noise carries every rounding on, and single losses move apart.
    """
    if not tolerance:
        return list(ours) == list(peer)
    return math.isclose(ours[0], peer[0], rel_tol=ROUNDING) and math.isclose(
        statistics.mean(ours), statistics.mean(peer), rel_tol=tolerance
    )


def note(part: Part, case: Case, threads: int, pairs: Sequence[Pair]) -> str:
    """How many pages the kernel had to make, and how far starts of one kind lie apart."""
    said = []
    for place, words in enumerate(("ours", part.peer_name)):
        times = [pair[place]["ms"] for pair in pairs]
        pages = statistics.median(pair[place]["pages"] for pair in pairs)
        said.append(f"{words} {pages:,.0f} pages a step, {min(times):,.0f} to {max(times):,.0f} ms")
    return f"{title(case, threads)}: {'; '.join(said)}"


def title(case: Case, threads: int) -> str:
    """The model, what a batch of it is, and the threads."""
    samples = f"images of {case.side} x {case.side}" if case.side else "texts"
    return f"{case.model}, {case.batch} {samples}, {threads} {'thread' if threads == 1 else 'threads'}"


def main() -> None:
    """Measures all cases, and prints a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this one")
    parser.add_argument("--model", choices=sorted(STEPS), action="append", help="only this case")
    parser.add_argument("--quick", action="store_true", help="fewer starts")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--one", choices=sorted(STEPS), help="one start of this training, in this process")
    parser.add_argument("--threads", type=int, default=1, help="of --one")
    parser.add_argument("--channels-last", action="store_true", help="of --one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(trained(options.one, options.threads, channels_last=options.channels_last)))
        return
    rows, notes = [], []
    for part in (PARTS[name] for name in options.part or PARTS):
        for case in map(case_of, options.model or STEPS):
            if not part.channels_last and not case.side:
                continue  # texts have no channels
            for threads in sorted({1, len(os.sched_getaffinity(0))}):
                pairs = [pair_of(part, case.name, threads, turn) for turn in range(PAIRS[options.quick])]
                rows.append(row(part, case, threads, pairs))
                notes.append(note(part, case, threads, pairs))
                print(notes[-1], file=sys.stderr)
    publish("computing", rows, as_json=options.json, notes=notes)


if __name__ == "__main__":
    main()
