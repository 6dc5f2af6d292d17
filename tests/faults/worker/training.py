"""The training that faults happen to: plain Horovod, saved by ``lockstep.checkpoint``, the same losses in every run.

Arguments: a ledger outside the run directory, the number of steps, the seconds that a step takes at least, and perhaps
a folder for the checkpoints. Behind each report a rank appends a line to the ledger, ``<attempt> <rank> <step> <loss>``
with the loss as ``float.hex()``: the training's own word, of which neither the spool nor its writer knows.
"""

from __future__ import annotations

import os
import sys
import time

import horovod.torch as hvd
import torch

import lockstep

FEATURES, WIDTH, BATCH = 16, 512, 32


def main() -> None:
    """Fits a sum of sines."""
    ledger, total, pace, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), next(iter(sys.argv[4:]), None)
    hvd.init()
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 1))
    plain = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimizer = hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    generator = torch.Generator().manual_seed(hvd.rank())
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with lockstep.checkpoint.of(model=model, optimizer=optimizer, generator=generator, folder=folder) as state:
        for step in state.steps(total):
            points = torch.randn(BATCH, FEATURES, generator=generator)
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(points)[:, 0], points.sin().sum(dim=1))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            lockstep.report(step=step + 1, loss=loss.item())
            line = f"{os.environ['LOCKSTEP_ATTEMPT']} {hvd.rank()} {step + 1} {float(loss.item()).hex()}\n"
            os.write(descriptor, line.encode())  # of O_APPEND writes this short no two are mixed
            time.sleep(pace)


if __name__ == "__main__":
    main()
