"""A Horovod script as people have them: how many images a second a small network takes in on made-up images.

It knows of nothing but torch and Horovod, runs as well under `horovodrun -np 2 python horovod_script.py`, and says on
its first rank what it measured.
"""

import argparse
import time

import horovod.torch as hvd
import torch
from torch import nn


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Images per second of a small network on made-up images")
    parser.add_argument("--batch-size", type=int, default=16, help="images per step of one rank")
    parser.add_argument("--warmup", type=int, default=2, help="steps before anything is measured")
    parser.add_argument("--steps", type=int, default=5, help="steps in one measurement")
    parser.add_argument("--measurements", type=int, default=10)
    parser.add_argument("--fp16-allreduce", action="store_true", help="send gradients in half precision")
    return parser.parse_args()


def say(line: str) -> None:
    """Prints once for all ranks."""
    if hvd.rank() == 0:
        print(line, flush=True)


def small_network() -> nn.Module:
    """About a million parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 32, kernel_size=3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 1000),
    )  # fmt: skip


def main() -> None:
    """Measures, and says what it measured."""
    options = parse_options()
    hvd.init()
    torch.manual_seed(hvd.rank())

    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01 * hvd.size())
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16 if options.fp16_allreduce else hvd.Compression.none,
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    images = torch.randn(options.batch_size, 3, 112, 112)
    classes = torch.randint(0, 1000, (options.batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), classes).backward()
        optimizer.step()

    say(f"Batch size: {options.batch_size}")
    say(f"Number of CPUs: {hvd.size()}")
    for _ in range(options.warmup):
        step()
    rates = []
    for number in range(options.measurements):
        began = time.perf_counter()
        for _ in range(options.steps):
            step()
        rate = options.batch_size * options.steps / (time.perf_counter() - began)
        say(f"Iter #{number}: {rate:.1f} img/sec per CPU")
        rates.append(rate)

    mean = sum(rates) / len(rates)
    spread = 1.96 * (sum((rate - mean) ** 2 for rate in rates) / len(rates)) ** 0.5
    say(f"Img/sec per CPU: {mean:.1f} +-{spread:.1f}")
    say(f"Total img/sec on {hvd.size()} CPU(s): {hvd.size() * mean:.1f} +-{hvd.size() * spread:.1f}")


if __name__ == "__main__":
    main()
