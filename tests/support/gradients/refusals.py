"""Cases of what reads parameters between two steps, and of what is refused with a reason."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import lockstep
from lockstep_worker.gradients.errors import GradientError
from support.gradients import models
from support.gradients.special import optimizer_of, shared, trained
from support.gradients.training import backward, digest, raises


def copies_are_complete() -> None:
    """deepcopy, pickle, print, an alias taken now: whatever touches a parameter sees the update done."""
    looks: list[Callable[[Any], str]] = [
        lambda model: digest(one.detach() for one in copy.deepcopy(model).parameters()),
        lambda model: digest(torch.load(saved(model), weights_only=False).state_dict().values()),
        lambda model: str(model[0].weight),
        lambda model: digest([model[2].weight.data]),
        lambda model: str(nn.utils.parameters_to_vector(model.parameters()).sum().item()),
        lambda model: digest(one.grad for one in model.parameters()),
    ]
    for look in looks:
        seen = []
        for defer in (False, True):
            torch.manual_seed(3)
            model: Any = models.mlp()
            optimizer = optimizer_of(model, defer=defer)
            trained(model, optimizer, 4, models.mlp_loss)
            pending = optimizer._own.deferral.pending
            assert pending == defer
            seen.append(look(model))
            assert all(type(one) is nn.Parameter for one in model.parameters()) or pending
            optimizer.close()
        assert seen[0] == seen[1]
        assert shared(seen[0])


def saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


def opaque_code() -> None:
    """TorchScript reads its weights without asking torch: the wait is at the root."""
    digests = []
    for defer in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(12, 12), torch.jit.script(nn.Linear(12, 12)), nn.Linear(12, 5))
        optimizer = optimizer_of(model, defer=defer)
        trained(model, optimizer, 8, models.mlp_loss)
        digests.append(digest(one.detach() for one in model.parameters()))
        optimizer.close()
    assert digests[0] == digests[1]


def forks() -> None:
    """A forked child (a loader's worker) finds a complete model: it could not complete it."""
    torch.manual_seed(3)
    model: Any = models.mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, models.mlp_loss)
    assert optimizer._own.deferral.pending
    child = os.fork()
    if child == 0:
        os._exit(0 if model[0].weight.abs().sum().item() > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not optimizer._own.deferral.pending
    optimizer.close()


NOT_OFFERED: list[tuple[dict[str, Any], str]] = [
    ({"compression": hvd.Compression.fp16}, "compression is FP16Compressor; gradients are sent as they are"),
    ({"op": hvd.Sum}, "op is hvd.Sum; gradients are averaged here (hvd.Average): for their sum multiply the loss by"),
    ({"op": hvd.Adasum}, "op is hvd.Adasum; gradients are averaged here (hvd.Average): for anything else use"),
    ({"gradient_predivide_factor": 2.0}, "gradient_predivide_factor is 2.0; it is 1.0 here"),
    ({"num_groups": 3}, "num_groups is 3; leave it out"),
    ({"groups": [[]]}, "groups is a list of 1; leave it out"),
    ({"sparse_as_dense": True}, "say Embedding(..., sparse=False)"),
    ({"process_set": hvd.ProcessSet([0])}, "all ranks take part here"),
    ({"backward_passes_per_step": 0}, "backward_passes_per_step is 0; it is at least 1"),
]
"""Of Horovod's arguments, and what is said of each."""


def says_what_is_wrong() -> None:
    """On all ranks, at once."""
    model: Any = models.mlp()
    with raises(GradientError, "more than once"):
        lockstep.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=1.0), [("a", one) for one in model.parameters()]
        )
    with raises(GradientError, "not in named_parameters"):
        lockstep.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), [("a", model[0].weight)])
    with raises(GradientError, "it is 'horovod', 'gloo', 'tcp'"):
        optimizer_of(model, transport="mpi")
    for wrong, said in NOT_OFFERED:
        with raises(GradientError, said):
            optimizer_of(model, **wrong)
    optimizer = optimizer_of(model, credit=2 + hvd.rank())
    with raises(GradientError, "credit is 2 on rank 0 and 3 on rank 1"):
        backward(models.mlp_loss(model, 0))
    optimizer.close()
    other = nn.Linear(3, 4 + hvd.rank())
    optimizer = optimizer_of(other)
    with raises(GradientError, "in another DistributedOptimizer already; close() that one first"):
        optimizer_of(other)
    with raises(GradientError, "[5, 3]"):
        backward(other(torch.ones(2, 3)).sum())
    optimizer.close()
    frozen = nn.Linear(3, 3).requires_grad_(False)
    optimizer = optimizer_of(frozen)
    with raises(GradientError, "no parameter of the optimizer requires a gradient on any rank"):
        optimizer.step()
    optimizer.close()
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = optimizer_of(embedding)
    with raises(GradientError, "sparse=False"):
        backward(embedding(torch.tensor([1, 2])).sum())
    optimizer.close()


