"""Cases that have no equal in Horovod, or are about what must not happen."""

from __future__ import annotations

import atexit
import copy
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import lockstep
from lockstep_worker import births
from lockstep_worker.gradients.errors import GradientError
from lockstep_worker.gradients.transport import HorovodTransport
from support.gradients import cases
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
        model = cases.Branches(with_never=True)
        before = model.never.weight.detach().clone()
        optimizer = optimizer_of(model, defer=defer)
        trained(model, optimizer, 8, cases.branches_loss)
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
        self.pieces: dict[int, int] = {}
        """By handle."""

    def start(self, buffer: Tensor, name: str, landed: Callable[[], None]) -> int:
        handle = super().start(buffer, name, landed)
        self.started.append(name)
        self.pieces[handle] = int(name.rpartition(".")[2])
        return handle

    def is_done(self, handle: int) -> bool:
        held = self.free is not None and self.pieces[handle] not in self.free and not self.gate.is_set()
        return super().is_done(handle) and not held


def a_layer_waits_for_itself_alone() -> None:
    """The first layer of the next forward pass runs while the others' gradients are held back."""
    torch.manual_seed(3)
    model = cases.mlp()
    transport = Gated("gated")
    optimizer = optimizer_of(model, transport=transport, credit=100)
    ran: list[str] = []
    trained(model, optimizer, 4, cases.mlp_loss)
    optimizer.complete()
    layout = optimizer._own.reducer
    transport.free = {part for slot in layout.slots[:2] for part in slot.parts}
    assert transport.free < set(layout.plan.order)

    def after_first(*_: Any) -> None:
        ran.append("first layer")
        assert optimizer._own.deferral.pending
        assert not transport.gate.is_set()
        transport.gate.set()

    trained(model, optimizer, 1, cases.mlp_loss)
    handle = model[0].register_forward_hook(after_first)
    optimizer.zero_grad()
    backward(cases.mlp_loss(model, 0))
    assert ran == ["first layer"]
    handle.remove()
    transport.gate.set()
    optimizer.step()
    optimizer.close()
    assert shared(digest(one.detach() for one in model.parameters()))


def a_teacher_waits_for_nothing() -> None:
    """A model that is not in training, called first, completes nothing; the one in training does when evaluated."""
    model, teacher = cases.mlp(), cases.mlp().eval()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, cases.mlp_loss)
    with torch.no_grad():
        teacher(torch.ones(1, 12))
        assert optimizer._own.deferral.pending
        model(torch.ones(1, 12))
        assert not optimizer._own.deferral.pending
    optimizer.close()


def one_order() -> None:
    """Every rank issues the same pieces in the same order in every step, also with delays of its own."""
    torch.manual_seed(3)
    run = Run(Case(cases.transformer, cases.transformer_loss, step=cases.delayed_step, steps=6), "deferred",
              transport=(transport := Gated("one-order")))  # fmt: skip
    run.train()
    assert len(transport.started) > 20
    assert shared("\n".join(transport.started))


def unfreezing() -> None:
    """Layers that begin to require gradients on all ranks are averaged from that very step on; and some cease to."""
    traces = []
    for how, model in (("horovod", cases.mlp), ("undeferred", cases.frozen_mlp), ("deferred", cases.frozen_mlp)):
        run = Run(Case(model, cases.mlp_loss, steps=12, step=unfreezing_step, horovod_step=dropping_step), how)
        traces.append(run.train())
        assert all(equal_on_all_ranks(traces[-1])), how
        assert (run.pending > 0) == (how == "deferred")
    assert traces[1] == traces[2], "deferred differs from undeferred"
    assert traces[0] == traces[1], "ours differs from Horovod's"


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
    loss = cases.mlp_loss(run.model, number)
    backward(loss)
    run.note(loss)
    run.optimizer.synchronize()
    for one in [*(run.model[2].parameters() if number < 6 else []), *([run.model[0].weight] if number >= 9 else [])]:
        one.grad = None
    with run.optimizer.skip_synchronize():
        run.optimizer.step()


