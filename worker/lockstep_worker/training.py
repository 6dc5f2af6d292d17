"""The built-in recipe: synchronous data-parallel training on Horovod.

Every rank draws the same order of the samples and takes its part of each global batch; the gradients are averaged, by
Lockstep's exchange or by Horovod's own optimizer. So 2 ranks with a batch of B each compute what 1 rank with 2 * B
computes, to the rounding of float32.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lockstep
from lockstep_worker import data, inside, models, numerics, optimizers
from lockstep_worker.carrier import carrier_of, torchs_group
from lockstep_worker.checkpoint.of import of_recipe, tuning
from lockstep_worker.checkpoint.settings import section_of_this_run
from lockstep_worker.data.broken import Broken
from lockstep_worker.data.loading import Feed, to_evaluate, to_train_on
from lockstep_worker.data.opening import loader_cpus, opened, tell
from lockstep_worker.data.position import Position
from lockstep_worker.data.sharding import steps_left
from lockstep_worker.errors import DataError, MeetingError, WorkerError
from lockstep_worker.finite import Finite
from lockstep_worker.gradients.isolation import Isolation, measure
from lockstep_worker.gradients.plan import LEAST_PIECE_BYTES, MOST_PIECE_BYTES
from lockstep_worker.gradients.transport import Transport
from lockstep_worker.recipe import Recipe
from lockstep_worker.statistics import Statistics

EVALUATED = 128
"""Held-out samples that are computed at once, at least."""


def train(recipe: Recipe) -> None:
    """Trains from start to end on this rank, and reports as docs/records.md says."""
    # What the imports made stays: not to be searched for garbage in every step, nor at the end (1.4 s with torch 2.13).
    gc.freeze()
    # Before Horovod: when that has started, every communication thread that was planned is there to be seen.
    with torchs_group(recipe, int(os.environ["WORLD_SIZE"])):
        meet()
        torch.set_num_threads(len(os.environ["LOCKSTEP_COMPUTE_CPUS"].split(",")))
        # The loaders are forked before there is a model, or a thread that exchanges its gradients.
        with (
            opened(recipe) as (samples, folder),
            Feed(samples, loader_cpus(), max(recipe.batch_size, EVALUATED)) as feed,
        ):
            fit(recipe, samples, feed, carrier_of(recipe), folder)
    hvd.shutdown()


def meet() -> None:
    """Starts Horovod. Raises ``MeetingError`` where not all ranks are in it."""
    hvd.init()
    if hvd.size() != int(os.environ["WORLD_SIZE"]):
        # An MPI that does not see what started it makes of each rank a training of its own, without a word.
        raise MeetingError(
            f"Horovod sees {hvd.size()} of {os.environ['WORLD_SIZE']} ranks; communication.mpi has to name "
            "how the MPI that Horovod was built with is started (see `srun --mpi=list`), or mpirun"
        )


def fit(recipe: Recipe, samples: data.DataSet, feed: Feed, carrier: Transport, folder: Path | None = None) -> None:
    """The training itself, from the model's first parameters, or where it was left, to the ``end`` record.

    ``carrier`` carries the pieces of its gradients, ``folder`` has a staged copy of the data.
    """
    torch.manual_seed(recipe.seed)
    rank, ranks = hvd.rank(), hvd.size()
    steps_per_epoch = steps_left(
        samples.train, 0, batch_size=recipe.batch_size, ranks=ranks, cap=recipe.steps_per_epoch
    )
    if steps_per_epoch == 0:
        raise DataError(f"{ranks} ranks x batch_size {recipe.batch_size} is more than {samples.train} samples")

    model = models.build(
        recipe.model,
        classes=samples.classes,
        gpt=recipe.gpt,
        arguments=recipe.model_arguments,
        path=recipe.model_path,
    )
    torch.manual_seed(recipe.seed * 3_000_017 + 1 + rank)  # from here on dropout is drawn, on each rank its own
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)  # a fresh optimizer has nothing to broadcast
    # Behind a collective, so that all ranks begin at once; before the exchange, whose thread has the carrier to itself.
    isolation = isolated(model, carrier) if ranks > 1 else None
    optimizer = distributed(recipe, model, carrier)

    position = Position()
    with of_recipe(model=model, optimizer=optimizer, position=position) as state:
        resumed_at, total = state.step, state.step + position.left(samples.train, recipe, ranks)
        steps, step = state.steps(total), state.step - 1
        begin(recipe, state.step, total, isolation)
        tell(recipe, samples, folder)
        statistics, finite = Statistics(optimizer), Finite(model, fails=recipe.on_bad_loss == "fail")
        began = ended = time.perf_counter()
        for epoch in range(position.epoch, recipe.epochs):
            model.train()
            batches = feed.batches(
                to_train_on(samples, recipe, epoch=epoch, rank=rank, ranks=ranks, done=position.done)
            )
            for _ in range(position.left_of_epoch(samples.train, recipe, ranks)):
                step = next(steps)  # behind the one before, which is saved where it was due
                with statistics.timed("data"):
                    inputs, targets = next(batches)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate_at(
                        step, ranks, epoch + position.done / (recipe.batch_size * ranks) / steps_per_epoch
                    )
                optimizer.zero_grad()
                losses = []
                for part in numerics.parts(inputs, targets, recipe):
                    with statistics.timed("forward"):
                        losses.append(numerics.loss_of(model, *part, recipe))
                    with statistics.timed("backward"):
                        losses[-1].backward()  # type: ignore[no-untyped-call]
                loss = finite.checked(sum(one.item() for one in losses), step + 1)
                update(optimizer, statistics)
                position.done += recipe.batch_size * ranks
                began_step, ended = ended, time.perf_counter()
                lockstep.report(
                    step=step + 1,
                    loss=loss,
                    samples=recipe.batch_size,
                    seconds=ended - began_step,
                    samples_per_s=recipe.batch_size / (ended - began_step),
                    epoch=epoch + 1,
                    **statistics.take(),
                )
            found = evaluate(model, samples, feed, recipe)
            position.end_epoch()
            state.evaluated(found.accuracy)
            if rank == 0:
                lockstep.report(step=step + 1, kind="evaluation", **asdict(found))
                print(f"epoch {epoch + 1}: held-out accuracy {found.accuracy:.4f}, loss {found.loss:.4f}", flush=True)
            ended = time.perf_counter()  # an evaluation is no part of the next step
            statistics.take()
        next(steps, None)  # behind the last one, which is saved, too

    trained, seconds = (state.step - resumed_at) * recipe.batch_size, time.perf_counter() - began
    digest = parameters_sha256(model)
    lockstep.report(
        step=state.step, kind="end", parameters_sha256=digest, steps=state.step, samples=trained, seconds=seconds,
        samples_per_s=trained / seconds, **numbers_of_broken(samples),
    )  # fmt: skip


def begin(recipe: Recipe, step: int, total: int, isolation: Isolation | None) -> None:
    """Tells what is planned: steps up to ``total``, of which ``step`` are done; and how fast the ranks' link is."""
    lockstep.report(kind="start", steps=total)
    if isolation is not None and isolation.piece_bytes and hvd.rank() == 0:
        lockstep.report(kind="isolation", **asdict(isolation))
    if step == total and hvd.rank() == 0:
        print(f"all of training.epochs, {recipe.epochs}, are trained already: nothing is left to do", flush=True)


