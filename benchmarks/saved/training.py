"""What the ranks of ``benchmarks.saving`` run: ResNet-50, by turns some steps right behind a save and some without one.

    training.py FILE --pairs N --steps W --batch-size B --image-size S

A turn is W steps. In one with a save, each step is a round of ``state.steps``, which saves every W of them: so what was
asked for behind the turn before is done as this one begins, and has all of the turn to become a file. In one without,
the same step is called by itself. Rank 0 writes a line of JSON into FILE for each turn.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import horovod.torch as hvd
import torch
from torch.nn.functional import cross_entropy

import lockstep
from benchmarks.exposing.rank import busy_seconds
from lockstep_worker.models import build

POOL = 4
"""Batches of a rank, drawn once and used in turn: making noise is no part of a training."""
WARM = 3
"""Turns of each kind before those that count: the exchange measures and settles, and the buffer of a save is made."""


def main() -> None:
    """Trains by turns: first those that do not count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    for name in ("--pairs", "--steps", "--batch-size", "--image-size"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()

    hvd.init()
    torch.manual_seed(7)
    model = build("resnet50")
    optimizer = lockstep.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9), named_parameters=model.named_parameters()
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    dice = torch.Generator().manual_seed(1000 + hvd.rank())
    size = options.image_size
    pool = [
        (
            torch.randn(options.batch_size, 3, size, size, generator=dice),
            torch.randint(1000, (options.batch_size,), generator=dice),
        )
        for _ in range(POOL)
    ]
    done = 0

    def step() -> None:
        nonlocal done
        inputs, targets = pool[done % POOL]
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        lockstep.report(step=done, loss=loss.item(), samples=options.batch_size)

    turns = WARM + options.pairs
    with lockstep.checkpoint.of(model=model, optimizer=optimizer, every_steps=options.steps, best=False) as state:
        # One round more than is made: the end of the rounds would be saved as well.
        rounds = state.steps(turns * options.steps + 1)
        for number in range(turns):
            for saves in (True, False) if number % 2 else (False, True):
                busy, cpu, began = busy_seconds(), time.process_time(), time.perf_counter()
                for _ in range(options.steps):
                    if saves:
                        next(rounds)
                    step()
                seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
                foreign = max(0.0, busy_seconds() - busy - cpu) / seconds
                if hvd.rank() == 0:
                    turn = {
                        "counts": number >= WARM, "saves": saves, "seconds": seconds, "cpu": cpu, "foreign": foreign,
                        "state_steps": state.step,
                    }  # fmt: skip
                    with options.file.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(turn) + "\n")
    hvd.shutdown()


if __name__ == "__main__":
    main()
