"""How the cases make a step, where it is not an ordinary one; each is the same for ours and for Horovod's."""

from __future__ import annotations

import random
import time
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from support.gradients.models import data
from support.gradients.training import Run, backward, digest, ordinary_step, state_digest


def freezing_step(run: Run, number: int) -> None:
    """A layer is frozen between a forward pass and its backward pass, whose graph still leads to it."""
    run.optimizer.zero_grad()
    loss = run.case.loss(run.model, number)
    run.model[2].requires_grad_(number < 4)
    backward(loss)
    run.note(loss)
    run.optimizer.step()


def accumulating_step(run: Run, number: int) -> None:
    run.optimizer.zero_grad()
    with run.optimizer.accumulate():
        for _ in range(2):
            backward(run.case.loss(run.model, number))
    last_pass(run, number)


def accumulating_on_horovod(run: Run, number: int) -> None:
    run.optimizer.set_backward_passes_per_step(3)
    run.optimizer.zero_grad()
    for _ in range(2):
        backward(run.case.loss(run.model, number))
    last_pass(run, number)


def passes_on_ours(run: Run, number: int) -> None:
    run.optimizer.zero_grad()
    for _ in range(2):
        backward(run.case.loss(run.model, number))
    last_pass(run, number)


def last_pass(run: Run, number: int) -> None:
    loss = run.case.loss(run.model, number)
    backward(loss)
    run.note(loss)
    run.optimizer.step()


def gradients(model: nn.Module) -> list[Tensor]:
    return [one.grad for one in model.parameters() if one.grad is not None]


def clipping_by_hand(run: Run, number: int) -> None:
    run.optimizer.zero_grad()
    loss = run.case.loss(run.model, number)
    backward(loss)
    run.note(loss)
    run.optimizer.synchronize()
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), 0.1)
    run.trace.append(
        [float(norm.item()).hex(), digest(one.grad for one in run.model.parameters() if one.grad is not None)]
    )
    with run.optimizer.skip_synchronize():
        run.optimizer.step()


def clipping_on_horovod(run: Run, number: int) -> None:
    run.optimizer.zero_grad()
    loss = run.case.loss(run.model, number)
    backward(loss)
    run.note(loss)
    run.optimizer.synchronize()
    nn.utils.clip_grad_norm_(run.model.parameters(), 0.1)
    with run.optimizer.skip_synchronize():
        run.optimizer.step()


def scheduled_step(run: Run, number: int) -> None:
    if "scheduler" not in run.extra:
        run.extra["scheduler"] = torch.optim.lr_scheduler.ExponentialLR(run.optimizer, 0.7)
    ordinary_step(run, number)
    run.extra["scheduler"].step()
    for group in run.optimizer.param_groups:
        group["momentum"] = 0.5 + 0.04 * number
    run.trace.append([run.optimizer.param_groups[0]["lr"], ""])


def watched_step(run: Run, number: int) -> None:
    """Everything that reads what an update is to change, in turn, between steps."""
    ordinary_step(run, number)
    kind = number % 5
    if kind == 0:
        run.model.eval()
        with torch.no_grad() if number % 2 else torch.inference_mode():
            run.trace.append([float(run.case.loss(run.model, number).item()).hex(), ""])
        run.model.train()
    elif kind == 1:
        run.trace.append(["", digest(run.model.state_dict().values())])
    elif kind == 2:
        run.trace.append(["", state_digest(run.optimizer)])
    elif kind == 3:
        hvd.broadcast_parameters(run.model.state_dict(), root_rank=0)
        hvd.broadcast_optimizer_state(run.optimizer, root_rank=0)
        run.trace.append(["", digest(one.data for one in run.model.parameters())])
    else:
        run.trace.append(["", digest([run.optimizer.state[one]["momentum_buffer"] for one in run.model.parameters()])])


def fused(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, fused=True)


def scaled_step(run: Run, number: int) -> None:
    """In step 4 one rank's gradients are not finite: no rank makes that step, and the scale is halved."""
    if "scaler" not in run.extra:
        run.extra["scaler"] = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler = run.extra["scaler"]
    run.optimizer.zero_grad()
    loss = run.case.loss(run.model, number)
    scaled = scaler.scale(loss)
    backward(scaled * torch.inf if number == 4 and hvd.rank() == 1 else scaled)
    run.note(loss)
    before = digest(run.model.parameters())
    run.optimizer.synchronize()
    if run.case.optimizer is not fused:  # whose step() takes the scale itself
        scaler.unscale_(run.optimizer)
    with run.optimizer.skip_synchronize():
        scaler.step(run.optimizer)
    scaler.update()
    assert (digest(run.model.parameters()) == before) == (number == 4)
    run.trace.append([scaler.get_scale(), state_digest(run.optimizer)])


def one_of_hundreds(run: Run, number: int) -> None:
    """Every loss counts, and the parameters now and then; a few of the hooks are delayed."""
    if number == 0:
        delay_hooks(run.model, seconds=0.001, share=0.03)
    run.optimizer.zero_grad()
    loss = run.case.loss(run.model, number)
    backward(loss)
    if number % 10 == 0:
        run.note(loss)
    else:
        run.trace.append([float(loss.item()).hex(), ""])
    run.optimizer.step()
    if number == run.case.steps - 1 and run.how != "horovod":
        assert "plans tried" in run.optimizer.tuning["why"], run.optimizer.tuning["why"]


def delaying(run: Run) -> None:
    """A delay of up to 1 ms, another one on each rank, in a third of the calls of every hook."""
    if "delayed" not in run.extra:
        run.extra["delayed"] = True
        delay_hooks(run.model, seconds=0.001, share=0.3)


def delay_hooks(model: Any, *, seconds: float, share: float = 1.0) -> None:
    """A random delay of up to ``seconds``, another one on each rank, in the hooks of every module and parameter.

    ``share``: of the calls that are delayed.
    """
    chance = random.Random(hvd.rank())

    def delay(*_: Any) -> None:
        if share == 1.0 or chance.random() < share:
            time.sleep(chance.random() * seconds)

    for module in model.modules():
        module.register_forward_pre_hook(delay)
        module.register_forward_hook(delay)
    for one in model.parameters():
        one.register_hook(delay)
        one.register_post_accumulate_grad_hook(delay)


def delayed_step(run: Run, number: int) -> None:
    delaying(run)
    ordinary_step(run, number)


def zeroing_step(run: Run, number: int) -> None:
    """By the model or by the optimizer, to zeros or to None; where it is left out gradients pile up."""
    kind = number % 5
    if kind == 0:
        run.model.zero_grad(set_to_none=False)
    elif kind == 1:
        run.model.zero_grad()
    elif kind == 2 and run.how != "horovod":  # Horovod's takes no argument
        run.optimizer.zero_grad(set_to_none=False)
    elif kind == 2:
        torch.optim.Optimizer.zero_grad(run.optimizer, set_to_none=False)
    elif kind == 3:
        run.optimizer.zero_grad()
    last_pass(run, number)
    if number % 3 == 0:
        run.trace.append(["", digest(gradients(run.model))])


def retained_step(run: Run, number: int) -> None:
    """A second backward pass of one graph, after step() and without any forward pass."""
    run.optimizer.zero_grad()
    loss = run.model(data(6, 12)).sum()  # one layer: backward reads no weight that step() changes
    loss.backward(retain_graph=True)
    run.note(loss)
    run.optimizer.step()
    backward(loss)
    run.note(loss)
    run.optimizer.step()
