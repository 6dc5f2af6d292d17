"""What it gains that a rank keeps what a step has freed (``environment.malloc``), beside glibc's malloc as it comes.

    python -m benchmarks.malloc [--quick] [--json]
    python -m benchmarks.malloc --one googlenet --threads 2     one start of a training, as a line of JSON

The same training is started anew for each figure, with the variables that Lockstep gives a rank and without them, by
turns: glibc settles anew in each start how much it gives back. No communication; a process on as many CPUs as it has
threads. A figure is the median step of a start, and its pair the other one's of the same turn. Valid: both had equal
losses in all steps, bit for bit, and programs of others had next to nothing of the CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.exposing.cases import case_of
from benchmarks.exposing.contenders import RATE, batches, build
from benchmarks.exposing.figures import QUIET
from benchmarks.exposing.rank import busy_seconds
from benchmarks.report import Row, paired, publish
from lockstep_slurm.job.malloc import malloc_variables

STEPS = {"weak-scaling": 4, "resnet50": 8, "googlenet": 16, "gpt": 16}
"""Timed, of a start; the models, batches and images are those of ``benchmarks.exposed_communication``."""
WARM = 2
"""Steps before those, in which glibc's own thresholds grow to what they will be."""
PAIRS = {False: 10, True: 4}
"""Of starts; of the full form and of ``--quick``."""
ARMS: Mapping[str, Mapping[str, str]] = {
    spec: malloc_variables({"environment": {"malloc": spec}}) for spec in ("keep", "system")
}


def trained(name: str, threads: int) -> dict[str, Any]:
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


def started(name: str, threads: int, arm: str) -> dict[str, Any]:
    """``trained`` in a process of its own, with the variables of ``arm``. Raises ``SystemExit`` where it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))}
    command = [sys.executable, "-m", "benchmarks.malloc", "--one", name, "--threads", str(threads)]
    ended = subprocess.run(
        command, env={**kept, **ARMS[arm]}, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"benchmarks.malloc: the training ended with {ended.returncode}:\n{ended.stderr}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def row(name: str, threads: int, pairs: list[dict[str, dict[str, Any]]]) -> Row:
    """The row of one training; ``pairs`` has what ``trained`` found, by arm."""
    every = [one for pair in pairs for one in pair.values()]
    return paired(
        case=f"{title(name)}, {threads} {'thread' if threads == 1 else 'threads'}",
        metric="a step",
        unit="ms",
        ours=[pair["keep"]["ms"] for pair in pairs],
        peer=[pair["system"]["ms"] for pair in pairs],
        peer_name="glibc as it comes",
        valid=all(pair["keep"]["losses"] == pair["system"]["losses"] for pair in pairs)
        and statistics.median(one["foreign"] for one in every) <= QUIET,
    )


def note(name: str, threads: int, pairs: list[dict[str, dict[str, Any]]]) -> str:
    """How many pages the kernel had to make, and how far starts of one kind lie apart."""
    said = []
    for arm, words in (("keep", "kept"), ("system", "as it comes")):
        times = [pair[arm]["ms"] for pair in pairs]
        pages = statistics.median(pair[arm]["pages"] for pair in pairs)
        said.append(f"{words} {pages:,.0f} pages a step, {min(times):,.0f} to {max(times):,.0f} ms")
    return f"{title(name)}, {threads}: {'; '.join(said)}"


def title(name: str) -> str:
    """The model, and what a batch of it is."""
    case = case_of(name)
    samples = f"images of {case.side} x {case.side}" if case.side else "texts"
    return f"{case.model}, {case.batch} {samples}"


def main() -> None:
    """Measures all cases, and prints a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer starts")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--one", choices=sorted(STEPS), help="one start of this training, in this process")
    parser.add_argument("--threads", type=int, default=1, help="of --one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(trained(options.one, options.threads)))
        return
    rows, notes = [], []
    for name in STEPS:
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            pairs = []
            for number in range(PAIRS[options.quick]):
                arms = list(ARMS)[:: 1 if number % 2 else -1]
                pairs.append({arm: started(name, threads, arm) for arm in arms})
            rows.append(row(name, threads, pairs))
            notes.append(note(name, threads, pairs))
            print(notes[-1], file=sys.stderr)
    publish("malloc", rows, as_json=options.json, notes=notes)


if __name__ == "__main__":
    main()
