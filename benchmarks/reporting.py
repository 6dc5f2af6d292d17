"""What ``lockstep.report`` costs a training step, beside writing the same line to a file in the rank itself.

    python -m benchmarks.reporting [--quick] [--json]

Ours hands the record to the node's real writer process; the peer does what a script without Lockstep does: one JSON
line, written and flushed. Both in turn, in one process, on one file system. Valid when every record sent by either is
in its file. Two cases: as fast as a loop can, and with a pause between reports, as a training has (there the writer
works while the rank does not wait).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Row, paired, publish
from benchmarks.spooled import spooled

CALLS = 500
PAUSE = 0.001
"""Seconds of computing between two reports in the paced case: a very fast step."""


def values(step: int) -> dict[str, float]:
    """What the digits recipe reports for a step."""
    return {"loss": 0.5, "samples": 32, "seconds": 0.01, "samples_per_s": 3200.0, "epoch": 1, "step_again": step}


def computing(seconds: float) -> None:
    """Keeps the CPU as a training would, so that the pause is not a chance to be scheduled away."""
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass


def microseconds_per_call(call: Callable[[int], None], pause: float) -> float:
    """The mean time inside ``call`` over ``CALLS`` calls."""
    inside = 0.0
    for step in range(CALLS):
        if pause:
            computing(pause)
        started = time.perf_counter()
        call(step)
        inside += time.perf_counter() - started
    return inside / CALLS * 1e6


def measure(case: str, pause: float, rounds: int) -> Row:
    """One case: ``rounds`` pairs, the order swapped in every other pair."""
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory(prefix="lockstep-benchmark-") as name:
        lines = Path(name) / "peer.jsonl"
        with spooled(Path(name)) as (reporter, found), lines.open("w", encoding="utf-8") as file:

            def write(step: int) -> None:
                record = {"rank": 0, "time": time.time(), "kind": "step", "step": step, "values": values(step)}
                file.write(json.dumps(record) + "\n")
                file.flush()

            def report(step: int) -> None:
                reporter.report(step, "step", values(step))

            for number in range(rounds):
                pair = [(ours, report), (peer, write)]
                for figures, call in pair if number % 2 else reversed(pair):
                    figures.append(microseconds_per_call(call, pause))
        kinds = [one["kind"] for one in found]
        sent = rounds * CALLS
        valid = kinds.count("step") == sent == len(lines.read_text().splitlines()) and "gap" not in kinds
    return paired(
        case=case,
        metric="cost of one report",
        unit="microseconds",
        ours=ours,
        peer=peer,
        peer_name="json line, flushed",
        valid=valid,
    )


def main() -> None:
    """Runs both cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    rounds = 10 if options.quick else 60
    rows = [measure("as fast as possible", 0.0, rounds), measure("1 ms of computing between", PAUSE, rounds)]
    publish("reporting", rows, as_json=options.json)


if __name__ == "__main__":
    main()
