"""A torch.distributed script as people have them: DistributedDataParallel on the CPU, with Gloo, on made-up images.

It knows of nothing but torch, and runs as well under `torchrun --nproc-per-node 2 ddp_script.py`.
"""

import argparse
import gc
import os
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Stripes(Dataset[tuple[Tensor, Tensor]]):
    """Noisy images, 1 x 28 x 28, of stripes that lie, or stand; which of both is to be told."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        kind = torch.randint(0, 2, (), generator=generator)
        wave = torch.sin(torch.arange(28) * 0.9 + index)
        image = wave.expand(28, 28) if kind == 0 else wave.expand(28, 28).T
        return (image + 3 * torch.randn(28, 28, generator=generator)).unsqueeze(0), kind


def main() -> None:
    """Trains, and says how many of the images it tells apart."""
    parser = argparse.ArgumentParser(description="Trains a small network on stripes, with DistributedDataParallel")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of one rank")
    parser.add_argument("--images", type=int, default=4096)
    options = parser.parse_args()

    dist.init_process_group("gloo")  # reads MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE
    rank, ranks = dist.get_rank(), dist.get_world_size()
    print(f"rank {rank} of {ranks}, local rank {os.environ['LOCAL_RANK']}, is there", flush=True)

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=5), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32 * 6 * 6, 2)
    )
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    data = Stripes(options.images)
    sampler = DistributedSampler(data, num_replicas=ranks, rank=rank, shuffle=True)
    loader = DataLoader(data, batch_size=options.batch_size, sampler=sampler)

    for epoch in range(1, options.epochs + 1):
        sampler.set_epoch(epoch)
        seen, began = 0, time.perf_counter()
        for number, (images, kinds) in enumerate(loader, start=1):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), kinds)
            loss.backward()
            optimizer.step()
            seen += len(images)
            if number % 8 == 0:
                rate = seen / (time.perf_counter() - began)
                print(
                    f"epoch {epoch} step {number}/{len(loader)} loss {loss.item():.4f} {rate:.1f} images/sec",
                    flush=True,
                )
                seen, began = 0, time.perf_counter()

    right = torch.zeros(1)
    with torch.no_grad():
        for images, kinds in loader:
            right += (network(images).argmax(dim=1) == kinds).sum()
    dist.all_reduce(right)
    if rank == 0:
        print(f"told apart: {right.item() / (len(loader.sampler) * ranks):.3f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    # The model's cycles keep Gloo's threads alive until Python ends, and one that wants something of Python just then
    # aborts the process (torch 2.13, Python 3.11; on a single CPU now and then).
    gc.collect()
