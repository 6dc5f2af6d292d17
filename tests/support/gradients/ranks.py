"""Runs every case on this rank, one after another, and prints for each a line of JSON: what was wrong, or nothing."""

from __future__ import annotations

import faulthandler
import functools
import gc
import json
import sys
import time
import traceback

import horovod.torch as hvd
import torch

from support.gradients import around, enduring, late, measured, refusals, special, tuned
from support.gradients.cases import CASES, UNDEFERRED
from support.gradients.training import Case, Run, equal_on_all_ranks

WATCHDOG = 600
"""Seconds after which a rank tells where it hangs, and ends."""


def compare(name: str, case: Case) -> None:
    """Horovod's, ours undeferred and ours deferred: equal to the bit, on this rank and on all."""
    traces = {}
    for how in case.ways:
        run = Run(case, how)
        traces[how] = run.train()
        same = equal_on_all_ranks(traces[how])
        assert all(same), f"{how}: the ranks' parameters differ from step {same.index(False)}"
        assert (run.pending > 0) == (how == "deferred" and name not in UNDEFERRED), f"{how}: {run.pending} deferred"
    peer, expected = next(iter(traces.items()))
    for how, trace in traces.items():
        for place, (one, other) in enumerate(zip(trace, expected, strict=True)):
            assert one == other, f"{how} differs from {peer} at entry {place} of its trace: {one} != {other}"


def main() -> None:
    hvd.init()
    faulthandler.enable()
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    wanted = sys.argv[1:]
    compared = {name: functools.partial(compare, name, case) for name, case in CASES.items()}
    others = (special.CASES, refusals.CASES, around.CASES, late.CASES, measured.CASES, enduring.CASES, tuned.CASES)
    cases = compared | {name: run for some in others for name, run in some.items()}
    for name, run in (cases if hvd.size() == 2 else enduring.FOUR | tuned.FOUR).items():
        if wanted and name not in wanted:
            continue
        began = time.perf_counter()
        try:
            run()
            wrong = ""
        except Exception:
            wrong = traceback.format_exc()
        # One line in one write: the ranks share a log.
        sys.stdout.write(
            "\n" + json.dumps({"case": name, "rank": hvd.rank(), "wrong": wrong,
                               "seconds": round(time.perf_counter() - began, 2)}) + "\n"
        )  # fmt: skip
        sys.stdout.flush()
        if wrong:
            sys.exit(1)  # the other ranks may wait for this one for ever
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # else Gloo's threads live until Python ends, and may abort there
    special.at_the_end()


main()
