"""Cases in which an update comes late: read without asking, from another thread, within a transform; or goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

import lockstep
from lockstep_worker.gradients.errors import GradientError
from support.gradients import models
from support.gradients.special import Gated, optimizer_of, shared, trained
from support.gradients.training import backward, digest, raises, state_digest

Loss = Callable[[Any, int], Tensor]


def losses(model: nn.Module, loss: Loss, *, defer: bool, free: Iterable[Tensor] = ()) -> list[float]:
    """Of a training in which, deferred, only the gradients of ``free`` are there when the next forward pass begins."""
    transport = Gated("late")
    optimizer = optimizer_of(model, defer=defer, transport=transport, credit=100, piece_bytes=128)
    own = {id(one) for one in free}
    found = []
    for step in range(8):
        torch.manual_seed(1000 * step + hvd.rank())
        optimizer.zero_grad()
        timer = threading.Timer(0.02, transport.gate.set)
        timer.start()
        value = loss(model, step)
        found.append(value.item())
        timer.join()
        optimizer.complete()
        if defer and step >= 4:
            assert optimizer._own.reducer.plan.measured
            transport.gate.clear()
            slots = optimizer._own.reducer.slots
            transport.free = {part for slot in slots if id(slot.parameter) in own for part in slot.parts}
        backward(value)
        optimizer.step()
        assert step < 4 or optimizer._own.deferral.pending == defer
    transport.gate.set()
    optimizer.close()
    assert shared(digest(one.detach() for one in model.parameters()))
    return found


def compare(make: Callable[[], Any], loss: Loss, free: Callable[[Any], Iterable[Tensor]] = lambda _: ()) -> None:
    """The same losses, deferred and not."""
    found = []
    for defer in (False, True):
        torch.manual_seed(3)
        model = make()
        found.append(losses(model, loss, defer=defer, free=free(model)))
    assert found[0] == found[1]


class Block(nn.Module):
    """Its scale is used by a function of TorchScript, which does not ask torch."""

    def __init__(self, scaled: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.scaled = scaled

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scaled(self.layer(inputs), self.scale).tanh()


def times(one: Tensor, other: Tensor) -> Tensor:
    return one * other


def block_loss(model: Any, _step: int) -> Tensor:
    found: Tensor = model(models.data(2, 4)).square().mean()
    return found


def scripts() -> None:
    """A scripted module that is called behind others, and a scripted function of a parameter."""

    def made() -> nn.ModuleList:
        return nn.ModuleList([nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 4))])

    compare(made, lambda model, step: block_loss(lambda x: model[1](model[0](x)), step), lambda m: m[0].parameters())
    scaled = torch.jit.script(times)
    compare(
        lambda: nn.Sequential(Block(scaled), Block(scaled)), block_loss,
        lambda model: [*model[0].parameters(), *model[1].layer.parameters()],
    )  # fmt: skip


def transforms() -> None:
    """``torch.func.grad`` of a model's parameters sees them updated, and does not differentiate the update."""

    def loss(model: Any, step: int) -> Tensor:
        if step < 3:
            return block_loss(model, step)  # what is used first is measured
        inputs = models.data(2, 4)

        def function(parameters: dict[str, Tensor]) -> Tensor:
            found: Tensor = torch.func.functional_call(model, parameters, (inputs,)).square().mean()
            return found

        gradients = torch.func.grad(function)(dict(model.named_parameters()))
        return block_loss(model, step) * torch.stack([one.sum() for one in gradients.values()]).sum().detach()

    compare(lambda: nn.Sequential(Block(times), Block(times)), loss, lambda model: model[0].parameters())


def compiled_code() -> None:
    """Compiled as a whole, in part, or as a function that uses a model's parameters."""
    calls: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph.forward(*arguments)

        return run

    def compiled(how: str) -> Any:
        model = nn.Sequential(Block(times), Block(times))
        parts: dict[str, list[nn.Module]] = {"root": [model], "inner": [model[1]], "each": [model[0], model[1]]}
        for one in parts.get(how, []):
            one.compile(backend=backend)
        return model

    def function(model: Any) -> Loss:
        run = torch.compile(lambda inputs: (model[1].layer(inputs) * model[1].scale).tanh(), backend=backend)
        return lambda _, step: block_loss(lambda inputs: run(model[0](inputs)), step)

    for how in ("root", "inner", "each", "function"):
        found = []
        for defer in (False, True):
            torch._dynamo.reset()
            torch.manual_seed(3)
            model = compiled(how)
            loss = function(model) if how == "function" else block_loss
            found.append(losses(model, loss, defer=defer, free=model[0].parameters()))
        assert found[0] == found[1], how
        assert calls, how
        calls.clear()


