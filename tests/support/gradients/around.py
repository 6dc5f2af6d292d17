"""Cases around a training: exports behind a step, other threads, what joins within a step, what a closed one leaves."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

import lockstep
from lockstep_worker.gradients.transport import GlooTransport
from support.gradients import models
from support.gradients.late import steered
from support.gradients.special import optimizer_of, shared, trained
from support.gradients.training import backward, digest


def under_way() -> tuple[Any, Any, str]:
    """A model, its optimizer with an update on its way, and the digest of what its parameters will be."""
    torch.manual_seed(3)
    undeferred = models.mlp()
    expected = optimizer_of(undeferred, defer=False)
    trained(undeferred, expected, 5, models.mlp_loss)
    expected.close()
    torch.manual_seed(3)
    model = models.mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 5, models.mlp_loss)
    assert optimizer._own.deferral.pending
    return model, optimizer, digest(one.detach() for one in undeferred.parameters())


def traced() -> None:
    """An update that is done while ``torch.jit.trace`` records is no part of what was recorded."""
    inputs = models.data(2, 12)
    model, optimizer, expected = under_way()
    found: Any = torch.jit.trace(model.train(), inputs)  # type: ignore[no-untyped-call] # in training: nothing is completed at the root
    assert not [node.kind() for node in found.inlined_graph.nodes() if node.kind().endswith("_")]
    found(inputs)
    optimizer.close()
    assert digest(one.detach() for one in model.parameters()) == expected
    assert shared(expected)


def saved_as_torchscript() -> None:
    """What is saved by TorchScript itself has the last update in it."""
    model, optimizer, expected = under_way()
    scripted = torch.jit.script(copy.deepcopy(models.mlp()))
    for own, other in zip(list(scripted._modules.values()), model, strict=True):
        for name, parameter in other.named_parameters():
            own._c.setattr(name, parameter)  # one and the same memory, of which TorchScript asks nobody
    trained(model, optimizer, 1, models.mlp_loss)
    assert optimizer._own.deferral.pending
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    assert not optimizer._own.deferral.pending
    buffer.seek(0)
    found = torch.jit.load(buffer).state_dict()  # type: ignore[no-untyped-call]
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    assert digest(one.detach() for one in model.parameters()) != expected
    optimizer.close()


def other_threads_that_change() -> None:
    """What the training does while another thread computes an update neither loses it nor is lost."""

    def told(optimizer: Any, wanted: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=wanted)

        def during() -> None:
            optimizer.during = None
            thread.start()
            thread.join(0.2)

        optimizer.during = during
        return thread

    torch.manual_seed(3)
    undisturbed, optimizer = steered()
    optimizer.close()
    expected = digest(one.detach() for one in undisturbed.parameters())
    for zero in ("model", "optimizer"):
        torch.manual_seed(3)
        model, optimizer = steered()
        thread = told(optimizer, (model if zero == "model" else optimizer).zero_grad)
        optimizer.complete()
        thread.join(60)
        assert all(one.grad is None for one in model.parameters()), zero
        assert digest(one.detach() for one in model.parameters()) == expected, zero
        optimizer.close()
    _, optimizer = steered()
    thread = told(optimizer, lambda: optimizer.param_groups[0].update(lr=0.01))
    optimizer.complete()
    thread.join(60)
    assert optimizer.param_groups[0]["lr"] == 0.01
    optimizer.close()


def clipping_what_is_scaled() -> None:
    """``max_grad_norm`` is of the gradients, also where a fused optimizer divides them by the scale itself."""
    found = []
    for fused, unscales in ((False, True), (True, False)):
        torch.manual_seed(3)
        model = models.mlp()
        base = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
        optimizer: Any = lockstep.DistributedOptimizer(base, model.named_parameters(), max_grad_norm=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(4):
            before = [one.detach().clone() for one in model.parameters()]
            optimizer.zero_grad()
            backward(scaler.scale(models.mlp_loss(model, step)))
            optimizer.synchronize()
            if unscales:
                scaler.unscale_(optimizer)
            with optimizer.skip_synchronize():
                scaler.step(optimizer)
            scaler.update()
            moved = [one.detach() - old for one, old in zip(model.parameters(), before, strict=True)]
            norm = torch.cat([one.flatten() for one in moved]).norm()
            assert 0.09 < norm < 0.101, (fused, norm)
        found.append([one.detach() for one in model.parameters()])
        optimizer.close()
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(*found, strict=True))


def joining_within_a_step() -> None:
    """What joins behind a backward pass has a gradient of this rank alone: no rank steps by it."""
    for defer in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(*models.mlp(), nn.Linear(5, 5))
        base = torch.optim.SGD(model[:5].parameters(), lr=0.05)
        optimizer: Any = lockstep.DistributedOptimizer(base, model[:5].named_parameters(), defer=defer)
        trained(model, optimizer, 4, models.mlp_loss)
        optimizer.zero_grad()
        before = digest(one.detach() for one in model[5].parameters())
        model.zero_grad()
        torch.manual_seed(hvd.rank())
        backward(models.mlp_loss(model, 5))
        optimizer.add_param_group({"params": list(model[5].parameters())})
        optimizer.step()
        assert digest(one.detach() for one in model[5].parameters()) == before
        trained(model, optimizer, 3, models.mlp_loss)
        optimizer.complete()
        assert digest(one.detach() for one in model[5].parameters()) != before
        assert shared(digest(one.detach() for one in model.parameters()))
        optimizer.close()


def closed_over_gloo() -> None:
    """An exchange that is closed leaves no thread and no connection behind."""

    def held() -> tuple[int, int]:
        sockets = [one for one in Path("/proc/self/fd").iterdir() if _is_socket(one)]
        return len(list(Path("/proc/self/task").iterdir())), len(sockets)

    def once() -> None:
        torch.manual_seed(3)
        model = models.mlp()
        optimizer = optimizer_of(model, transport="gloo")
        trained(model, optimizer, 4, models.mlp_loss)
        optimizer.close()

    once()
    lent = GlooTransport("lent")
    for _ in range(2):  # one's own is left as it is
        model = models.mlp()
        optimizer = optimizer_of(model, transport=lent)
        trained(model, optimizer, 4, models.mlp_loss)
        optimizer.close()
    lent.end()
    lent.end()
    assert torch.distributed.is_initialized()
    hvd.allreduce(torch.zeros(1), name="closed.first")
    before = held()
    for _ in range(3):
        once()
        hvd.allreduce(torch.zeros(1), name="closed")
    assert held() == before


def _is_socket(descriptor: Path) -> bool:
    try:
        return "socket" in str(descriptor.readlink())
    except FileNotFoundError:
        return False  # the listing's own


CASES: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        traced, saved_as_torchscript, other_threads_that_change, clipping_what_is_scaled, joining_within_a_step,
        closed_over_gloo,
    )
}  # fmt: skip
