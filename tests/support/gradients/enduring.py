"""Cases of many steps, of long waits, and of four ranks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from lockstep_worker import births
from support.gradients import models, steps
from support.gradients.special import optimizer_of, shared, trained, unfreezing_on_one_rank
from support.gradients.training import Case, Run, backward, digest, equal_on_all_ranks


def tiny() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def tiny_loss(model: Any, _step: int) -> Tensor:
    found: Tensor = (model(models.data(2, 4)) - 1).square().mean()
    return found


def many_steps() -> None:
    """Many short steps of a tiny model, with several pieces and little credit."""
    models = []
    for defer in (False, True):
        model = tiny()
        optimizer = optimizer_of(model, defer=defer, piece_bytes=256, credit=2)
        steps = 100 if hvd.size() == 2 else 30
        trained(model, optimizer, steps, tiny_loss)
        optimizer.complete()
        assert shared(digest(one.detach() for one in model.parameters()))
        optimizer.close()
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        if hvd.size() == 2:
            assert torch.equal(one, other)
        else:  # what Horovod fuses depends on the moment, and with it the order in which four numbers are added
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def sleeps_over_tcp() -> None:
    """The same where its thread does all the work."""
    sleeps("tcp")


def sleeps(transport: str = "horovod") -> None:
    """A rank that waits half a second for another one uses next to no CPU time for it, in either of its threads."""
    model = models.mlp()
    optimizer = optimizer_of(model, transport=transport)
    trained(model, optimizer, 4, models.mlp_loss)
    optimizer.complete()
    hvd.barrier()
    if hvd.rank() == 1:
        time.sleep(0.5)
        trained(model, optimizer, 1, models.mlp_loss)
        optimizer.complete()
    else:
        trained(model, optimizer, 1, models.mlp_loss)
        thread = optimizer._own.reducer._exchange._thread.native_id
        assert births.BIRTHS.role(thread, births.threads_alive()[thread]) == "exchange"
        began, own, threads = time.perf_counter(), time.thread_time(), cpu_seconds(thread)
        optimizer.complete()
        waited = time.perf_counter() - began
        assert waited > 0.1
        assert time.thread_time() - own < 0.02 * waited
        assert cpu_seconds(thread) - threads < 0.1 * waited  # it looks every 0.5 ms; to spin would be 1.0
    optimizer.close()


def cpu_seconds(thread: int) -> float:
    """What a thread of this process has used."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9


def four_ranks_over_tcp() -> None:
    """The same, by small pieces, of which every rank owns a share."""
    four_ranks({"transport": "tcp", "piece_bytes": 2048, "credit": 3})


def four_ranks_over_gloo() -> None:
    """The same, by small pieces over a group of torch's."""
    four_ranks({"transport": "gloo", "piece_bytes": 2048, "credit": 3})


def four_ranks(options: dict[str, Any] | None = None) -> None:
    """Equal on all ranks always; against Horovod to the rounding of another order of summation."""
    run = twenty_steps("deferred", options or {})
    assert run.pending > 10
    for one, other in zip(run.model.parameters(), by_horovod().model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@functools.cache
def by_horovod() -> Run:
    """Horovod's own training, once for all that are compared with it."""
    return twenty_steps("horovod", {})


def twenty_steps(how: str, options: dict[str, Any]) -> Run:
    """With a delay of its own on each rank in every hook."""
    run = Run(
        Case(models.transformer, models.transformer_loss, step=steps.delayed_step, steps=20, options=options), how
    )
    assert all(equal_on_all_ranks(run.train())), how
    return run


def five_hundred_steps() -> None:
    """With a delay of its own on each rank in every hook of every module and parameter, under the watchdog of all."""
    model = tiny()
    optimizer = optimizer_of(model, piece_bytes=384, credit=2)
    steps.delay_hooks(model, seconds=0.0003)
    trained(model, optimizer, 500, tiny_loss)
    assert optimizer._own.deferral.pending
    assert len(optimizer._own.reducer.plan.order) > 1
    optimizer.complete()
    assert shared(digest(one.detach() for one in model.parameters()))
    optimizer.close()
    for one, other in zip(model.parameters(), trained_by_one_rank(500).parameters(), strict=True):
        # What four numbers add up to depends on their order.
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def trained_by_one_rank(steps: int) -> nn.Module:
    """The same training on the data of all ranks, without any exchange."""
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        for rank in range(hvd.size()):
            torch.manual_seed(1000 * step + rank)
            backward(tiny_loss(model, step) / hvd.size())
        optimizer.step()
    return model


CASES: dict[str, Callable[[], None]] = {
    "many steps": many_steps, "sleeps": sleeps, "sleeps over tcp": sleeps_over_tcp,
}  # fmt: skip
FOUR: dict[str, Callable[[], None]] = {
    "four ranks": four_ranks, "four ranks over tcp": four_ranks_over_tcp,
    "four ranks over gloo": four_ranks_over_gloo,
    "unfreezing on one rank": unfreezing_on_one_rank, "many steps": many_steps,
    "five hundred steps": five_hundred_steps,
}  # fmt: skip