def unfreezing_on_one_rank() -> None:
    """It hangs nobody, and the ranks stay equal."""
    torch.manual_seed(3)
    model = cases.frozen_mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 5, cases.mlp_loss)
    if hvd.rank() == 1:
        model[2].weight.requires_grad_(True)
    trained(model, optimizer, 6, cases.mlp_loss)
    optimizer.complete()
    assert shared(digest(one.detach() for one in model.parameters()))
    assert any(slot.parameter is model[2].weight for slot in optimizer._own.reducer.slots)
    optimizer.close()


def without_a_backward_pass() -> None:
    """A rank that has no batch steps along."""
    torch.manual_seed(3)
    model = cases.mlp()
    optimizer = optimizer_of(model)
    for step in range(8):
        optimizer.zero_grad()
        if hvd.rank() == 0 or step % 3 == 0:
            backward(cases.mlp_loss(model, step))
        optimizer.step()
    optimizer.complete()
    assert shared(digest(one.detach() for one in model.parameters()))
    optimizer.close()


def two_optimizers() -> None:
    """Two at once, stepped in the other order on one rank: their exchanges do not meet."""
    torch.manual_seed(3)
    models = [cases.mlp(), cases.mlp()]
    optimizers = [optimizer_of(one) for one in models]
    for step in range(6):
        for optimizer in optimizers:
            optimizer.zero_grad()
        inputs = cases.data(6, 12)
        backward(models[0](inputs).square().mean() + models[1](inputs).abs().mean())
        for optimizer in optimizers if step < 3 or hvd.rank() == 0 else optimizers[::-1]:
            optimizer.step()
    for model, optimizer in zip(models, optimizers, strict=True):
        optimizer.complete()
        assert shared(digest(one.detach() for one in model.parameters()))
        optimizer.close()


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
            model: Any = cases.mlp()
            optimizer = optimizer_of(model, defer=defer)
            trained(model, optimizer, 4, cases.mlp_loss)
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
        trained(model, optimizer, 8, cases.mlp_loss)
        digests.append(digest(one.detach() for one in model.parameters()))
        optimizer.close()
    assert digests[0] == digests[1]


def forks() -> None:
    """A forked child (a loader's worker) finds a complete model: it could not complete it."""
    torch.manual_seed(3)
    model: Any = cases.mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, cases.mlp_loss)
    assert optimizer._own.deferral.pending
    child = os.fork()
    if child == 0:
        os._exit(0 if model[0].weight.abs().sum().item() > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not optimizer._own.deferral.pending
    optimizer.close()


def says_what_is_wrong() -> None:
    """On all ranks, at once."""
    model: Any = cases.mlp()
    with raises(GradientError, "more than once"):
        lockstep.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=1.0), [("a", one) for one in model.parameters()]
        )
    with raises(GradientError, "not in named_parameters"):
        lockstep.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=1.0), [("a", model[0].weight)])
    with raises(GradientError, "it is 'horovod', 'gloo'"):
        optimizer_of(model, transport="mpi")
    optimizer = optimizer_of(model, credit=2 + hvd.rank())
    with raises(GradientError, "credit is 2 on rank 0 and 3 on rank 1"):
        backward(cases.mlp_loss(model, 0))
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
    model = cases.mlp()
    optimizer = optimizer_of(model)
    torch.autograd.grad(cases.mlp_loss(model, 0), list(model.parameters()))
    optimizer.zero_grad()  # nothing is exchanged: no gradient was added to a parameter's
    optimizer.close()
    for what in ("use", "pass", "zero", "replace"):
        model = cases.mlp()
        optimizer = optimizer_of(model)
        backward(cases.mlp_loss(model, 0))
        if what == "use":
            with raises(GradientError, "call optimizer.synchronize() first"):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        elif what == "pass":
            with raises(GradientError, "with optimizer.accumulate()"):
                backward(cases.mlp_loss(model, 0))
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
    model = cases.mlp()
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
        trained(model, optimizer, 4, cases.mlp_loss)
        assert optimizer._own.deferral.pending == deferred
        optimizer.close()