def distributed(recipe: Recipe, model: nn.Module, carrier: Transport) -> Any:  # noqa: ANN401 - each is of a class of its own
    """The recipe's optimizer, whose gradients are averaged over all ranks."""
    optimizer = optimizers.build(recipe, model)
    if recipe.exchange == "horovod":
        return hvd.DistributedOptimizer(
            optimizer, named_parameters=model.named_parameters(), backward_passes_per_step=recipe.accumulate
        )
    return lockstep.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        defer=recipe.defer,
        backward_passes_per_step=recipe.accumulate,
        tuning=tuning() if section_of_this_run() is not None else None,
        transport=carrier,
    )


def update(optimizer: Any, statistics: Statistics) -> None:  # noqa: ANN401
    """One step of the optimizer. Horovod's own does not tell how long it waits, so that is timed here."""
    if isinstance(optimizer, lockstep.DistributedOptimizer):
        optimizer.step()
        return
    with statistics.timed("exposed"):
        optimizer.synchronize()
    with statistics.timed("optimizer"), optimizer.skip_synchronize():
        optimizer.step()


def isolated(model: nn.Module, carrier: Transport) -> Isolation:
    """What communication takes while nothing computes, in pieces of three sizes that an exchange may have."""
    every = sum(one.numel() * one.element_size() for one in model.parameters())
    sizes = {min(size, every) for size in (LEAST_PIECE_BYTES, 4 * LEAST_PIECE_BYTES, MOST_PIECE_BYTES)}
    return measure(carrier, sorted(sizes), name="lockstep.isolation")


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on all held-out samples."""

    accuracy: float
    """Right answers as a share of all; of texts, each position's is one."""
    loss: float
    """The mean over all answers."""
    samples: int


def evaluate(model: nn.Module, samples: data.DataSet, feed: Feed, recipe: Recipe) -> Evaluation:
    """Exact over all held-out samples: ranks add up counts and sums, not averages of shares."""
    size = max(recipe.batch_size, EVALUATED)
    own = totals_of(model, feed.batches(to_evaluate(samples, rank=hvd.rank(), ranks=hvd.size(), size=size)), recipe)
    totals = hvd.allreduce(torch.tensor(own, dtype=torch.float64), op=hvd.Sum, name="evaluation")
    correct, loss, answers, count = totals.tolist()
    if not answers:
        raise DataError("none of the samples that are held out can be decoded, so nothing can be evaluated")
    return Evaluation(correct / answers, loss / answers, int(count))


@torch.no_grad()
def totals_of(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], recipe: Recipe
) -> tuple[float, float, float, float]:
    """Right answers, summed loss, number of answers, number of samples of these batches; zeros for none."""
    model.eval()
    correct = loss = answers = count = 0.0
    for inputs, targets in batches:
        if len(inputs):  # else all of them are broken
            scores, right = numerics.scored(model, numerics.laid_out(inputs, recipe), targets, recipe)
            correct += (scores.argmax(dim=1) == right).sum().item()
            loss += cross_entropy(scores, right, reduction="sum").item()
            answers += len(right)
            count += len(inputs)
    return correct, loss, answers, count


def numbers_of_broken(samples: data.DataSet) -> dict[str, int]:
    """How many samples this rank has skipped, of data of which some may be broken."""
    broken: Broken | None = getattr(samples, "broken", None)
    return {} if broken is None else {"broken": len(broken.found)}


def parameters_sha256(model: nn.Module) -> str:
    """One digest of all parameters, bit by bit: equal on all ranks if and only if they trained the same model."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        train(Recipe.of_this_run())
    except WorkerError as error:
        print(f"lockstep: {error}", file=sys.stderr, flush=True)
        inside.tell_why(error)
        raise SystemExit(error.code) from None
