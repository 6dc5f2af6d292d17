"""The built-in recipe: synchronous data-parallel training on Horovod.

Every rank draws the same order of the samples and takes its part of each global batch; the gradients are averaged, by
Lockstep's exchange or by Horovod's own optimizer. So 2 ranks with a batch of B each compute what 1 rank with 2 * B
computes, to the rounding of float32.
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
from dataclasses import asdict
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lockstep
from lockstep_worker import data, models, optimizers
from lockstep_worker.data.sharding import batch, shard, steps_in
from lockstep_worker.gradients.isolation import measure
from lockstep_worker.gradients.plan import LEAST_PIECE_BYTES, MOST_PIECE_BYTES
from lockstep_worker.gradients.transport import HorovodTransport
from lockstep_worker.recipe import Recipe
from lockstep_worker.statistics import Statistics


def train(recipe: Recipe) -> None:
    """Trains from start to end on this rank, and reports as docs/records.md says."""
    # What the imports made stays: not to be searched for garbage in every step, nor at the end (1.4 s with torch 2.13).
    gc.freeze()
    hvd.init()
    if hvd.size() != int(os.environ["WORLD_SIZE"]):
        # An MPI that does not see what started it makes of each rank a training of its own, without a word.
        raise SystemExit(
            f"lockstep: Horovod sees {hvd.size()} of {os.environ['WORLD_SIZE']} ranks; communication.mpi has to name "
            "how the MPI that Horovod was built with is started (see `srun --mpi=list`), or mpirun"
        )
    torch.set_num_threads(len(os.environ["LOCKSTEP_COMPUTE_CPUS"].split(",")))
    torch.manual_seed(recipe.seed)
    rank, ranks = hvd.rank(), hvd.size()
    samples = data.load(recipe, ranks)
    steps_per_epoch = steps_in(samples.train, recipe.batch_size, ranks)
    steps_per_epoch = min(steps_per_epoch, recipe.steps_per_epoch or steps_per_epoch)
    if steps_per_epoch == 0:
        raise SystemExit(
            f"lockstep: {ranks} ranks x batch_size {recipe.batch_size} is more than {samples.train} samples"
        )

    model = models.build(recipe.model, classes=recipe.classes, gpt=recipe.gpt)
    torch.manual_seed(recipe.seed * 3_000_017 + 1 + rank)  # from here on dropout is drawn, on each rank its own
    optimizer = distributed(recipe, model)
    broadcast(model, optimizer)

    lockstep.report(kind="start", steps=steps_per_epoch * recipe.epochs)
    if ranks > 1:
        report_isolation(model)
    statistics = Statistics(optimizer)
    began = ended = time.perf_counter()
    step = 0
    for epoch in range(recipe.epochs):
        model.train()
        for step_of_epoch in range(steps_per_epoch):
            with statistics.timed("data"):
                indices = batch(
                    samples.train,
                    epoch,
                    step_of_epoch,
                    batch_size=recipe.batch_size,
                    rank=rank,
                    ranks=ranks,
                    seed=recipe.seed,
                )
                inputs, targets = samples.train_batch(indices)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(step, ranks)
            optimizer.zero_grad()
            with statistics.timed("forward"):
                loss = cross_entropy(*flat(model(inputs), targets))
            with statistics.timed("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            update(optimizer, statistics)
            step += 1
            began_step, ended = ended, time.perf_counter()
            lockstep.report(
                step=step,
                loss=loss.item(),
                samples=recipe.batch_size,
                seconds=ended - began_step,
                samples_per_s=recipe.batch_size / (ended - began_step),
                epoch=epoch + 1,
                **statistics.take(),
            )
        accuracy, held_out_loss = evaluate(model, samples, recipe.batch_size)
        if rank == 0:
            lockstep.report(
                step=step, kind="evaluation", accuracy=accuracy, loss=held_out_loss, samples=samples.held_out
            )
            print(f"epoch {epoch + 1}: held-out accuracy {accuracy:.4f}, loss {held_out_loss:.4f}", flush=True)
        ended = time.perf_counter()  # an evaluation is no part of the next step
        statistics.take()

    trained, seconds = step * recipe.batch_size, time.perf_counter() - began
    digest = parameters_sha256(model)
    lockstep.report(
        step=step, kind="end", parameters_sha256=digest, steps=step, samples=trained, seconds=seconds,
        samples_per_s=trained / seconds,
    )  # fmt: skip
    hvd.shutdown()


def distributed(recipe: Recipe, model: nn.Module) -> Any:  # noqa: ANN401 - each is of a class of its own
    """The recipe's optimizer, whose gradients are averaged over all ranks."""
    optimizer = optimizers.build(recipe, model)
    if recipe.exchange == "horovod":
        return hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    return lockstep.DistributedOptimizer(optimizer, named_parameters=model.named_parameters(), defer=recipe.defer)


