"""The cases in which a deferred, an undeferred and Horovod's own training have to be equal bit for bit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep_worker.optimizers.lamb import LAMB
from lockstep_worker.optimizers.lars import LARS
from support.gradients.training import Case, Run, backward, digest, ordinary_step, state_digest


def data(*shape: int) -> Tensor:
    """This rank's, of this step: the generator was seeded so."""
    return torch.randn(*shape)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 5))


def mlp_loss(model: Any, _step: int) -> Tensor:
    return functional.cross_entropy(model(data(6, 12)), torch.randint(0, 5, (6,)))


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def channels_last() -> nn.Module:
    model = convolutions()
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def convolutions_loss(model: Any, _step: int) -> Tensor:
    return functional.cross_entropy(model(data(4, 3, 8, 8)), torch.randint(0, 5, (4,)))


def transformer() -> nn.Sequential:
    """out_proj of its attention is used without its module being called."""
    return nn.Sequential(
        nn.Linear(8, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 8),
    )  # fmt: skip


def transformer_loss(model: Any, _step: int) -> Tensor:
    inputs = data(3, 7, 8)
    return functional.mse_loss(model(inputs), inputs.flip(1))


class Tied(nn.Module):
    """A language model whose output is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.middle = nn.LSTM(16, 16, batch_first=True)
        self.output = nn.Linear(16, 50, bias=False)
        self.output.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(16))  # of the root itself

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.output(self.middle(self.embedding(tokens) * self.scale)[0])
        return found


def tied_loss(model: Any, _step: int) -> Tensor:
    tokens = torch.randint(0, 50, (3, 9))
    return functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Branches(nn.Module):
    """Which of its branches is used depends on the rank and the step; one never is."""

    def __init__(self, *, with_never: bool) -> None:
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.last = nn.Linear(16, 5)
        if with_never:
            self.never = nn.Linear(3, 3)

    def forward(self, inputs: Tensor, branches: tuple[int, ...]) -> Tensor:
        hidden = self.first(inputs).tanh()
        for branch in branches:
            hidden = self.branches[branch](hidden).tanh()
        found: Tensor = self.last(hidden)
        return found


def branches_loss(model: Any, step: int) -> Tensor:
    # Each is used by one rank in every step: Horovod updates one that nobody used by a gradient of zeros.
    branches = ((0,), (2, 1)) if step % 2 else ((0, 1), (2,))
    return functional.cross_entropy(model(data(6, 12), branches[hvd.rank()]), torch.randint(0, 5, (6,)))


def functional_loss(model: Any, _step: int) -> Tensor:
    """Its weights are used by functions alone, before and after the model is called, and one without any call."""
    penalty = sum(one.square().sum() for one in model.parameters())
    hidden = functional.linear(data(6, 12), model[0].weight, model[0].bias)
    found: Tensor = functional.cross_entropy(model[1:](hidden), torch.randint(0, 5, (6,))) + 1e-3 * penalty
    return found


def frozen_mlp() -> nn.Sequential:
    model = mlp()
    for one in model[2].parameters():
        one.requires_grad_(False)
    return model


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


def fused(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, fused=True)


class Mixed(nn.Module):
    """Parameters of three dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.middle = nn.Linear(20, 20, dtype=torch.float64)
        self.coarse = nn.Linear(20, 20, dtype=torch.float16)
        self.last = nn.Linear(20, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.middle(self.first(inputs).tanh().double()).tanh()
        found: Tensor = self.last(self.coarse(hidden.half()).tanh().float())
        return found


def layers() -> nn.Sequential:
    """Three of 256 KiB: pieces of several sizes can be made of them."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(3)))


def layers_loss(model: Any, _step: int) -> Tensor:
    return functional.mse_loss(model(data(2, 256)), data(2, 256))


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


def autocast_loss(model: Any, step: int) -> Tensor:
    """A forward pass in bfloat16; an update that is done within it is not."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return transformer_loss(model, step)


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


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, amsgrad=True)


class Normed(torch.optim.SGD):
    """Scales each parameter's update by a norm, as LARS does, by operations that autocast would change."""

    separable = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    flat = one.grad.flatten()
                    one.add_(one.grad / (flat @ flat + 1).sqrt(), alpha=-group["lr"])


def normed(parameters: Any) -> torch.optim.Optimizer:
    return Normed(parameters, lr=0.05)


def grouped(parameters: Any) -> torch.optim.Optimizer:
    """Two groups of other rates, as trainings without weight decay of biases have them."""
    found = list(parameters)
    return torch.optim.Adam(
        [{"params": [one for one in found if one.dim() > 1], "weight_decay": 0.1},
         {"params": [one for one in found if one.dim() <= 1], "lr": 0.003}], lr=0.01, foreach=True,
    )  # fmt: skip


def three_passes() -> dict[str, Any]:
    return {"backward_passes_per_step": 3}


