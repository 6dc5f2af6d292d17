"""A training script of a user's own: two moons told apart, on plain Horovod; `lockstep` lines are marked.

It runs under Lockstep, and also alone (`python train.py`): then it has one rank, its reports are dropped, and nothing
is saved.
"""

import argparse
import math

import horovod.torch as hvd
import torch
from torch import Tensor, nn

import lockstep  # lockstep


def two_moons(samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (samples, 2) on two interlocking half circles, with noise, and which circle each is from (samples,)."""
    moon = torch.randint(0, 2, (samples,), generator=generator)
    angle = math.pi * torch.rand(samples, generator=generator)
    x = torch.where(moon == 0, angle.cos(), 1 - angle.cos())
    y = torch.where(moon == 0, angle.sin(), 0.5 - angle.sin())
    points = torch.stack([x, y], dim=1)
    return points + 0.15 * torch.randn(samples, 2, generator=generator), moon


def main() -> None:
    """Trains on 2,048 points a rank, each rank's own, and says how many of 1,000 others are told apart."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()

    hvd.init()
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)

    generator = torch.Generator().manual_seed(hvd.rank())
    points, moons = two_moons(2048, generator)
    steps_per_epoch = len(points) // options.batch_size
    with lockstep.checkpoint.of(model=model, optimizer=optimizer, generator=generator) as state:  # lockstep
        for step in state.steps(options.epochs * steps_per_epoch):  # lockstep: from where it was left
            rows = torch.randint(len(points), (options.batch_size,), generator=generator)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(points[rows]), moons[rows])
            loss.backward()
            optimizer.step()
            epoch = 1 + step // steps_per_epoch
            lockstep.report(step=step + 1, loss=loss.item(), samples=len(rows), epoch=epoch)  # lockstep

    test_points, test_moons = two_moons(1000, torch.Generator().manual_seed(1000))
    accuracy = (model(test_points).argmax(dim=1) == test_moons).float().mean().item()
    if hvd.rank() == 0:
        lockstep.report(kind="evaluation", step=state.step, accuracy=accuracy, samples=len(test_points))  # lockstep
        print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