def hooks_of_a_step() -> None:
    """Hooks around step() see each step once, done."""
    model = cases.mlp()
    optimizer = optimizer_of(model)
    seen: list[bool] = []
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer._own.deferral.pending))
    trained(model, optimizer, 6, cases.mlp_loss)
    optimizer.load_state_dict(optimizer.state_dict())
    trained(model, optimizer, 2, cases.mlp_loss)
    assert seen == [False] * 8
    optimizer.close()
    model = cases.mlp()
    optimizer = optimizer_of(model)
    handle = register_optimizer_step_post_hook(lambda *_: seen.append(optimizer._own.deferral.pending))
    trained(model, optimizer, 6, cases.mlp_loss)
    handle.remove()
    trained(model, optimizer, 1, cases.mlp_loss)
    assert optimizer._own.deferral.pending
    assert seen == [False] * 14
    optimizer.close()


def further_parameters() -> None:
    """add_param_group, in the middle of a training."""
    digests = []
    for defer in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(*cases.mlp(), nn.Linear(5, 5))
        base = torch.optim.SGD(model[:5].parameters(), lr=0.05, momentum=0.9)
        optimizer: Any = lockstep.DistributedOptimizer(base, model[:5].named_parameters(), defer=defer)
        trained(model, optimizer, 4, cases.mlp_loss)
        optimizer.add_param_group({"params": list(model[5].parameters()), "lr": 0.01})
        model.zero_grad()
        trained(model, optimizer, 6, cases.mlp_loss)
        optimizer.complete()
        digests.append(digest(one.detach() for one in model.parameters()))
        optimizer.close()
    assert digests[0] == digests[1]
    assert shared(digests[0])


def many_steps() -> None:
    """Many short steps of a tiny model, with several pieces and little credit."""
    models = []
    for defer in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = optimizer_of(model, defer=defer, piece_bytes=256, credit=2)
        steps = 100 if hvd.size() == 2 else 30
        trained(model, optimizer, steps, lambda model, _: (model(cases.data(2, 4)) - 1).square().mean())
        optimizer.complete()
        assert shared(digest(one.detach() for one in model.parameters()))
        optimizer.close()
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        if hvd.size() == 2:
            assert torch.equal(one, other)
        else:  # what Horovod fuses depends on the moment, and with it the order in which four numbers are added
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def sleeps() -> None:
    """A rank that waits half a second for another one uses next to no CPU time for it, in either of its threads."""
    model = cases.mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, cases.mlp_loss)
    optimizer.complete()
    hvd.barrier()
    if hvd.rank() == 1:
        time.sleep(0.5)
        trained(model, optimizer, 1, cases.mlp_loss)
        optimizer.complete()
    else:
        trained(model, optimizer, 1, cases.mlp_loss)
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


def four_ranks() -> None:
    """Equal on all ranks always; against Horovod to the rounding of another order of summation."""
    runs = {}
    for how in ("horovod", "deferred"):
        run = Run(Case(cases.transformer, cases.transformer_loss, step=cases.delayed_step, steps=5), how)
        assert all(equal_on_all_ranks(run.train())), how
        runs[how] = run
    assert runs["deferred"].pending
    for one, other in zip(runs["deferred"].model.parameters(), runs["horovod"].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


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
        unused_everywhere, a_layer_waits_for_itself_alone, a_teacher_waits_for_nothing, one_order,
        unfreezing, unfreezing_on_one_rank, without_a_backward_pass, two_optimizers, copies_are_complete, opaque_code,
        forks, says_what_is_wrong,
        uses_too_early, unknown_optimizers, hooks_of_a_step, further_parameters, many_steps, sleeps,
    )
}  # fmt: skip
FOUR: dict[str, Callable[[], None]] = {
    "four ranks": four_ranks, "unfreezing on one rank": unfreezing_on_one_rank, "many steps": many_steps,
}  # fmt: skip


def at_the_end() -> None:
    """An update is on its way when the script shuts Horovod down (two ranks), or ends (four).

    Not one after the other: a second ``hvd.init()`` crashes in Horovod 0.28.1.
    """
    torch.manual_seed(3)
    model = cases.mlp()
    optimizer = optimizer_of(model)
    trained(model, optimizer, 4, cases.mlp_loss)
    assert optimizer._own.deferral.pending
    rank = hvd.rank()
    if hvd.size() == 2:
        hvd.shutdown()
        tell(rank, model)
    else:
        left.append((rank, model, optimizer))