def as_horovods() -> dict[str, Any]:
    """What a script in Horovod's style says, and changes nothing."""
    return {
        "compression": hvd.Compression.none, "backward_passes_per_step": 1, "op": hvd.Average,
        "gradient_predivide_factor": 1.0, "num_groups": 0, "groups": None, "sparse_as_dense": False,
        "process_set": hvd.global_process_set,
    }  # fmt: skip


def of_torch(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: kind(parameters, **options)


OF_TORCH = {
    "nadam": of_torch(torch.optim.NAdam, lr=0.01),
    "radam": of_torch(torch.optim.RAdam, lr=0.01, weight_decay=0.1),
    "adamax": of_torch(torch.optim.Adamax, lr=0.01),
    "adadelta": of_torch(torch.optim.Adadelta, lr=0.5),
    "adagrad": of_torch(torch.optim.Adagrad, lr=0.05, lr_decay=0.1),
    "rmsprop": of_torch(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    "rprop": of_torch(torch.optim.Rprop, lr=0.01),
    "asgd": of_torch(torch.optim.ASGD, lr=0.05, t0=2.0),
}
"""The rest of those that are known to be separable, by the names of their cases."""


CASES = {
    "momentum": Case(mlp, mlp_loss),
    "adamw": Case(mlp, mlp_loss, adamw),
    **{name: Case(mlp, mlp_loss, optimizer, steps=5, undeferred=False) for name, optimizer in OF_TORCH.items()},
    "lars": Case(mlp, mlp_loss, lambda parameters: LARS(parameters, 1.0, weight_decay=0.01)),
    "lamb": Case(mlp, mlp_loss, lambda parameters: LAMB(parameters, 0.01, weight_decay=0.01)),
    "groups": Case(mlp, mlp_loss, grouped),
    "convolutions": Case(convolutions, convolutions_loss),
    "channels last": Case(channels_last, convolutions_loss, peer=False),
    "attention": Case(transformer, transformer_loss),
    "autocast": Case(transformer, autocast_loss, normed),
    "tied": Case(Tied, tied_loss, adamw),
    "unused on one rank": Case(lambda: Branches(with_never=False), branches_loss, steps=12),
    "functional": Case(mlp, functional_loss),
    "frozen": Case(frozen_mlp, mlp_loss),
    "frozen behind a forward pass": Case(mlp, mlp_loss, step=freezing_step, peer=False),
    "accumulation": Case(mlp, mlp_loss, step=accumulating_step, horovod_step=accumulating_on_horovod),
    "passes": Case(mlp, mlp_loss, step=passes_on_ours, horovod_step=accumulating_on_horovod, options=three_passes()),
    "horovod's arguments": Case(
        mlp, mlp_loss, step=accumulating_on_horovod, options=as_horovods(), undeferred=False
    ),
    "mixed dtypes": Case(Mixed, mlp_loss, undeferred=False),
    "mixed dtypes over tcp": Case(
        Mixed, mlp_loss, options={"transport": "tcp", "piece_bytes": 512}, undeferred=False
    ),
    "clipping": Case(mlp, mlp_loss, options={"max_grad_norm": 0.1}, horovod_step=clipping_on_horovod),
    "clipping by hand": Case(mlp, mlp_loss, step=clipping_by_hand),
    "loss scaling": Case(mlp, mlp_loss, step=scaled_step, steps=6),
    "loss scaling, fused": Case(mlp, mlp_loss, fused, step=scaled_step, steps=6, undeferred=False),
    "scheduler": Case(mlp, mlp_loss, step=scheduled_step),
    "reading between steps": Case(transformer, transformer_loss, step=watched_step, steps=11),
    "delays": Case(transformer, transformer_loss, step=delayed_step, steps=20),
    "zeroing": Case(mlp, mlp_loss, step=zeroing_step, steps=15),
    "retained": Case(lambda: nn.Linear(12, 5), mlp_loss, step=retained_step),
    "one piece at a time": Case(mlp, mlp_loss, steps=6, options={"piece_bytes": 512, "credit": 1}),
    "all at once": Case(mlp, mlp_loss, options={"piece_bytes": 256, "credit": 1000}),
    "one piece": Case(mlp, mlp_loss, options={"piece_bytes": 1 << 20}),
    "gloo": Case(transformer, transformer_loss, options={"transport": "gloo"}),
    "tcp": Case(transformer, transformer_loss, options={"transport": "tcp"}),
    "tcp, small pieces": Case(
        transformer, transformer_loss, options={"transport": "tcp", "piece_bytes": 512, "credit": 3}
    ),
    "five hundred steps while plans are tried": Case(
        layers, layers_loss, step=one_of_hundreds, steps=500, undeferred=False,
        options={"transport": "tcp", "piece_bytes": None},
    ),
}  # fmt: skip
UNDEFERRED = {"clipping", "clipping by hand", "loss scaling", "loss scaling, fused"}
"""Cases in which nothing may be deferred."""
