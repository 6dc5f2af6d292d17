"""Cases that have no equal in Horovod, or are about what must not happen."""

from __future__ import annotations

import atexit
import json
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

import lockstep
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.transport import HorovodTransport
from support.gradients import models, steps
from support.gradients.training import Case, Run, backward, digest, equal_on_all_ranks, ordinary_step, raises


def shared(text: str) -> bool:
    """Whether a text is the same on all ranks."""
    return len(set(hvd.allgather_object(text))) == 1


def optimizer_of(model: nn.Module, **options: Any) -> Any:
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    return lockstep.DistributedOptimizer(
        base, named_parameters=model.named_parameters(), **{"piece_bytes": 1024, **options}
    )


def trained(model: Any, optimizer: Any, steps: int, loss: Callable[[Any, int], Tensor]) -> None:
    for step in range(steps):
        torch.manual_seed(1000 * step + hvd.rank())
        optimizer.zero_grad()
        backward(loss(model, step))
        optimizer.step()


def unused_everywhere() -> None:
    """What no rank used has no gradient, so that weight decay and momentum leave it alone, as in torch."""
    digests = set()
    for defer in (False, True):
        torch.manual_seed(3)
        model = models.Branches(with_never=True)
        before = model.never.weight.detach().clone()
        optimizer = optimizer_of(model, defer=defer)
        trained(model, optimizer, 8, models.branches_loss)
        assert torch.equal(model.never.weight, before)
        assert model.never.weight.grad is None
        assert model.first.weight.grad is not None
        assert model.never.weight not in optimizer.state
        digests.add(digest(one.detach() for one in model.parameters()))
        optimizer.close()
    assert len(digests) == 1
    assert shared(digests.pop())


class Gated(HorovodTransport):
    """Lets the pieces ``free`` end (None: all), and the others when ``gate`` is set."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = threading.Event()
        self.free: set[int] | None = None
        self.started: list[str] = []
        self.started_by: set[str] = set()
        """Names of threads."""
        self.pieces: dict[int, int] = {}
        """By handle."""

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> int:
        handle = super().start(buffer, name, landed)
        self.started.append(name)
        self.started_by.add(threading.current_thread().name)
        self.pieces[handle] = int(name.rpartition(".")[2])
        return handle

    def is_done(self, handle: int) -> bool:
        held = self.free is not None and self.pieces[handle] not in self.free and not self.gate.is_set()
        return super().is_done(handle) and not held


def a_layer_waits_for_itself_alone() -> None:
    """The first layer of the next forward pass runs while the others' gradients are held back."""
    torch.manual_seed(3)
    model = models.mlp()
    transport = Gated("gated")
    optimizer = optimizer_of(model, transport=transport, credit=100)
    ran: list[str] = []
    trained(model, optimizer, 4, models.mlp_loss)
    optimizer.complete()
    layout = optimizer._own.reducer
    transport.free = {part for slot in layout.slots[:2] for part in slot.parts}
    assert transport.free < set(layout.plan.order)

    def after_first(*_: Any) -> None:
        ran.append("first layer")
        assert optimizer._own.deferral.pending
        assert not transport.gate.is_set()
        transport.gate.set()

    trained(model, optimizer, 1, models.mlp_loss)
    handle = model[0].register_forward_hook(after_first)
    optimizer.zero_grad()
    backward(models.mlp_loss(model, 0))
    assert ran == ["first layer"]
    handle.remove()
    transport.gate.set()
    optimizer.step()
    optimizer.close()
    assert shared(digest(one.detach() for one in model.parameters()))


def a_teacher_waits_for_nothing() -> None:
    """A model that is not in training, called first, completes nothing; the one in training does when evaluated."""
    model, teacher = models.mlp(), models.mlp().eval()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, models.mlp_loss)
    with torch.no_grad():
        teacher(torch.ones(1, 12))
        assert optimizer._own.deferral.pending
        model(torch.ones(1, 12))
        assert not optimizer._own.deferral.pending
    optimizer.close()


def one_order() -> None:
    """Every rank issues the same pieces in the same order in every step, also with delays of its own."""
    torch.manual_seed(3)
    run = Run(Case(models.transformer, models.transformer_loss, step=steps.delayed_step, steps=20), "deferred",
              transport=(transport := Gated("one-order")))  # fmt: skip
    run.train()
    assert run.pending > 10
    assert len(transport.started) > 5 * run.case.steps
    assert shared("\n".join(transport.started))
    # Whose turn has come when its last gradient does is sent at once, and not when the thread has its turn.
    assert transport.started_by == {"MainThread", "lockstep-exchange"}


class Cut(HorovodTransport):
    """Nothing can be sent from a point on."""

    is_cut = False

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> int:
        if self.is_cut:
            raise OSError("the link is cut")
        return super().start(buffer, name, landed)


def a_cut_link() -> None:
    """What cannot be sent is raised as it is by whoever waits for it, deferred or not, and nothing hangs."""
    for count in (0, 5):
        model = models.mlp()
        optimizer = optimizer_of(model, transport=(transport := Cut(f"cut.{count}")))
        trained(model, optimizer, count, models.mlp_loss)
        optimizer.complete()
        transport.is_cut = True
        with raises(OSError, "the link is cut"):
            trained(model, optimizer, 2, models.mlp_loss)
        assert optimizer._own.deferral.pending == bool(count)
        with raises(OSError, "the link is cut") if count else nullcontext():
            optimizer.close()


