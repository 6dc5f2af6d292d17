"""What recording where a step's time goes costs that step, counted in CPU time of the thread that trains.

    python -m benchmarks.recording [--quick] [--json]

All that the recipe does for it in one step, by its own parts: four timed phases with a deferred optimizer's counters
asked around each, the ranks' words to each other in the headers of the gradients, the clocks around 40 pieces and 40
waits, and the record itself to the node's real writer process. Between two steps the thread computes for 5 ms over 16
MiB, so that none of it is in the caches. The budget is 0.5 % of a step of 100 ms; the ratio is budget by cost. Valid
when every step's record is in the spool with every name.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.report import Row, paired, publish
from benchmarks.spooled import spooled
from lockstep.reporter import Reporter
from lockstep_worker.gradients.buffers import Buffers, size_of
from lockstep_worker.gradients.counters import Counters
from lockstep_worker.gradients.pieces import lay_out
from lockstep_worker.statistics import Statistics

STEPS = 50
STEP = 0.1
"""Seconds: the shortest step that the budget is for."""
SHARE = 0.005
RANKS = 64
PIECES, WAITS = 40, 40
COMPUTING = 0.005
NAMES = {
    "data_s", "forward_s", "backward_s", "optimizer_s", "exposed_s", "waiting_s", "communication_s", "gradient_bytes",
}  # fmt: skip


class Counted:
    """The counters of an exchange, as an optimizer lets them be asked."""

    def __init__(self) -> None:
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(80)))  # 160 tensors, as ResNet-50 has
        parameters = list(model.parameters())
        sizes = [size_of(one) for one in parameters]
        self.buffers = Buffers(parameters, lay_out(sizes, range(len(sizes)), 1 << 20))
        self.counters = Counters()
        self.step()  # in a first one nobody knows what the others wait

    @property
    def seconds_inside(self) -> float:
        """As the optimizer's."""
        return self.counters.waited + self.counters.updating

    def take_statistics(self) -> dict[str, Any]:
        """As the optimizer's."""
        return self.counters.take()

    def step(self) -> None:
        """What an exchange counts in a step."""
        counters = self.counters
        counters.begin(self.buffers, 0, RANKS)
        for _ in range(PIECES):
            counters.departs(time.perf_counter())
            counters.arrived(time.perf_counter())
        for _ in range(WAITS):
            began = time.perf_counter()
            counters.waited += time.perf_counter() - began
        counters.end(self.buffers, RANKS)


def cpu_seconds_per_step(reporter: Reporter, counted: Counted, statistics: Statistics, first: int) -> float:
    """The thread's CPU time for all of it, mean over ``STEPS`` steps."""
    swept = torch.zeros(4 << 20)
    used = 0.0
    for step in range(first, first + STEPS):
        ends = time.perf_counter() + COMPUTING
        while time.perf_counter() < ends:
            swept.add_(1.0)
        began = time.thread_time()
        for phase in ("data", "forward", "backward", "optimizer"):
            with statistics.timed(phase):
                pass
        counted.step()
        now = time.perf_counter()
        values = {"loss": 0.5, "samples": 32, "seconds": now, "samples_per_s": 320.0, "epoch": 1, **statistics.take()}
        reporter.report(step, "step", values)
        used += time.thread_time() - began
    return used / STEPS


def measure(rounds: int) -> Row:
    """The one row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="lockstep-benchmark-") as name, spooled(Path(name)) as (reporter, found):
        counted = Counted()
        statistics = Statistics(counted)
        ours = [
            1e6 * cpu_seconds_per_step(reporter, counted, statistics, number * STEPS + 1) for number in range(rounds)
        ]
    steps = [one for one in found if one["kind"] == "step"]
    row = paired(
        case=f"a step of {STEP * 1000:.0f} ms, {RANKS} ranks, {PIECES} pieces",
        metric="CPU time of recording",
        unit="microseconds",
        ours=ours,
        peer=[1e6 * SHARE * STEP] * rounds,
        peer_name=f"{SHARE:.1%} of the step",
        valid=len(steps) == rounds * STEPS and all(set(one["values"]) >= NAMES for one in steps),
    )
    return replace(row, target=1.0)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    publish("recording", [measure(10 if options.quick else 40)], as_json=options.json)


if __name__ == "__main__":
    main()