def resuming() -> None:
    """One rank has read a checkpoint, and tells it to the others: these make a state of their own for it to go to."""
    torch.manual_seed(hvd.rank())
    model = models.mlp()
    optimizer = optimizer_of(model)
    if hvd.rank() == 0:
        earlier = models.mlp()
        base = torch.optim.SGD(earlier.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
        backward(models.mlp_loss(earlier, 0))
        base.step()
        optimizer.load_state_dict(base.state_dict())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    assert optimizer._own.reducer.plan is None, "it took a step of all ranks"
    assert all(one.grad is None for one in model.parameters())
    assert all(values["momentum_buffer"].any() for values in optimizer.state.values())
    assert shared(digest(one.detach() for one in model.parameters()))
    assert shared(state_digest(optimizer))
    trained(model, optimizer, 5, models.mlp_loss)
    assert optimizer._own.deferral.pending
    optimizer.close()
    assert shared(digest(one.detach() for one in model.parameters()))


class Steered(torch.optim.SGD):
    """Does what it is told in the middle of an update."""

    separable = True
    during: Callable[[], None] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.during is not None:
            self.during()
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    one.add_(one.grad, alpha=-group["lr"])


def steered() -> tuple[Any, Any]:
    """A model, and its optimizer, with an update on its way."""
    model = models.mlp()
    optimizer: Any = lockstep.DistributedOptimizer(Steered(model.parameters(), lr=0.1), model.named_parameters())
    trained(model, optimizer, 4, models.mlp_loss)
    assert optimizer._own.deferral.pending
    return model, optimizer


def other_threads() -> None:
    """While one thread computes an update another one waits for it, and sees it done."""
    model, optimizer = steered()
    seen: list[Tensor] = []
    reader = threading.Thread(target=lambda: seen.append(model[0].weight.detach().clone()))

    def during() -> None:
        optimizer.during = None
        reader.start()
        reader.join(0.1)
        assert not seen, "it has seen the weights of before"

    optimizer.during = during
    optimizer.complete()
    reader.join()
    assert torch.equal(seen[0], model[0].weight)
    optimizer.close()


def failing_updates() -> None:
    """An update that failed is raised by whatever comes after it: it can be neither repeated nor left out."""
    model, optimizer = steered()

    def during() -> None:
        optimizer.during = None
        raise KeyboardInterrupt

    optimizer.during = during
    with raises(KeyboardInterrupt, ""):
        model(models.data(2, 12))
    for use in (optimizer.complete, optimizer.step, optimizer.state_dict, model[0].weight.sum):
        with raises(GradientError, "an update failed before (KeyboardInterrupt())"):
            use()
    with raises(GradientError, "an update failed before"):
        optimizer.close()
    assert all(type(one) is nn.Parameter for one in model.parameters())
    model, optimizer = steered()
    optimizer.during = optimizer.complete
    with raises(GradientError, "an update is being computed"):
        optimizer.complete()
    with raises(GradientError, "an update failed before"):
        optimizer.close()


class Counting(torch.optim.SGD):
    """Keeps a state in its groups."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["lr"] /= 2
        super().step(closure)


def state_in_groups() -> None:
    """What ``separable=True`` is not true for is told, before it makes a difference."""
    model = models.mlp()
    optimizer: Any = lockstep.DistributedOptimizer(
        Counting(model.parameters(), lr=1.0), model.named_parameters(), separable=True
    )
    trained(model, optimizer, 4, models.mlp_loss)
    assert optimizer._own.deferral.pending
    with raises(GradientError, "step() changes 'lr' of its parameter groups"):
        optimizer.complete()
    with raises(GradientError, "say defer=False"):
        optimizer.close()


def zeroed_in_between() -> None:
    """What nobody uses gets no gradient of zeros from ``zero_grad``, and is not decayed."""
    found = []
    for defer in (False, True):
        torch.manual_seed(3)
        model = models.Branches(with_never=True)
        before = model.never.weight.detach().clone()
        optimizer = optimizer_of(model, defer=defer)
        for step in range(8):
            torch.manual_seed(1000 * step + hvd.rank())
            optimizer.zero_grad(set_to_none=False)
            backward(models.branches_loss(model, step))
            optimizer.step()
        optimizer.close()
        assert torch.equal(model.never.weight, before)
        assert model.never.weight.grad is None
        found.append(digest(one.detach() for one in model.parameters()))
    assert found[0] == found[1]


def evaluating_while_measured() -> None:
    """An evaluation behind every step hides the first uses; nothing is deferred by an order that was not measured."""
    model = models.mlp()
    optimizer = optimizer_of(model)
    for step in range(4):
        trained(model, optimizer, 1, models.mlp_loss)
        model.eval()
        model(models.data(2, 12))
        model.train()
        assert not optimizer._own.reducer.plan.measured, step
    trained(model, optimizer, 5, models.mlp_loss)
    assert optimizer._own.reducer.plan.measured
    assert optimizer._own.deferral.pending
    assert optimizer._own.reducer.plan.sequence[:2] == (0, 1)  # the first layer is used first
    optimizer.close()


def strange_cpus() -> None:
    """CPUs that this process cannot have leave the exchange thread where it is."""
    os.environ["LOCKSTEP_EXCHANGE_CPUS"] = "4000"
    try:
        model = models.mlp()
        optimizer = optimizer_of(model)
        trained(model, optimizer, 4, models.mlp_loss)
    finally:
        del os.environ["LOCKSTEP_EXCHANGE_CPUS"]
    optimizer.close()


def groups_that_end() -> None:
    """Somebody's subgroup ends no exchange; the whole of torch's ends its own, and not Horovod's."""
    optimizers = []
    for transport in ("horovod", "gloo"):
        model = models.mlp()
        optimizers.append(optimizer_of(model, transport=transport))
        trained(model, optimizers[-1], 4, models.mlp_loss)
    subgroup = torch.distributed.new_group([0, 1])
    torch.distributed.destroy_process_group(subgroup)
    assert all(one._own.deferral.pending for one in optimizers)
    torch.distributed.destroy_process_group()
    assert [one._own.closed for one in optimizers] == [False, True]
    assert optimizers[0]._own.deferral.pending
    optimizers[0].close()


CASES: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        resuming, scripts, transforms, compiled_code, other_threads, failing_updates, state_in_groups,
        zeroed_in_between, evaluating_while_measured, strange_cpus,
        groups_that_end,  # the last one: it ends torch's process group
    )
}  # fmt: skip
