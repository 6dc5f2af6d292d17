"""`lockstep script --standalone` trains on a real Slurm with nothing of Lockstep, its threads where the plan says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cluster import ClusterInfo
from support import hostile
from support.lockstep import Lockstep

TRAINING = """\
import json, os, sys
import torch
import horovod.torch as hvd

hvd.init()
torch.manual_seed(7)
model = torch.nn.Linear(8, 1)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
torch.manual_seed(hvd.rank())
losses = []
for step in range(30):
    inputs = torch.randn(64, 8)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
threads = [sorted(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")]
weights = model.weight.detach().flatten().tolist()
print("RANK", json.dumps({
    "rank": hvd.rank(), "size": hvd.size(), "first": losses[0], "last": losses[-1], "weights": weights,
    "main": sorted(os.sched_getaffinity(0)), "threads": threads, "argument": sys.argv[1],
    "ours": sorted(name for name in sys.modules if name.startswith("lockstep")),
    "torch": torch.get_num_threads(), "master": bool(os.environ["MASTER_PORT"]),
}), flush=True)
hvd.shutdown()
"""


class Here:
    """A Lockstep over a Slurm with one node, and a training of the user's own."""

    def __init__(self, ours: Lockstep) -> None:
        self.ours = ours
        self.spec = ours.home / "spec.toml"
        script = ours.home / "train.py"
        script.write_text(TRAINING)
        self.spec.write_text(
            f'[training]\nscript = "{script}"\narguments = ["it\'s"]\n[resources]\nexclusive = true\ntime = "5"\n'
        )

    def print(self, *arguments: str) -> str:
        done = self.ours.run("script", self.spec, "--standalone", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, script: str) -> tuple[str, str]:
        """How its job ended, and what it said."""
        file = self.ours.home / "job.sbatch"
        file.write_text(script)
        # Submitted from a shell that is bound to the first CPU, which must not matter.
        return hostile.submitted(self.ours, self.ours.home, "output", str(file))


@pytest.fixture
def here(one_node: ClusterInfo, tmp_path: Path) -> Iterator[Here]:
    ours = Lockstep(tmp_path, one_node.slurm_conf)
    try:
        yield Here(ours)
    finally:
        ours.kill()


def ranks(said: str) -> list[dict[str, Any]]:
    """What each rank printed, in order."""
    found = [json.loads(line) for line in re.findall(r"RANK (\{.*\})", said)]
    return sorted(found, key=lambda one: int(one["rank"]))


def test_two_ranks_train_to_one_model_each_on_its_own_cpus(here: Here) -> None:
    state, said = here.run(here.print("--set", "placement.ranks_per_node=2"))
    assert state == "COMPLETED", said
    first, second = ranks(said)
    assert [one["size"] for one in (first, second)] == [2, 2]
    assert first["weights"] == pytest.approx(second["weights"])
    assert all(one["last"] < one["first"] / 5 for one in (first, second)), said
    halves = (os.cpu_count() or 2) // 2
    for one in (first, second):
        assert len(one["main"]) == one["torch"] <= halves
        assert one["argument"] == "it's"
        assert one["master"]
        assert one["ours"] == []
    mine, theirs = ({cpu for mask in one["threads"] for cpu in mask} for one in (first, second))
    assert not mine & theirs, said


def test_horovods_thread_has_the_cpu_that_is_kept_for_it(here: Here) -> None:
    state, said = here.run(here.print("--set", "placement.communication_cpus=1"))
    assert state == "COMPLETED", said
    (one,) = ranks(said)
    kept = {cpu for mask in one["threads"] for cpu in mask} - set(one["main"])
    assert len(kept) == 1, said
    assert one["threads"].count(sorted(kept)) == 1, "one thread has it, alone"


def test_a_rank_that_is_not_bound_as_planned_ends_the_job_before_it_trains(here: Here) -> None:
    script = here.print("--set", "placement.ranks_per_node=2")
    masks = re.findall(r"mask_cpu:(\S+)", script)[0]
    swapped = ",".join(reversed(masks.split(",")))
    state, said = here.run(script.replace(f"mask_cpu:{masks}", f"mask_cpu:{swapped}"))
    assert state == "FAILED"
    assert "was to have CPUs 0" in said
    assert "RANK" not in said


def test_a_node_of_another_kind_is_told_before_a_rank_starts(here: Here) -> None:
    script = here.print("--set", "placement.ranks_per_node=2")
    cpus = len(os.sched_getaffinity(0))
    state, said = here.run(script.replace(f"== {cpus} &&", "== 112 &&"))
    assert state == "FAILED"
    assert f"the job has {cpus} CPUs on its nodes, and these masks are for all of" in said


def test_a_job_that_shares_its_nodes_is_refused(here: Here) -> None:
    with pytest.raises(AssertionError, match=r"resources\.exclusive: is false, but"):
        here.print("--set", "resources.exclusive=false")
    done = here.ours.run("script", here.spec, "--topology", here.spec)
    assert done.returncode == 2
    assert "--standalone" in done.stderr
    done = here.ours.run("script", here.spec, "--standalone", "--topology", here.spec)
    assert done.returncode == 2
    assert str(here.spec) in done.stderr


def test_ranks_on_two_hosts_meet_in_the_network_that_the_spec_names(hosts: ClusterInfo, tmp_path: Path) -> None:
    assert hosts.network is not None
    here = Here(Lockstep(tmp_path, hosts.slurm_conf))
    script = here.print("--set", "resources.nodes=2", "--set", f'communication.subnet="{hosts.network.subnet}"')
    # Two hosts that are one machine share its CPUs, each with others reserved: for such there are no common masks.
    for theirs, ours in (
        (r"--cpu-bind=\S+", "--cpu-bind=cores"),
        (r"--cpus-per-task=\d+|--whole", "--cpus-per-task=1"),
        (r"== \d+ && ", "== 1 && "),
        (r'!= "\$lockstep_given"', '== "none"'),
        (r"taskset --cpu-list \S+ ", ""),
    ):
        script, count = re.subn(theirs, ours, script)
        assert count == 1, theirs
    state, said = here.run(script)
    assert state == "COMPLETED", said
    first, second = ranks(said)
    assert [one["size"] for one in (first, second)] == [2, 2]
    assert first["weights"] == pytest.approx(second["weights"])
