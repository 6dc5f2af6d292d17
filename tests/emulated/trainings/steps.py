"""A training of nothing, for Horovod or its stand-in: a few steps, and one of the faults that a script can make.

``steps.py [outside | swap | narrow]``
"""

import os
import sys
from pathlib import Path

import horovod.torch as hvd
import torch

# Of cgroup v2, as Slurm 24.11 makes them: .../step_0/user/task_0.
own_group = Path("/proc/self/cgroup").read_text().strip().partition("::")[2]
step = (Path("/sys/fs/cgroup") / own_group.lstrip("/")).parents[1]
fault = sys.argv[1] if len(sys.argv) > 1 else ""
if fault == "outside":
    # What another job on the machine may have; the same for each rank.
    allowed = (step / "cpuset.cpus.effective").read_text()
    ranges = [list(map(int, part.split("-"))) for part in allowed.split(",")]
    (foreign, *_) = [cpu for cpu in range(8) if not any(part[0] <= cpu <= part[-1] for part in ranges)]
    os.environ["HOROVOD_THREAD_AFFINITY"] = f"{foreign},{foreign}"
hvd.init()

if fault == "swap":
    own = int(os.environ["HOROVOD_THREAD_AFFINITY"].split(",")[hvd.local_rank()])
    compute = os.sched_getaffinity(0)
    tids = [int(folder.name) for folder in Path("/proc/self/task").iterdir()]
    (horovod,) = [tid for tid in tids if os.sched_getaffinity(tid) == {own}]
    os.sched_setaffinity(horovod, compute)
    os.sched_setaffinity(0, {own})
elif fault == "narrow" and hvd.rank() == 0:
    # What an administrator, or another daemon that manages cgroups, may do to a step that runs.
    (step / "cpuset.cpus").write_text("0-1,4-7")

weights = torch.zeros(4, requires_grad=True)
optimizer = torch.optim.SGD([weights], lr=0.1)
for _step in range(4):
    torch.ones(1 << 18).sum()
    weights.grad = hvd.allreduce(torch.ones(4))
    optimizer.step()
print(f"rank {hvd.rank()} of {hvd.size()} has made its steps", flush=True)
