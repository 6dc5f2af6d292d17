"""A small training over the real torch and Horovod: the ranks average the gradients of a linear model."""

import json
from pathlib import Path

import horovod.torch as hvd
import torch

torch.manual_seed(0)
hvd.init()
model = torch.nn.Linear(64, 8)
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
for _step in range(4):
    loss = model(torch.randn(256, 64)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
same = hvd.allgather(model.weight.detach().sum().reshape(1))
assert (same - same[0]).abs().max() < 1e-5, same
print(f"rank {hvd.rank()} of {hvd.size()} has made its steps", flush=True)

# The process's own pages by NUMA domain; those of files lie where whoever read them first has put them.
lines = [line.split() for line in Path("/proc/self/numa_maps").read_text().splitlines()]
pages = {0: 0, 1: 0}
for words in lines:
    for word in words:
        if word.startswith("N") and not any(other.startswith("file=") for other in words):
            domain, _, count = word[1:].partition("=")
            pages[int(domain)] += int(count)
print(json.dumps({"rank": hvd.rank(), "policy": lines[0][1], "pages": pages}), flush=True)
