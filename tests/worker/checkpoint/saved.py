"""A training that is saved and resumed: batch normalisation, dropout and a generator of its own on each rank.

    saved.py horovod|lockstep|ddp STEPS [--die-at STEP RANK SIGNAL | --tell-at STEP RANK SIGNAL]

It saves behind each fifth step, reports the loss of each, and at the end a digest of all parameters and buffers of this
rank. What it does to itself it does once the last of these saves is on the disk, however slow that is.
"""

import argparse
import hashlib
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

import lockstep
from lockstep_worker.checkpoint.folder import names

EVERY = 5

parser = argparse.ArgumentParser()
parser.add_argument("kind")
parser.add_argument("steps", type=int)
parser.add_argument("--die-at", nargs=3, default=("-1", "0", "SIGKILL"))
parser.add_argument("--tell-at", nargs=3, default=("-1", "0", "SIGUSR1"))
options = parser.parse_args()
rank = int(os.environ["RANK"])


def wait_for_the_save(step: int) -> None:
    """Until the newest checkpoint that is due before ``step`` is there."""
    folder, due, ends = Path(os.environ["LOCKSTEP_RUN"]) / "checkpoints", step // EVERY * EVERY, time.monotonic() + 100
    while due not in {name.step for name in names(folder)}:
        assert time.monotonic() < ends, f"no checkpoint of step {due} in 100 s"
        time.sleep(0.02)


def happens(step: int, what: tuple[str, str, str]) -> bool:
    if (step, rank) != (int(what[0]), int(what[1])):
        return False
    wait_for_the_save(step)
    return True


if options.kind == "ddp":
    torch.distributed.init_process_group("gloo")
else:
    import horovod.torch as hvd

    hvd.init()
torch.manual_seed(1)
bare = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
model: nn.Module = bare
optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 7, gamma=0.5)
if options.kind == "ddp":
    model = nn.parallel.DistributedDataParallel(bare, broadcast_buffers=False)
elif options.kind == "horovod":
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
else:
    optimizer = lockstep.DistributedOptimizer(
        optimizer, named_parameters=model.named_parameters(), tuning=lockstep.checkpoint.tuning()
    )
samples = torch.Generator().manual_seed(rank)
torch.manual_seed(100 + rank)  # dropout is each rank's own

with lockstep.checkpoint.of(model=bare, optimizer=optimizer, scheduler=scheduler, samples=samples) as state:
    for step in state.steps(options.steps):
        if happens(step, options.die_at):
            os.kill(os.getpid(), signal.Signals[options.die_at[2]])
        if happens(step, options.tell_at):
            os.kill(os.getppid(), signal.Signals[options.tell_at[2]])  # to this rank's wrapper, as Slurm does
        inputs = torch.randn(8, 16, generator=samples)
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if (step + 1) % EVERY == 0:
            state.save()
        lockstep.report(step=step + 1, loss=loss.item(), samples=8)

digest = hashlib.sha256()
for value in bare.state_dict().values():
    digest.update(value.detach().contiguous().numpy().tobytes())
lockstep.report(kind="end", step=state.step, parameters_sha256=digest.hexdigest())