def uses_too_early() -> None:
    """What Horovod lets race is an error: gradients that are still exchanged, a second pass, zero_grad."""
    model = models.mlp()
    optimizer = optimizer_of(model)
    torch.autograd.grad(models.mlp_loss(model, 0), list(model.parameters()))
    optimizer.zero_grad()  # nothing is exchanged: no gradient was added to a parameter's
    optimizer.close()
    for what in ("use", "pass", "zero", "replace", "scale"):
        model = models.mlp()
        optimizer = optimizer_of(model)
        backward(models.mlp_loss(model, 0))
        if what == "use":
            with raises(GradientError, "call optimizer.synchronize() first"):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        elif what == "pass":
            with raises(GradientError, "with optimizer.accumulate()"):
                backward(models.mlp_loss(model, 0))
        elif what == "scale":
            scaler = torch.amp.GradScaler("cpu")
            scaler.scale(torch.ones(1))
            with raises(GradientError, "call optimizer.synchronize() first"):
                scaler.step(optimizer)
        elif what == "replace":
            kept, model[2].weight.grad = model[2].weight.grad, None
            with raises(GradientError, "the gradient of 2.weight was replaced between backward() and step()"):
                optimizer.step()
            model[2].weight.grad = kept
        else:
            with raises(GradientError, "zero_grad()"):
                optimizer.zero_grad()
        optimizer.step()
        optimizer.close()


class Global(torch.optim.SGD):
    """An optimizer whose updates may depend on each other, for all that is known."""


def unknown_optimizers() -> None:
    """They are not deferred, unless they say that they can be."""
    model = models.mlp()
    asked: list[tuple[dict[str, Any], bool | None, bool]] = [
        ({}, None, False), ({"separable": True}, None, True), ({}, True, True)
    ]  # fmt: skip
    for options, attribute, deferred in asked:
        base: Any = Global(model.parameters(), lr=0.1)
        if attribute is not None:
            base.separable = attribute
        optimizer: Any = lockstep.DistributedOptimizer(base, model.named_parameters(), **options)
        assert {Global, lockstep.DistributedOptimizer} < set(type(optimizer).__mro__)
        assert optimizer.deferred == deferred
        assert deferred or "separable=True" in str(optimizer.undeferred_because)
        trained(model, optimizer, 4, models.mlp_loss)
        assert optimizer._own.deferral.pending == deferred
        optimizer.close()


def hooks_of_a_step() -> None:
    """Hooks around step() see each step once, done."""
    model = models.mlp()
    optimizer = optimizer_of(model)
    seen: list[bool] = []
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer._own.deferral.pending))
    trained(model, optimizer, 6, models.mlp_loss)
    optimizer.load_state_dict(optimizer.state_dict())
    trained(model, optimizer, 2, models.mlp_loss)
    assert seen == [False] * 8
    optimizer.close()
    model = models.mlp()
    optimizer = optimizer_of(model)
    handle = register_optimizer_step_post_hook(lambda *_: seen.append(optimizer._own.deferral.pending))
    trained(model, optimizer, 6, models.mlp_loss)
    handle.remove()
    trained(model, optimizer, 1, models.mlp_loss)
    assert optimizer._own.deferral.pending
    assert seen == [False] * 14
    optimizer.close()


CASES: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        copies_are_complete, opaque_code, forks, says_what_is_wrong, uses_too_early, unknown_optimizers,
        hooks_of_a_step,
    )
}  # fmt: skip
