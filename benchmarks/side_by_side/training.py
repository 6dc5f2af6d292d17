"""What every arm runs: a plain Horovod training that stops at a gate before each slice of its steps.

It knows neither who started it nor how it is placed, and sets nothing of the kind; like a user's own script it reports
each step to Lockstep, which outside Lockstep is dropped. The gate is a Unix socket, one JSON object a line:

    rank -> gate   {"rank", "pid", "cpus", "threads", "variables"}    once it is ready to train
    gate -> rank   {"steps": N, "warm": M}                            M steps that are not timed, then N that are
    rank -> gate   {"seconds", "losses"}                              of those N, and of all M + N
    gate -> rank   {"end": true}
    rank -> gate   {"parameters_sha256"}
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import time
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lockstep

TOLD = ("OMP_", "GOMP_", "KMP_", "MKL_", "CCL_", "HOROVOD_THREAD_AFFINITY", "LD_PRELOAD")
"""The variables that say how a rank was placed; the gate is told what it has of them."""
POOL = 4
"""Batches of a rank, drawn once and used in turn: making noise is no part of a training."""


def variables_of_slurm() -> None:
    """Horovod's variables from Slurm's, where plain srun has started this: the few lines that its users write."""
    if "HOROVOD_RANK" in os.environ or "SLURM_PROCID" not in os.environ:
        return
    for ours, theirs in (
        ("RANK", "PROCID"),
        ("SIZE", "NTASKS"),
        ("LOCAL_RANK", "LOCALID"),
        ("LOCAL_SIZE", "NTASKS"),
        ("CROSS_RANK", "NODEID"),
        ("CROSS_SIZE", "NNODES"),
    ):
        os.environ[f"HOROVOD_{ours}"] = os.environ[f"SLURM_{theirs}"]
    os.environ["HOROVOD_HOSTNAME"] = os.environ["SLURMD_NODENAME"]


def small_cnn() -> nn.Module:
    """Six convolutions and two linear layers, 2.1 million parameters: (n, 3, 32, 32) -> (n, 10)."""
    layers: list[nn.Module] = []
    inside = 3
    for outside in (32, 64, 128):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.Conv2d(outside, outside, 3, padding=1)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        inside = outside
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 896), nn.ReLU(), nn.Linear(896, 10))


def wide_mlp() -> nn.Module:
    """Four linear layers, 12.6 million parameters: much to send for what it computes. (n, 1024) -> (n, 10)."""
    return nn.Sequential(
        nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 4096), nn.ReLU(), nn.Linear(4096, 512), nn.ReLU(),
        nn.Linear(512, 10),
    )  # fmt: skip


def resnet50() -> nn.Module:
    """The built-in recipe's, 25.6 million parameters: (n, 3, h, w) -> (n, 1000)."""
    from lockstep_worker.models import build

    return build("resnet50")


MODELS = {
    "small-cnn": (small_cnn, (3, 32, 32), 10),
    "wide-mlp": (wide_mlp, (1024,), 10),
    "resnet50": (resnet50, (3, 96, 96), 1000),
}
"""By name: the model, the shape of a sample, and how many classes there are."""


def batches(shape: tuple[int, ...], classes: int, size: int, rank: int) -> list[tuple[Tensor, Tensor]]:
    """A rank's batches: noise, the same in every arm."""
    dice = torch.Generator().manual_seed(1000 + rank)
    return [
        (torch.randn(size, *shape, generator=dice), torch.randint(classes, (size,), generator=dice))
        for _ in range(POOL)
    ]


def main() -> None:
    """Trains slice by slice until the gate says that it is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gate", required=True)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    options = parser.parse_args()

    variables_of_slurm()
    hvd.init()
    torch.manual_seed(7)
    build, shape, classes = MODELS[options.model]
    model = build()
    # So slow that the roundings of another number of threads stay roundings, and losses can be compared to the end.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    pool = batches(shape, classes, options.batch_size, hvd.rank())
    model.train()
    done = 0

    def step() -> float:
        nonlocal done
        samples, labels = pool[done % POOL]
        optimizer.zero_grad()
        loss = cross_entropy(model(samples), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        value = float(loss.item())
        lockstep.report(step=done, loss=value, samples=options.batch_size)
        return value

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(options.gate)
        lines = connection.makefile("rw", encoding="utf-8", newline="\n")

        def tell(answer: dict[str, Any]) -> None:
            lines.write(json.dumps(answer) + "\n")
            lines.flush()

        tell(
            {
                "rank": hvd.rank(),
                "pid": os.getpid(),
                "cpus": sorted(os.sched_getaffinity(0)),
                "threads": torch.get_num_threads(),
                "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(TOLD)},
            }
        )
        for line in lines:
            asked = json.loads(line)
            if asked.get("end"):
                break
            losses = [step() for _ in range(asked["warm"])]
            began = time.perf_counter()
            losses += [step() for _ in range(asked["steps"])]
            tell({"seconds": time.perf_counter() - began, "losses": losses})
        digest = hashlib.sha256()
        for parameter in model.parameters():
            digest.update(parameter.detach().contiguous().numpy().tobytes())
        tell({"parameters_sha256": digest.hexdigest()})
    hvd.shutdown()


if __name__ == "__main__":
    main()