def unfreezing() -> None:
    """Layers that begin to require gradients on all ranks are averaged from that very step on; and some cease to."""
    case = Case(models.mlp, models.mlp_loss, steps=12, step=unfreezing_step, horovod_step=dropping_step)
    expected = Run(case, "horovod").train()
    assert all(equal_on_all_ranks(expected))
    for transport in ("horovod", "tcp"):
        for how in ("undeferred", "deferred"):
            run = Run(replace(case, model=models.frozen_mlp), how, transport=transport)
            trace = run.train()
            assert all(equal_on_all_ranks(trace)), (how, transport)
            assert (run.pending > 0) == (how == "deferred")
            assert trace == expected, f"{how} over {transport} differs from Horovod's"


def unfreezing_step(run: Run, number: int) -> None:
    if number == 6:
        for one in run.model[2].parameters():
            one.requires_grad_(True)
    if number == 9:
        run.model[0].weight.requires_grad_(False)
        run.model[0].weight.grad = None
    ordinary_step(run, number)


def dropping_step(run: Run, number: int) -> None:
    """The same on Horovod, which hooks what requires a gradient at the start: averaged, and not used."""
    run.optimizer.zero_grad()
    loss = models.mlp_loss(run.model, number)
    backward(loss)
    run.note(loss)
    run.optimizer.synchronize()
    for one in [*(run.model[2].parameters() if number < 6 else []), *([run.model[0].weight] if number >= 9 else [])]:
        one.grad = None
    with run.optimizer.skip_synchronize():
        run.optimizer.step()


def unfreezing_on_one_rank(transport: str = "horovod") -> None:
    """It hangs nobody, and the ranks stay equal."""
    torch.manual_seed(3)
    model = models.frozen_mlp()
    optimizer = optimizer_of(model, transport=transport)
    trained(model, optimizer, 5, models.mlp_loss)
    if hvd.rank() == 1:
        model[2].weight.requires_grad_(True)
    trained(model, optimizer, 6, models.mlp_loss)
    optimizer.complete()
    assert shared(digest(one.detach() for one in model.parameters()))
    assert any(slot.parameter is model[2].weight for slot in optimizer._own.reducer.slots)
    optimizer.close()


def unfreezing_on_one_rank_over_tcp() -> None:
    """The same where a piece is known by its number."""
    unfreezing_on_one_rank("tcp")


def without_a_backward_pass() -> None:
    """A rank that has no batch steps along."""
    torch.manual_seed(3)
    model = models.mlp()
    optimizer = optimizer_of(model)
    for step in range(8):
        optimizer.zero_grad()
        if hvd.rank() == 0 or step % 3 == 0:
            backward(models.mlp_loss(model, step))
        optimizer.step()
    optimizer.complete()
    assert shared(digest(one.detach() for one in model.parameters()))
    optimizer.close()


def two_optimizers() -> None:
    """Two at once, stepped in the other order on one rank: their exchanges do not meet."""
    torch.manual_seed(3)
    pair = [models.mlp(), models.mlp()]
    optimizers = [optimizer_of(one) for one in pair]
    for step in range(6):
        for optimizer in optimizers:
            optimizer.zero_grad()
        inputs = models.data(6, 12)
        backward(pair[0](inputs).square().mean() + pair[1](inputs).abs().mean())
        for optimizer in optimizers if step < 3 or hvd.rank() == 0 else optimizers[::-1]:
            optimizer.step()
    for model, optimizer in zip(pair, optimizers, strict=True):
        optimizer.complete()
        assert shared(digest(one.detach() for one in model.parameters()))
        optimizer.close()


def further_parameters() -> None:
    """add_param_group, in the middle of a training; on one rank only it is an error on all."""
    digests = []
    for defer in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(*models.mlp(), nn.Linear(5, 5))
        base = torch.optim.SGD(model[:5].parameters(), lr=0.05, momentum=0.9)
        optimizer: Any = lockstep.DistributedOptimizer(base, model[:5].named_parameters(), defer=defer)
        trained(model, optimizer, 4, models.mlp_loss)
        optimizer.add_param_group({"params": list(model[5].parameters()), "lr": 0.01})
        model.zero_grad()
        trained(model, optimizer, 6, models.mlp_loss)
        optimizer.complete()
        digests.append(digest(one.detach() for one in model.parameters()))
        if hvd.rank() == 1:
            optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
        with raises(GradientError, "rank 0 has 8 parameters and rank 1 9"):
            trained(model, optimizer, 2, models.mlp_loss)
        optimizer.close()
    assert digests[0] == digests[1]
    assert shared(digests[0])


left: list[Any] = []
"""What is still there when the interpreter ends."""


@atexit.register
def tell_what_is_left() -> None:
    """Runs after Lockstep's own: it was registered before."""
    for rank, model, optimizer in left:
        assert optimizer._own.deferral is None
        tell(rank, model)


def tell(rank: int, model: nn.Module) -> None:
    found = {"case": "ending", "rank": rank, "wrong": "", "digest": digest(one.detach() for one in model.parameters())}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


CASES: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        unused_everywhere, a_layer_waits_for_itself_alone, a_teacher_waits_for_nothing, one_order, a_cut_link,
        unfreezing, unfreezing_on_one_rank, unfreezing_on_one_rank_over_tcp, without_a_backward_pass, two_optimizers,
        further_parameters,
    )
}  # fmt: skip


def at_the_end() -> None:
    """An update is on its way when the script shuts Horovod down (two ranks), or ends (four).

    Not one after the other: a second ``hvd.init()`` crashes in Horovod 0.28.1.
    """
    torch.manual_seed(3)
    model = models.mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, models.mlp_loss)
    assert optimizer._own.deferral.pending
    rank = hvd.rank()
    if hvd.size() == 2:
        hvd.shutdown()
        tell(rank, model)
    else:
        left.append((rank, model, optimizer))