def update(optimizer: Any, statistics: Statistics) -> None:  # noqa: ANN401
    """One step of the optimizer. Horovod's own does not tell how long it waits, so that is timed here."""
    if isinstance(optimizer, lockstep.DistributedOptimizer):
        optimizer.step()
        return
    with statistics.timed("exposed"):
        optimizer.synchronize()
    with statistics.timed("optimizer"), optimizer.skip_synchronize():
        optimizer.step()


def report_isolation(model: nn.Module) -> None:
    """What communication takes while nothing computes, in pieces of the sizes that an exchange of this model has."""
    every = sum(one.numel() * one.element_size() for one in model.parameters())
    sizes = {min(size, every) for size in (LEAST_PIECE_BYTES, 4 * LEAST_PIECE_BYTES, MOST_PIECE_BYTES)}
    found = measure(HorovodTransport("isolation"), sorted(sizes), name="lockstep.isolation")
    if hvd.rank() == 0 and found.piece_bytes:
        lockstep.report(kind="isolation", **asdict(found))


def broadcast(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Rank 0's parameters, buffers and optimizer state to every rank.

    A fresh optimizer has no state. Horovod 0.28.1 would make it some by a step with gradients of zero, which weight
    decay turns into a change of the parameters; so state is only broadcast where there is any (after a resume).
    """
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    if optimizer.state:
        hvd.broadcast_optimizer_state(optimizer, root_rank=0)


def evaluate(model: nn.Module, samples: data.DataSet, batch_size: int) -> tuple[float, float]:
    """Accuracy and mean loss over all held-out samples, exact: ranks add up counts and sums, not averages of shares."""
    own = shard(samples.held_out, rank=hvd.rank(), ranks=hvd.size())
    totals = torch.tensor(totals_of(model, samples, own, max(batch_size, 128)), dtype=torch.float64)
    correct, loss, count = hvd.allreduce(totals, op=hvd.Sum, name="evaluation").tolist()
    return correct / count, loss / count


@torch.no_grad()
def totals_of(model: nn.Module, samples: data.DataSet, indices: Tensor, size: int) -> tuple[float, float, float]:
    """Correct answers, summed loss, number of answers of these held-out samples, ``size`` at a time; zeros for none."""
    model.eval()
    correct = loss = count = 0.0
    for part in torch.split(indices, size) if len(indices) else ():
        inputs, targets = samples.held_out_batch(part)
        scores, targets = flat(model(inputs), targets)
        correct += (scores.argmax(dim=1) == targets).sum().item()
        loss += cross_entropy(scores, targets, reduction="sum").item()
        count += len(targets)
    return correct, loss, count


def flat(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One answer a row: of texts, each position's is one. (n, ..., classes), (n, ...) -> (m, classes), (m,)."""
    return scores.flatten(0, -2), targets.flatten()


def parameters_sha256(model: nn.Module) -> str:
    """One digest of all parameters, bit by bit: equal on all ranks if and only if they trained the same model."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    train(Recipe.of_this_run())
